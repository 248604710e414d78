"""May a request of another node come in here: decided when its tunnel is opened, before any byte of it.

Owns the order of the questions: what the peer may, whether this node hosts, whether it has that file ready, whether
there is room and a fair share of it left. Decides nothing about the request itself. Doesn't know tunnels; pure.
"""

from dataclasses import dataclass
from enum import StrEnum

from meshllm.core import limits
from meshllm.core.announcement import Role
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId
from meshllm.core.rights import Rights
from meshllm.core.routing.priorities import Priority, room
from meshllm.core.view import MeshView


class DenialCode(StrEnum):
    """Why a tunnel is turned away; the words that travel."""

    NOT_ADMITTED = "not_admitted"
    NOT_HOSTING = "not_hosting"
    DRAINING = "draining"
    LOADING = "loading"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelAsked:
    """What a peer asks for."""

    rights: Rights
    model: ModelId
    digest: str
    """Of the file that the peer means; empty for any of that name."""
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Who is here already."""

    in_flight: int
    """Requests at the model, of everybody."""
    of_peer: int
    """The part that came from this peer."""
    admitted: int
    """Requests that the model's engine may have in flight."""
    slots: int = 1
    """Requests that it computes at the same time."""
    wait_s: float = 0.0
    """For a slot, as far as can be told; 0 when unknown."""
    tunnels: int = 0
    """Open tunnels, of all peers and models."""
    tunnels_of_peer: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """No, and why."""

    code: DenialCode
    message: str


def admit_tunnel(view: MeshView, asked: TunnelAsked, crowd: Crowd) -> Denial | None:
    """Return why a request of a peer does not come in, or None: it may."""
    if Rights.INFER not in asked.rights:
        return Denial(code=DenialCode.NOT_ADMITTED, message="this needs the right to infer")
    if view.leaving:
        return Denial(code=DenialCode.DRAINING, message="this node is shutting down")
    if view.me.role is Role.CLIENT:
        return Denial(code=DenialCode.NOT_HOSTING, message="this node is a client: it serves nobody")
    return _of_model(view, asked) or _of_room(asked, crowd)


def _of_model(view: MeshView, asked: TunnelAsked) -> Denial | None:
    model = view.local.get(asked.model)
    if model is None:
        return Denial(code=DenialCode.NOT_HOSTING, message=f"this node has no model {asked.model!r}")
    if asked.digest and model.digest != asked.digest:
        return Denial(code=DenialCode.NOT_HOSTING, message=f"this node has another file of {asked.model!r}")
    if model.state is EngineState.READY and model.endpoint is not None:
        return None
    if model.state in {EngineState.DRAINING, EngineState.STOPPING}:
        return Denial(code=DenialCode.DRAINING, message=f"the model {asked.model!r} is being unloaded here")
    if model.state in {EngineState.STARTING, EngineState.BACKING_OFF}:
        return Denial(code=DenialCode.LOADING, message=f"the model {asked.model!r} is being loaded here")
    return Denial(code=DenialCode.NOT_HOSTING, message=f"the model {asked.model!r} is not in memory here")


def _of_room(asked: TunnelAsked, crowd: Crowd) -> Denial | None:
    """Refuse what there is no room for, or only room for others.

    The share of a peer shrinks with the room that is left (a dynamic threshold, as switches use it for their buffers):
    alone it may take most of a queue, and what it takes never keeps the next one out. Two for each slot may always
    queue; more only where the queue moves: whoever would wait for long is better off elsewhere, or coming back.
    """
    if crowd.tunnels >= limits.FAR_TUNNELS_TOTAL or crowd.tunnels_of_peer >= limits.FAR_TUNNELS_PER_PEER:
        return Denial(code=DenialCode.BUSY, message="there are as many tunnels as this node takes")
    left = room(asked.priority, crowd.slots, crowd.admitted) - crowd.in_flight
    if left <= 0:
        return Denial(code=DenialCode.BUSY, message=f"{crowd.in_flight} requests are at {asked.model!r} here already")
    queued = crowd.in_flight - crowd.slots
    if queued >= limits.HOST_QUEUE_PER_SLOT * crowd.slots and crowd.wait_s > limits.QUEUE_WAIT_S:
        return Denial(code=DenialCode.BUSY, message=f"{queued} requests wait at {asked.model!r} here, which is slow")
    if crowd.of_peer >= limits.TUNNEL_SHARE_OF_ROOM * left:
        return Denial(code=DenialCode.BUSY, message=f"{crowd.of_peer} requests of yours are at {asked.model!r} here")
    return None
