"""Who is here: the door to membership, gossip and connections for `mesh.MeshCore`.

Owns the composition of the parts. Decides nothing but the order in which they hear of things. Doesn't
know models; what this node says of itself is handed in, what others say is read from `table`.
"""

import random
from collections.abc import Iterable

from meshllm.core import events as ev
from meshllm.core.announcement import Record
from meshllm.core.budget import Budget
from meshllm.core.effects import Disconnect, Effect, KeepRoster, Level
from meshllm.core.ids import NodeId
from meshllm.core.limits import (
    CONTACTS,
    DIALS_AT_ONCE,
    GOSSIP_MESSAGES_BURST,
    GOSSIP_MESSAGES_PER_S,
    HELPS_PENDING,
    MEMBERS,
    ROSTER_FIRST_S,
    ROSTER_INTERVAL_S,
    TOMBSTONES,
)
from meshllm.core.members.circle import Circle, Key
from meshllm.core.members.connections import ON_PURPOSE, REVOKED, Connections
from meshllm.core.members.gossip import Gossip
from meshllm.core.members.intake import Intake
from meshllm.core.members.probing import Probing
from meshllm.core.members.rumours import Rumours
from meshllm.core.members.times import MemberTimes
from meshllm.core.messages import (
    Ack,
    Delta,
    Digest,
    ErrorReport,
    Leaving,
    Message,
    Ping,
    PingReply,
    PingRequest,
    Push,
    Revocations,
    Tokens,
    TrustDigest,
    Verdict,
)
from meshllm.core.statement import OwnStatement

MemberEvent = (
    ev.MessageReceived | ev.PeerConnected | ev.PeerLost | ev.DialFailed | ev.AddressFound | ev.RoundTripMeasured
    | ev.PathFailed | ev.PeerWanted | ev.NodesRevoked | ev.LoopLagged | ev.Slept
)  # fmt: skip
_SLEPT_PERIODS = 2
"""A wake-up that comes this many probe intervals late means that this node was not running."""


