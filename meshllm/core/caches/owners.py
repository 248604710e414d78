"""The second place of kept answers: at which node of the mesh each one lies, and who may look there or put it there.

Owns which nodes can be owners and how it went with them lately. Decides whose a key is, whether asking there is worth
it now, and what an owner says to others. Doesn't know how nodes speak, nor what an answer says. Pure.

Invariants: a client owns nothing; nobody is given what no host would tell it now, and nobody puts an answer there that
could not give any itself.
"""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from meshllm.core.announcement import Role, ServingState
from meshllm.core.cache_limits import (
    COMPLETION_LOOKUP_ROUND_TRIP_S,
    COMPLETION_OWNER_PAUSE_MOST_S,
    COMPLETION_OWNER_PAUSE_S,
    COMPLETION_SHARED_BYTES,
    COMPLETION_TAKEN_AT_ONCE,
)
from meshllm.core.caches.completions import Key, recipe_of
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rendezvous import winner
from meshllm.core.rights import Rights
from meshllm.core.standing import LIVE, MemberState
from meshllm.core.view import Member, MeshView

_LOT_KEY_BYTES = 16


def owners(view: MeshView) -> tuple[NodeId, ...]:
    """Return the nodes that keep answers for the mesh, this one included where it does."""
    return tuple(node for node, member in view.members.items() if _can_own(member))


def _can_own(member: Member) -> bool:
    said = member.announcement
    is_trusted = Rights.HOST in said.rights and said.role is not Role.CLIENT
    return said.keeps_answers and is_trusted and member.state in LIVE and not said.left


def owner_of(key: Key, nodes: tuple[NodeId, ...]) -> NodeId | None:
    """Return which of the nodes a key belongs to; None among none."""
    model, recipe, digest = key
    whole = blake2b(f"{model}\0{recipe}\0".encode("utf-8", "surrogatepass") + digest, digest_size=_LOT_KEY_BYTES)
    found = winner(whole.digest(), nodes)
    return None if found is None else NodeId(found)


@dataclass(slots=True)
class _Silence:
    """Of an owner that did not answer."""

    times: int = 0
    """In a row."""
    until_s: float = 0.0


class OwnerStanding:
    """Which owners did not answer lately."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._silent: dict[NodeId, _Silence] = {}

    def is_heard(self, view: MeshView, owner: NodeId, now_s: float) -> bool:
        """Tell whether an owner lives and has answered in time, or was left in peace for long enough."""
        member, silence = view.members.get(owner), self._silent.get(owner)
        is_alive = member is not None and member.state is MemberState.ALIVE
        return is_alive and (silence is None or now_s >= silence.until_s)

    def is_worth_asking(self, view: MeshView, owner: NodeId, now_s: float) -> bool:
        """Tell whether a lookup there may be worth its time: it is heard, and near or not measured."""
        member = view.members.get(owner)
        rtt_s = member.rtt_s if member is not None else None
        return self.is_heard(view, owner, now_s) and (rtt_s is None or rtt_s <= COMPLETION_LOOKUP_ROUND_TRIP_S)

    def answered(self, owner: NodeId) -> None:
        """Forget that an owner was silent: it has said something, if only that it has no such answer."""
        self._silent.pop(owner, None)

    def failed(self, owner: NodeId, now_s: float) -> None:
        """Leave an owner in peace for a while that was not heard in time; longer each time. Counted once a pause."""
        silence = self._silent.setdefault(owner, _Silence())
        if now_s < silence.until_s:
            return
        pause_s = COMPLETION_OWNER_PAUSE_S * 2.0 ** min(silence.times, 32)
        silence.times += 1
        silence.until_s = now_s + min(pause_s, COMPLETION_OWNER_PAUSE_MOST_S)

    def keep(self, nodes: tuple[NodeId, ...]) -> None:
        """Forget every node but these."""
        for node in self._silent.keys() - set(nodes):
            del self._silent[node]


# -- what an owner says to others ----------------------------------------------------------------------


class Denial(StrEnum):
    """Why an owner does not do what another node asks; the words that travel."""

    NOT_ADMITTED = "not_admitted"
    NOT_KEPT = "not_kept"
    """It has no such answer, keeps none, or none of what no host would say now."""
    TOO_LARGE = "too_large"
    BUSY = "busy"


def may_look(view: MeshView, rights: Rights, key: Key) -> Denial | None:
    """Return why a node is not told what is kept by a key, or None: whoever may ask the hosts may ask here."""
    if Rights.INFER not in rights:
        return Denial.NOT_ADMITTED
    return None if _keeps(view) and is_said_now(view, key) else Denial.NOT_KEPT


def may_put(view: MeshView, rights: Rights, key: Key, size_bytes: int, coming: int) -> Denial | None:
    """Return why a node may not leave an answer here, or None: who may host may, since it gives answers anyway.

    `coming` others are on their way.
    """
    if (Rights.INFER | Rights.HOST) not in rights:
        return Denial.NOT_ADMITTED
    if not (_keeps(view) and is_said_now(view, key)):
        return Denial.NOT_KEPT
    if size_bytes > COMPLETION_SHARED_BYTES:
        return Denial.TOO_LARGE
    return Denial.BUSY if coming >= COMPLETION_TAKEN_AT_ONCE else None


def _keeps(view: MeshView) -> bool:
    return view.caches.config.shares_completions and view.me.role is not Role.CLIENT and not view.leaving


def is_said_now(view: MeshView, key: Key) -> bool:
    """Tell whether some host would give the answer of this key now, as far as this node knows."""
    model, recipe, _ = key
    name = ModelId(model)
    own = view.local.get(name)
    if own is not None and own.is_ready and recipe_of(own, view.engine_build) == recipe:
        return True
    hosts = view.replicas.get(name, ())
    return any(one.served.recipe == recipe and one.served.state is ServingState.READY for one in hosts)
