"""What to make of the verdicts of others, about members and about this node itself.

Owns the answer to rumours. Decides when a rumour is looked into, passed to the one it is about, or
refuted. Never believes one: `probing` finds out. Doesn't know how statements spread.
"""

from collections import deque

from meshllm.core.announcement import Announcement
from meshllm.core.effects import Leave, Level
from meshllm.core.ids import NodeId
from meshllm.core.limits import REFUTE_INTERVAL_S, TWIN_OUTBIDS, VERIFY_INTERVAL_S
from meshllm.core.members.circle import Circle
from meshllm.core.members.gossip import Gossip
from meshllm.core.members.probing import Probing
from meshllm.core.messages import Delta, Verdict

EXIT_IDENTITY_IN_USE = 4
_TWIN_WINDOW_S = 60.0


class Rumours:
    """Answers to what others think of somebody."""

    def __init__(self, circle: Circle, probing: Probing, gossip: Gossip) -> None:
        """Have heard nothing."""
        self._circle = circle
        self._probing = probing
        self._gossip = gossip
        self._refuted_s = float("-inf")
        self._outbid_s: deque[float] = deque(maxlen=TWIN_OUTBIDS)

    def on_verdict(self, peer: NodeId, verdict: Verdict) -> None:
        """A peer thinks a node dead, or suspects it."""
        circle, now_s = self._circle, self._circle.now_s
        if verdict.node == circle.me:
            self._refute(verdict.incarnation)
            return
        entry = circle.table.entries.get(verdict.node)
        if entry is None or not entry.is_live or peer == verdict.node:
            return
        if verdict.incarnation < entry.incarnation:
            circle.send(peer, Delta(records=(entry.record,)))  # the answer to it is known here already
            return
        if now_s - entry.verified_s < VERIFY_INTERVAL_S:
            return
        entry.verified_s = now_s
        if verdict.is_dead:
            circle.send(verdict.node, verdict)  # if it lives, it refutes that for everybody
        self._probing.doubt(entry)

    def on_own_statement(self, said: Announcement) -> None:
        """Somebody carries a statement of this node's that is newer than any that this node made.

        It is from before a restart, or somebody else runs with the same key.
        """
        circle, own, now_s = self._circle, self._circle.own.announcement, self._circle.now_s
        if not said.supersedes(own):
            return
        self._outbid_s.append(now_s)
        is_twin = len(self._outbid_s) == TWIN_OUTBIDS and now_s - self._outbid_s[0] < _TWIN_WINDOW_S
        if is_twin:
            where = ", ".join(str(address) for address in said.addresses) or "an unknown address"
            circle.notify(Level.ERROR, "another machine runs with this node's identity", circle.me, where=where)
            if (own.addresses, own.name) > (said.addresses, said.name):
                reason = f"another machine runs with this node's identity: {said.name} at {where}"
                circle.do(Leave(reason=reason, exit_code=EXIT_IDENTITY_IN_USE))
        self._outbid(said.incarnation)

    def _refute(self, incarnation: int) -> None:
        circle = self._circle
        own = circle.own.announcement
        is_new = incarnation == own.incarnation and circle.now_s - self._refuted_s >= REFUTE_INTERVAL_S
        if is_new and not circle.is_leaving:
            self._refuted_s = circle.now_s
            self._outbid(incarnation)
            circle.notify(
                Level.INFO, "refuted a rumour of this node's death", circle.me,
                incarnation=circle.own.announcement.incarnation,
            )  # fmt: skip

    def _outbid(self, incarnation: int) -> None:
        self._circle.own.outbid(incarnation)
        self._gossip.say()