class Members:
    """Membership of one node."""

    def __init__(self, own: OwnStatement, rng: random.Random, times: MemberTimes | None, now_s: float) -> None:
        """Be alone in the mesh."""
        self.circle = Circle(own, rng, times)
        self.circle.now_s = now_s
        self.table = self.circle.table
        self.connections = Connections(self.circle)
        self._probing = Probing(self.circle, self.connections)
        self._gossip = Gossip(self.circle)
        self._intake = Intake(self.circle, self.connections, self._probing)
        self._rumours = Rumours(self.circle, self._probing, self._gossip)
        self._budgets: dict[NodeId, Budget] = {}
        self._roster: tuple[object, ...] = ()
        self.has_heard = False
        """Some peer has told what it knows."""

    # -- the door ------------------------------------------------------------------------------------

    def next_s(self) -> float | None:
        """Return when something is due."""
        return self.circle.timers.next_s()

    def advance(self, now_s: float) -> None:
        """Move on to a time, before anything else is handled in it."""
        circle = self.circle
        due_s = circle.timers.next_s()
        late_s = now_s - due_s if due_s is not None else 0.0
        circle.now_s = now_s
        if late_s > _SLEPT_PERIODS * circle.times.probe_interval_s:
            self._wake(late_s)

    def settle(self) -> list[Effect]:
        """Do what is due; return all effects since the last time."""
        timers, now_s = self.circle.timers, self.circle.now_s
        if self.circle.is_leaving:
            timers.clear()  # nothing is begun any more; whoever asks is still answered
        while (key := timers.pop_due(now_s)) is not None:
            self._on_due(key)
        return self.circle.take()

    def handle(self, event: MemberEvent) -> None:  # noqa: C901 - one line for each event
        """Take one event."""
        match event:
            case ev.MessageReceived():
                self._on_message(event)
            case ev.PeerConnected():
                self._on_connected(event)
            case ev.PeerLost():
                self._on_lost(event)
            case ev.DialFailed():
                self._on_dial_failed(event)
            case ev.AddressFound():
                self._on_address(event)
            case ev.RoundTripMeasured():
                self.circle.measured(event.peer, event.rtt_s)
            case ev.PathFailed():
                if (entry := self.table.entries.get(event.peer)) is not None:
                    self._probing.doubt(entry, event.reason or "the way there is broken")
            case ev.PeerWanted():
                self.connections.want(event.peer, event.for_s)
            case ev.NodesRevoked():
                self.revoke(event.nodes)
            case ev.LoopLagged():
                self.circle.lagged(event.lag_s)
            case ev.Slept():
                self._wake(event.gap_s)

    # -- what the node itself does ---------------------------------------------------------------------

    def say(self) -> None:
        """Tell the mesh this node's newest statement."""
        self.circle.own.spread_over(self.table.live_count)
        self._gossip.say()

    def sizes(self) -> tuple[tuple[str, int, int], ...]:
        """Return what is held, how much of it, and its limit."""
        live = self.table.live_count
        return (
            ("members", live, MEMBERS), ("tombstones", len(self.table.entries) + 1 - live, TOMBSTONES),
            ("contacts", len(self.connections.contacts), CONTACTS), ("dials", self.connections.dialling, DIALS_AT_ONCE),
            ("questions of others", self._probing.helping, HELPS_PENDING), ("news", self._gossip.pending, MEMBERS),
        )  # fmt: skip

    def problem(self, node: NodeId) -> str:
        """Return why the last dial of a node failed, in words; empty when it did not."""
        contact = self.connections.contacts.get(node)
        return contact.problem if contact is not None else ""

    def leave(self, reason: str) -> None:
        """Say goodbye, once."""
        circle = self.circle
        if circle.is_leaving:
            return
        circle.is_leaving = True
        circle.own.leave()
        self.table.put_own(circle.own.record)
        circle.tell(circle.linked, Leaving(record=circle.own.record, reason=reason))
        self._keep_roster()

    def revoke(self, nodes: Iterable[NodeId]) -> None:
        """Have nothing more to do with some nodes: complete list, all that are revoked."""
        circle = self.circle
        circle.revoked = frozenset(nodes) - {circle.me}
        for node in sorted(circle.revoked):
            if node in self.table.entries:
                circle.notify(Level.WARNING, "member was revoked", node)
            if (link := circle.links.get(node)) is not None:
                circle.do(Disconnect(peer=node, connection=link.connection, code=REVOKED))
                circle.unlink(node)
            self._intake.forget(node)
        self.connections.rebalance()

    # -- connections -----------------------------------------------------------------------------------

    def _on_connected(self, event: ev.PeerConnected) -> None:
        peer, counts = event.peer, self.connections.connected(event)
        if peer == self.circle.me or peer in self.circle.revoked:
            return
        self._probing.heard(peer)
        if not counts:
            return
        if peer in self.table.entries:
            self._probing.watch(peer)
        self._gossip.greet(peer, first=event.is_dialled)
        self._roster_changed()
        for what, pause_s in (("exchange", self.circle.times.exchange_s), ("stray", self.circle.times.stray_s)):
            if (what, "") not in self.circle.timers:
                self.circle.timers.set((what, ""), self.circle.now_s + self.circle.jitter(pause_s))

    def _on_lost(self, event: ev.PeerLost) -> None:
        peer = event.peer
        if not self.connections.disconnected(peer, event.connection, event.code):
            if event.code in ON_PURPOSE and peer in self.circle.links:
                # What was said on the connection that had to go may be lost: say it again.
                self._gossip.greet(peer, first=self.circle.links[peer].is_dialled)
            return
        self._budgets.pop(peer, None)
        entry = self.table.entries.get(peer)
        if entry is None or not entry.is_live:
            self.connections.lost(peer)
        elif event.code in ON_PURPOSE:
            self.connections.rebalance()
        else:
            self._probing.doubt(entry)

    def _on_dial_failed(self, event: ev.DialFailed) -> None:
        self.connections.failed(event.peer, event.code, event.message)
        entry = self.table.entries.get(event.peer)
        if entry is None:
            return
        if not self.circle.is_full and entry.is_live and event.peer not in self.circle.links:
            self._probing.doubt(entry)

    def _on_address(self, event: ev.AddressFound) -> None:
        contact_is_new = event.peer not in self.connections.contacts
        if self.connections.learn(event.peer, event.addresses, is_given=True) or contact_is_new:
            self._roster_changed()
        self.connections.dial(event.peer)

    # -- messages --------------------------------------------------------------------------------------

    def _on_message(self, event: ev.MessageReceived) -> None:
        peer, message = event.peer, event.message
        if peer in self.circle.revoked:
            return
        self._probing.heard(peer)
        if peer not in self.circle.links:
            return  # a last word from a connection that was ended
        match message:
            case Ping():
                self.circle.send(peer, Ack(seq=message.seq))
            case Ack():
                pass  # having been heard is all
            case PingReply():
                self._probing.reached_by(peer, message.target)
            case _:
                if self._may(peer):
                    self._on_talk(peer, message)

    def _on_talk(self, peer: NodeId, message: Message) -> None:
        match message:
            case PingRequest():
                self._probing.on_request(peer, message)
            case Push() | Delta():
                for record in message.records:
                    self._take(record, peer)
                if isinstance(message, Delta):
                    self.has_heard = True
                    self._gossip.on_wanted(peer, message.wanted)
            case Digest():
                if message.summary == self.table.summary():
                    self.has_heard = True
                self._gossip.on_digest(peer, message)
            case Verdict():
                self._rumours.on_verdict(peer, message)
            case Leaving():
                if message.record.announcement.node == peer and message.record.announcement.left:
                    self._take(message.record, peer)
            case ErrorReport():
                self.circle.notify(Level.DEBUG, "a peer could not use what was said", peer, code=message.code)
            case Ping() | Ack() | PingReply() | TrustDigest() | Revocations() | Tokens():
                pass

    def _take(self, record: Record, peer: NodeId) -> None:
        node = record.announcement.node
        if node == self.circle.me:
            self._rumours.on_own_statement(record.announcement)
        elif self._intake.take(record, peer):
            self._gossip.note(node, peer)
            self._roster_changed()
        else:
            self._gossip.has(record, peer)

    def _may(self, peer: NodeId) -> bool:
        """Tell whether a peer has not said too much lately."""
        budget = self._budgets.get(peer)
        if budget is None:
            budget = self._budgets[peer] = Budget(GOSSIP_MESSAGES_PER_S, GOSSIP_MESSAGES_BURST, self.circle.now_s)
        return budget.take(self.circle.now_s)

    # -- time ------------------------------------------------------------------------------------------

    def _on_due(self, key: Key) -> None:
        what, name = key
        node = NodeId(name)
        match what:
            case "probe":
                self._probing.on_due(node)
            case "dial":
                self.connections.on_dial_due(node)
            case "push":
                self._gossip.on_push_due()
            case "settle":
                self._gossip.on_settle_due()
            case "exchange":
                self._gossip.on_exchange_due()
            case "balance":
                self._on_balance_due()
            case "redial":
                self.connections.on_redial_due()
            case "stray":
                self._on_stray_due()
            case "roster":
                self._keep_roster()
            case "forget":
                self._intake.forget(node)

    def _on_balance_due(self) -> None:
        self.connections.on_balance_due()
        if self.circle.is_full:  # a mesh that shrank may have members that nobody here has watched so far
            for node in self.table.live():
                self._probing.watch(node)

    def _on_stray_due(self) -> None:
        circle = self.circle
        if circle.links:
            circle.timers.set(("stray", ""), circle.now_s + circle.jitter(circle.times.stray_s))
        if not circle.is_full and (node := self.connections.stray()) is not None:
            self.connections.want(node, circle.times.probe_interval_s)

    def _wake(self, gap_s: float) -> None:
        """This node was stopped for a while: whatever it was about to think of others is worth nothing."""
        self.circle.notify(Level.INFO, "this node was asleep", self.circle.me, gap_s=round(gap_s, 1))
        self._probing.forget_verdicts()
        self.connections.retry_all()

    # -- the roster ------------------------------------------------------------------------------------

    def _roster_changed(self) -> None:
        if ("roster", "") not in self.circle.timers:
            pause_s = ROSTER_INTERVAL_S if self._roster else ROSTER_FIRST_S
            self.circle.timers.set(("roster", ""), self.circle.now_s + pause_s)

    def _keep_roster(self) -> None:
        entries = self.connections.roster()
        if entries != self._roster:
            self._roster = entries
            self.circle.do(KeepRoster(entries=entries))
