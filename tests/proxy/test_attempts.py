"""Each attempt is counted once, and every loss remembered where it was."""

from pathlib import Path

from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.attempts import Setback
from meshllm.proxy.attempts import Attempts
from meshllm.proxy.pool import EnginePool, TunnelEnd
from meshllm.proxy.target import Target
from meshllm.proxy.traffic import ModelTraffic


def a_target(end: EngineEndpoint | TunnelEnd) -> Target:
    """Return a target at this node's engine, or at another node."""
    traffic = ModelTraffic(ModelId("tiny"))
    pool = EnginePool(EngineEndpoint(socket_path=str(Path("/nowhere"))), 1, traffic)
    pool.endpoint = end
    is_here = isinstance(end, EngineEndpoint)
    node = NodeId("a" if is_here else "b")
    return Target(
        model=ModelId("tiny"), node=node, pool=pool, traffic=traffic, admitted=1, at_once=1, context_tokens=0,
        unasked_bytes=1, engine_lines=b"", client_lines=b"", answer_lines=b"", peer=None if is_here else node,
    )  # fmt: skip


def test_a_request_is_counted_in_and_out_once() -> None:
    """However often that is said."""
    attempts = Attempts(a_target(EngineEndpoint(socket_path="/a")))

    attempts.count()
    attempts.count()
    in_flight = attempts.traffic.in_flight
    attempts.uncount(is_failure=True)
    attempts.uncount(is_failure=True)

    assert (in_flight, attempts.traffic.in_flight, attempts.traffic.failed_since) == (1, 0, 1)


def test_losses_here_are_counted_by_engine() -> None:
    """A connection that had rested too long is an attempt, and no failure."""
    attempts = Attempts(a_target(EngineEndpoint(socket_path="/a")))

    attempts.note_failure(was_stale=True)
    stale = attempts.failures
    attempts.note_failure(was_stale=False)
    attempts.note_failure(was_stale=False)

    assert (stale, attempts.failures, attempts.losses, attempts.setbacks) == (0, 2, 3, 0)
    assert attempts.failed_at == EngineEndpoint(socket_path="/a")


def test_a_loss_elsewhere_is_a_setback_of_that_node() -> None:
    """It says nothing of any engine."""
    attempts = Attempts(a_target(TunnelEnd(node=NodeId("b"), model=ModelId("tiny"), digest="d")))

    attempts.note_failure(was_stale=False)

    assert (attempts.losses, attempts.setbacks) == (0, 1)
    assert attempts.trip is not None
    assert attempts.trip.trail.setbacks == {NodeId("b"): Setback.LOST}
