"""The engine's life is a table without dead ends."""

import pytest

from meshllm.core.engines import EngineState
from meshllm.core.serving.engine_state import HAS_PROCESS, TRANSITIONS, IllegalTransitionError, Signal, next_state


def reachable_from(start: EngineState) -> set[EngineState]:
    """Return every state that signals can lead to."""
    found, frontier = {start}, [start]
    while frontier:
        state = frontier.pop()
        for (origin, _), target in TRANSITIONS.items():
            if origin is state and target not in found:
                found.add(target)
                frontier.append(target)
    return found


@pytest.mark.parametrize("state", EngineState)
def test_every_state_is_reached_and_can_be_left_for_stopped(state: EngineState) -> None:
    """An engine that cannot be stopped from somewhere would leak its memory there."""
    assert state in reachable_from(EngineState.STOPPED)
    assert EngineState.STOPPED in reachable_from(state)


@pytest.mark.parametrize("state", sorted(HAS_PROCESS))
def test_a_process_may_end_in_every_state_that_has_one(state: EngineState) -> None:
    """Processes die when they like; there must be an answer always."""
    assert next_state(state, Signal.EXITED) not in HAS_PROCESS


def test_a_process_starts_only_from_starting() -> None:
    """No path leads to a running engine past `starting`, where its memory is accounted for."""
    for (origin, _), target in TRANSITIONS.items():
        if target in HAS_PROCESS and origin not in HAS_PROCESS:
            assert target is EngineState.STARTING


def test_what_the_table_does_not_name_is_refused() -> None:
    """A signal in the wrong state is a mistake of ours and must not pass."""
    with pytest.raises(IllegalTransitionError, match="stopped cannot be became_ready"):
        next_state(EngineState.STOPPED, Signal.BECAME_READY)
