"""The life of an engine as a table. All transitions live in this file; docs/engine-states.md is made of it.

Owns which signal leads from which state to which. Doesn't know why a signal was raised, nor what is
done about it: that is `lifecycle`.

Invariant: every state is reachable, and `failed` and `stopped` are the only ones without a process.
"""

from enum import StrEnum

from meshllm.core.engines import EngineState


class Signal(StrEnum):
    """What can happen to an engine. `asked` ones come from decisions, the rest from the world."""

    START_ASKED = "start_asked"
    STOP_ASKED = "stop_asked"
    DRAIN_ASKED = "drain_asked"
    BECAME_READY = "became_ready"
    DRAINED = "drained"
    HUNG = "hung"
    EXITED = "exited"
    EXITED_FOR_GOOD = "exited_for_good"
    RETRY_DUE = "retry_due"
    GAVE_UP = "gave_up"


class IllegalTransitionError(Exception):
    """A signal came in a state that has no answer to it: a mistake of ours."""


_S, _G = EngineState, Signal
TRANSITIONS: dict[tuple[EngineState, Signal], EngineState] = {
    (_S.STOPPED, _G.START_ASKED): _S.STARTING,
    (_S.STOPPED, _G.GAVE_UP): _S.FAILED,
    (_S.FAILED, _G.START_ASKED): _S.STARTING,
    (_S.FAILED, _G.STOP_ASKED): _S.STOPPED,
    (_S.BACKING_OFF, _G.RETRY_DUE): _S.STARTING,
    (_S.BACKING_OFF, _G.START_ASKED): _S.STARTING,
    (_S.BACKING_OFF, _G.STOP_ASKED): _S.STOPPED,
    (_S.BACKING_OFF, _G.GAVE_UP): _S.FAILED,
    (_S.STARTING, _G.BECAME_READY): _S.READY,
    (_S.STARTING, _G.STOP_ASKED): _S.STOPPING,
    (_S.STARTING, _G.HUNG): _S.STARTING,
    (_S.STARTING, _G.EXITED): _S.BACKING_OFF,
    (_S.STARTING, _G.EXITED_FOR_GOOD): _S.FAILED,
    (_S.READY, _G.DRAIN_ASKED): _S.DRAINING,
    (_S.READY, _G.STOP_ASKED): _S.STOPPING,
    (_S.READY, _G.HUNG): _S.READY,
    (_S.READY, _G.EXITED): _S.BACKING_OFF,
    (_S.DRAINING, _G.DRAINED): _S.STOPPING,
    (_S.DRAINING, _G.STOP_ASKED): _S.STOPPING,
    (_S.DRAINING, _G.HUNG): _S.STOPPING,
    (_S.DRAINING, _G.EXITED): _S.STOPPED,
    (_S.STOPPING, _G.EXITED): _S.STOPPED,
}
"""(state, signal) -> next state. What is absent is illegal."""

HAS_PROCESS = frozenset({_S.STARTING, _S.READY, _S.DRAINING, _S.STOPPING})
"""The states in which a child process may exist and its memory is spoken for."""


def next_state(state: EngineState, signal: Signal) -> EngineState:
    """Return the state after a signal. Raises IllegalTransitionError."""
    try:
        return TRANSITIONS[state, signal]
    except KeyError:
        msg = f"an engine that is {state} cannot be {signal}"
        raise IllegalTransitionError(msg) from None
