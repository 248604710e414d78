"""Whether members live: pings, questions to others, suspicion, and this node's own verdicts.

Owns the probes under way and those made for others. Decides when a member is a suspect and when it is
dead, and only by evidence of its own: a probe that failed directly and through others. Doesn't know how
statements spread; `rumours` decides what to make of the verdicts of others.

A probe has two stages. Directly: a ping, `probe_timeout_s`. Confirming: another ping, a new dial, and
the same question to a few others, `confirm_s`. Any authenticated word of the member ends it well. A
member that only others reach is alive, with a note who they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from meshllm.core.effects import Level
from meshllm.core.ids import NodeId, short
from meshllm.core.limits import GOSSIP_FANOUT, HELPS_PENDING, INDIRECT_ALL, TOMBSTONE_S
from meshllm.core.members.circle import Circle
from meshllm.core.members.connections import Connections
from meshllm.core.members.table import Entry
from meshllm.core.messages import Ping, PingReply, PingRequest, Verdict
from meshllm.core.standing import Evidence, MemberState

REFUSED = "refused"
"""The reason of a `PathFailed` that says: the machine is there, nobody listens on the port."""
_REFUSED = "its machine says that nobody listens there"
_SILENT = "no answer to pings"
_HELP_PING_S = 0.3
"""Questions about one member within this are answered by one ping."""


@dataclass(slots=True, kw_only=True)
class Probe:
    """A question that is open."""

    is_confirming: bool
    asked: int = 0
    """How many others were asked."""
    is_half: bool = False
    """There was nobody else to ask: halfway it is looked whether there is by now, as after a sleep."""


@dataclass(slots=True, kw_only=True)
class Help:
    """Somebody waits for this node to hear a member."""

    peer: NodeId
    seq: int
    until_s: float


class Probing:
    """The failure detector."""

    def __init__(self, circle: Circle, connections: Connections) -> None:
        """Watch nobody."""
        self._circle = circle
        self._connections = connections
        self._pending: dict[NodeId, Probe] = {}
        self._helps: dict[NodeId, list[Help]] = {}
        self._help_pinged_s: dict[NodeId, float] = {}
        self._seq = 0

    # -- a member's rhythm ---------------------------------------------------------------------------

    def watch(self, node: NodeId) -> None:
        """Probe a member from here on."""
        if ("probe", node) not in self._circle.timers:
            self._rest(node)

    def unwatch(self, node: NodeId) -> None:
        """Stop probing a node."""
        self._pending.pop(node, None)
        self._circle.timers.cancel(("probe", node))

    def on_due(self, node: NodeId) -> None:
        """A rest or a stage of a probe is over."""
        entry, probe = self._circle.table.entries.get(node), self._pending.get(node)
        if entry is None or not entry.is_live:
            self._pending.pop(node, None)
        elif probe is None:
            self._ask(entry)
        elif not probe.is_confirming:
            entry.why = entry.why or _SILENT
            self._judge(entry, Evidence.PROBE_FAILED)
            self._confirm(entry)
        elif probe.is_half and not self._others(node, few=True):
            self._open(node, Probe(is_confirming=True), self._circle.times.confirm_s / 2)
        elif self._circle.may_accuse and (probe.asked or not self._others(node, few=True)):
            self._bury(entry)
        else:
            self._confirm(entry)

    def _rest(self, node: NodeId) -> None:
        circle = self._circle
        circle.timers.set(("probe", node), circle.now_s + circle.jitter(circle.times.probe_interval_s))

    def _ask(self, entry: Entry) -> None:
        """Ask a member that has been silent for a while."""
        circle, node = self._circle, entry.node
        interval_s = circle.times.probe_interval_s
        if entry.heard_s is not None and circle.now_s - entry.heard_s < 0.9 * interval_s and node in circle.links:
            circle.timers.set(("probe", node), entry.heard_s + circle.jitter(interval_s))
            return
        if node in circle.links:
            self._ping(node)
            if entry.helper is not None:
                self._ask_others(node, (entry.helper,))
        elif circle.is_full:
            self._ask_others(node, (entry.helper,) if entry.helper in circle.links else self._others(node, few=True))
        else:
            return  # in a large mesh, those who are connected to it watch it
        # Of one that was never heard, or not since this node slept, there is nothing but old rumours: half the time is
        # enough for doubt. Nobody is buried sooner for that on less: confirming takes as long as ever.
        hurries = entry.heard_s is None
        self._open(node, Probe(is_confirming=False), circle.times.probe_timeout_s / (2 if hurries else 1))

    def _confirm(self, entry: Entry) -> None:
        """Ask again in every way there is."""
        circle, node = self._circle, entry.node
        is_linked = node in circle.links
        others = self._others(node, few=is_linked)
        probe = Probe(is_confirming=True, asked=len(others), is_half=not others)
        self._open(node, probe, circle.times.confirm_s / (2 if probe.is_half else 1))
        if is_linked:
            self._ping(node)
        self._ask_others(node, others)
        self._connections.urge(node, circle.times.confirm_s * circle.stretch)

    def _open(self, node: NodeId, probe: Probe, within_s: float) -> None:
        self._pending[node] = probe
        self._circle.timers.set(("probe", node), self._circle.now_s + within_s * self._circle.stretch)

    def _ping(self, node: NodeId) -> None:
        self._seq += 1
        self._circle.send(node, Ping(seq=self._seq))

    def _others(self, node: NodeId, *, few: bool) -> list[NodeId]:
        return self._circle.pick(GOSSIP_FANOUT if few else INDIRECT_ALL, without=(node,))

    def _ask_others(self, node: NodeId, others: Iterable[NodeId | None]) -> None:
        self._seq += 1
        for other in others:
            if other is not None:
                self._circle.send(other, PingRequest(seq=self._seq, target=node))

    # -- evidence ------------------------------------------------------------------------------------

    def heard(self, node: NodeId) -> None:
        """A member spoke to this node: whatever it said, it lives."""
        entry = self._circle.table.entries.get(node)
        if entry is not None:
            entry.heard_s = self._circle.now_s
            entry.helper = None
            if entry.vouched_by is not None or entry.why:
                entry.vouched_by, entry.why = None, ""
                self._circle.table.changed.add(node)
            self._lives(entry)
        if node in self._helps:
            self._answer_helps(node)

    def reached_by(self, helper: NodeId, node: NodeId) -> None:
        """Another member has just heard it."""
        entry = self._circle.table.entries.get(node)
        if entry is None or (probe := self._pending.get(node)) is None or not entry.is_live:
            return  # nobody asked
        if not probe.is_confirming and node in self._circle.links and entry.helper is None:
            return
        entry.helper = entry.vouched_by = helper
        problem = self._connections.contacts[node].problem if node in self._connections.contacts else ""
        entry.why = f"no way from here{': ' + problem if problem else ''}; {short(helper)} reaches it"
        self._circle.table.changed.add(node)
        self._lives(entry)

    def refuted(self, entry: Entry) -> None:
        """A member says itself, in a newer incarnation, that it lives."""
        was = entry.state
        if self._circle.table.judge(entry, Evidence.NEWER_INCARNATION, self._circle.now_s):
            self._came_back(entry, was)
        entry.verified_s = float("-inf")  # what is said of this incarnation is another rumour
        if self._pending.pop(entry.node, None) is not None:
            self._rest(entry.node)

    def doubt(self, entry: Entry, reason: str = "") -> None:
        """There is a hint that a member may be gone: find out at once. With `REFUSED`, in less time."""
        circle, node = self._circle, entry.node
        if not entry.is_live:
            return
        if reason:
            entry.why = _REFUSED if reason == REFUSED else reason
        probe = self._pending.get(node)
        if probe is None or not probe.is_confirming:
            self._confirm(entry)
        if reason == REFUSED:
            self._judge(entry, Evidence.PROBE_FAILED)
            soon_s, due_s = circle.now_s + circle.times.refused_s * circle.stretch, circle.timers.due_s(("probe", node))
            self._pending[node].is_half = False
            if due_s is None or soon_s < due_s:
                circle.timers.set(("probe", node), soon_s)

    def _lives(self, entry: Entry) -> None:
        if entry.node in self._pending:
            del self._pending[entry.node]
            self._rest(entry.node)
        if entry.state is not MemberState.ALIVE:
            was = entry.state
            if self._judge(entry, Evidence.HEARD):
                self._came_back(entry, was)

    def _judge(self, entry: Entry, evidence: Evidence) -> bool:
        return self._circle.table.judge(entry, evidence, self._circle.now_s)

    def _came_back(self, entry: Entry, was: MemberState) -> None:
        circle, node = self._circle, entry.node
        if was is MemberState.SUSPECT:
            return
        circle.notify(Level.INFO, "member is back", node, was=str(was))
        circle.timers.cancel(("forget", node))
        entry.why = ""
        if was is MemberState.DEAD and node in circle.links:
            # It has to know what was thought of it, so that it can refute that for everybody.
            circle.send(node, Verdict(node=node, incarnation=entry.incarnation, is_dead=True))
        self.watch(node)
        self._connections.rebalance()
        self._connections.retry_all()

    def _bury(self, entry: Entry) -> None:
        """Nobody reaches it: it is dead, as far as this node can tell."""
        circle, node = self._circle, entry.node
        silent_s = circle.now_s - entry.heard_s if entry.heard_s is not None else None
        self.unwatch(node)
        if not self._judge(entry, Evidence.CONFIRM_FAILED):
            return
        how = entry.why or _SILENT
        entry.why = f"{how}; nobody else reached it" + (f"; silent for {silent_s:.0f} s" if silent_s else "")
        circle.notify(Level.WARNING, "member is dead", node, reason=entry.why)
        circle.tell(circle.linked, Verdict(node=node, incarnation=entry.incarnation, is_dead=True))
        circle.timers.set(("forget", node), circle.now_s + TOMBSTONE_S)
        self._connections.lost(node)
        self._connections.rebalance()

    def forget_verdicts(self) -> None:
        """This node was not there for a while: nobody is suspected, everybody is asked anew."""
        circle = self._circle
        self._pending.clear()
        self._helps.clear()
        for node in circle.table.live():
            entry = circle.table.entries[node]
            self._judge(entry, Evidence.HEARD)
            entry.heard_s = None
            circle.timers.set(("probe", node), circle.now_s + circle.rng.random() * circle.times.probe_interval_s / 10)

    @property
    def helping(self) -> int:
        """Return how many questions of others are open."""
        return sum(len(waiting) for waiting in self._helps.values())

    # -- for others ----------------------------------------------------------------------------------

    def on_request(self, peer: NodeId, request: PingRequest) -> None:
        """Somebody cannot reach a member: try from here. No answer means that this node cannot either."""
        circle, target = self._circle, request.target
        if target == circle.me:
            circle.send(peer, PingReply(seq=request.seq, target=target))
            return
        if target not in circle.links or target == peer:
            return
        if self.helping >= HELPS_PENDING:
            self._drop_late_helps()
            if self.helping >= HELPS_PENDING:
                return
        until_s = circle.now_s + circle.times.confirm_s
        self._helps.setdefault(target, []).append(Help(peer=peer, seq=request.seq, until_s=until_s))
        if circle.now_s - self._help_pinged_s.get(target, float("-inf")) >= _HELP_PING_S:
            self._help_pinged_s[target] = circle.now_s
            self._ping(target)

    def _answer_helps(self, node: NodeId) -> None:
        self._help_pinged_s.pop(node, None)
        for help_ in self._helps.pop(node):
            if self._circle.now_s <= help_.until_s:
                self._circle.send(help_.peer, PingReply(seq=help_.seq, target=node))

    def _drop_late_helps(self) -> None:
        now_s = self._circle.now_s
        kept = {node: [one for one in waiting if one.until_s >= now_s] for node, waiting in self._helps.items()}
        self._helps = {node: waiting for node, waiting in kept.items() if waiting}
        self._help_pinged_s = {node: at_s for node, at_s in self._help_pinged_s.items() if node in self._helps}
