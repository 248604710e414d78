"""One model's working state keeps its promises."""

import pytest

from meshllm.core.engines import EngineEndpoint, EngineState
from meshllm.core.ids import ModelId
from meshllm.core.limits import ENGINE_BACKOFF_MAX_S, ENGINE_FAILURE_WINDOW_S
from meshllm.core.serving.engine_state import IllegalTransitionError, Signal
from meshllm.core.serving.records import Record
from tests.core.builders import a_failure


def test_delays_double_up_to_a_minute() -> None:
    """A machine in trouble is left in peace ever longer, and never forgotten."""
    record = Record(id=ModelId("m"))

    delays = [record.note_failure(a_failure(), float(n)) for n in range(8)]

    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, ENGINE_BACKOFF_MAX_S, ENGINE_BACKOFF_MAX_S]


def test_backoff_never_exceeds_its_maximum_and_forgets_old_failures() -> None:
    """The written limit holds for any number of failures."""
    record = Record(id=ModelId("m"))

    delays = [record.note_failure(a_failure(), 200.0 * n) for n in range(20)]

    assert max(delays) <= ENGINE_BACKOFF_MAX_S
    assert record.note_failure(a_failure(), 200.0 * 20 + ENGINE_FAILURE_WINDOW_S) == 1.0


def test_an_endpoint_never_outlives_its_engine() -> None:
    """A route to a socket of a dead engine would cost somebody a request."""
    record = Record(id=ModelId("m"))
    record.signal(Signal.START_ASKED)
    record.signal(Signal.BECAME_READY)
    record.endpoint, record.pid = EngineEndpoint(socket_path="/x"), 1

    record.signal(Signal.EXITED)

    assert (record.endpoint, record.pid, record.state) == (None, None, EngineState.BACKING_OFF)


def test_an_impossible_signal_changes_nothing() -> None:
    """The table is the only way from state to state."""
    record = Record(id=ModelId("m"))

    with pytest.raises(IllegalTransitionError):
        record.signal(Signal.DRAINED)

    assert record.state is EngineState.STOPPED


def test_forgiving_brings_a_failed_model_back_to_stopped() -> None:
    """Whoever replaced the file gets a fresh start."""
    record = Record(id=ModelId("m"))
    record.signal(Signal.GAVE_UP)
    record.note_failure(a_failure(), 1.0)
    record.shrink, record.load_failures = 1, 3

    record.forgive()

    assert (record.state, record.failure) == (EngineState.STOPPED, None)
    assert (record.shrink, record.load_failures, len(record.failures_s)) == (0, 0, 0)


def test_the_snapshot_shows_what_the_record_knows() -> None:
    """Every field of the view that has a record behind it comes from there."""
    record = Record(id=ModelId("m"), requests=7, waiting="capacity", restarts=2)

    snapshot = record.snapshot()

    assert (snapshot.id, snapshot.requests, snapshot.waiting, snapshot.restarts) == ("m", 7, "capacity", 2)
