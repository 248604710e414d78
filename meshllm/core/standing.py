"""What membership makes of a node, as a table. All changes of state go through it.

Owns which evidence leads from which state to which. Doesn't know how evidence is gathered:
`members.probing` asks, `members.intake` reads statements.

Invariant: no single word of another node makes a live member dead; only a probe of one's own, directly
and through others, does (`CONFIRM_FAILED`).
"""

from enum import StrEnum


class MemberState(StrEnum):
    """A member, as this node sees it."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    """Does not answer; others are being asked. Routed to last."""
    DEAD = "dead"
    LEFT = "left"
    """Said goodbye."""


LIVE = (MemberState.ALIVE, MemberState.SUSPECT)
"""The states in which a member counts: it is routed to, gossiped with, and part of groups.

A tuple, since it is looked into for each peer at each word, and a state's hash is computed in Python.
"""


class Evidence(StrEnum):
    """What can change a member's state."""

    HEARD = "heard"
    """It spoke to this node, or to one that vouches for it."""
    PROBE_FAILED = "probe_failed"
    CONFIRM_FAILED = "confirm_failed"
    """Neither this node nor others could reach it."""
    NEWER_INCARNATION = "newer_incarnation"
    """It refutes a rumour of its death, or has started again."""
    GOODBYE = "goodbye"


_S, _E = MemberState, Evidence
CHANGES: dict[tuple[MemberState, Evidence], MemberState] = {
    (_S.ALIVE, _E.PROBE_FAILED): _S.SUSPECT,
    (_S.ALIVE, _E.CONFIRM_FAILED): _S.DEAD,
    (_S.ALIVE, _E.GOODBYE): _S.LEFT,
    (_S.SUSPECT, _E.HEARD): _S.ALIVE,
    (_S.SUSPECT, _E.CONFIRM_FAILED): _S.DEAD,
    (_S.SUSPECT, _E.NEWER_INCARNATION): _S.ALIVE,
    (_S.SUSPECT, _E.GOODBYE): _S.LEFT,
    (_S.DEAD, _E.HEARD): _S.ALIVE,
    (_S.DEAD, _E.NEWER_INCARNATION): _S.ALIVE,
    (_S.DEAD, _E.GOODBYE): _S.LEFT,
    (_S.LEFT, _E.NEWER_INCARNATION): _S.ALIVE,
}
"""(state, evidence) -> next state. What is absent changes nothing."""


def next_state(state: MemberState, evidence: Evidence) -> MemberState:
    """Return the state after a piece of evidence."""
    return CHANGES.get((state, evidence), state)
