"""What one request met on its way."""

from pathlib import Path

from meshllm.core.routing.attempts import Setback
from meshllm.proxy.openai import Problem
from meshllm.proxy.target import Trip
from meshllm.proxy.targets import Targets, Tunnels
from meshllm.proxy.traffic import Traffic
from meshllm.proxy.tunnel_pool import NoTunnels
from meshllm.proxy.ways import Reach
from tests.proxy.builders import NODE, ViewsDouble, a_view


async def test_a_trip_remembers_what_was_said_last_of_each_kind() -> None:
    """And where, so that nobody is asked twice."""
    tunnels = Tunnels(NoTunnels(), Reach(lambda _: None))
    targets = Targets(ViewsDouble(a_view()), Traffic(), NODE, Path("/api.sock"), tunnels)
    first, last = (Problem(status=503, code="no_capacity", message=text) for text in ("first", "last"))
    trip = Trip()

    trip.note(targets.management, Setback.FAILED, first)
    trip.note(targets.management, Setback.FAILED, last)
    trip.note(targets.management, Setback.BUSY)

    assert trip.trail.setbacks == {NODE: Setback.BUSY}
    assert trip.problems == {Setback.FAILED: last}
