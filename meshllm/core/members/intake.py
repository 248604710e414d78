"""Which statements of others are taken.

Owns the rules for records: order, tombstones, limits, two different statements with one number. Decides
whether a record is news. Doesn't know who is told of it next. Signatures were checked before.
"""

from meshllm.core.announcement import Announcement, Record
from meshllm.core.budget import Budget
from meshllm.core.effects import Level
from meshllm.core.ids import NodeId, short
from meshllm.core.limits import MEMBERS, STATEMENT_JUMP, STATEMENTS_BURST, STATEMENTS_PER_S, TOMBSTONE_S, TOMBSTONES
from meshllm.core.members.circle import Circle
from meshllm.core.members.connections import Connections
from meshllm.core.members.probing import Probing
from meshllm.core.members.table import Entry
from meshllm.core.standing import Evidence


class Intake:
    """Takes records in."""

    def __init__(self, circle: Circle, connections: Connections, probing: Probing) -> None:
        """Have taken nothing."""
        self._circle = circle
        self._connections = connections
        self._probing = probing
        self._budgets: dict[NodeId, Budget] = {}
        self._two_faced: set[NodeId] = set()
        self._is_full_told = False

    def take(self, record: Record, source: NodeId) -> bool:
        """Take a record that a peer sent; tell whether it is news. Never for this node's own."""
        circle, said = self._circle, record.announcement
        entry = circle.table.entries.get(said.node)
        if entry is not None and entry.record is record:
            return False
        if said.node in circle.revoked or _is_jump(said, entry):
            return False
        if entry is None:
            return self._take_first(record, source)
        if not said.supersedes(entry.announcement):
            self._compare(entry, said)
            return False
        if not entry.is_live and not said.left and said.incarnation <= entry.incarnation:
            return False  # from before it died or left
        if not self._may(said.node):
            return False
        self._take_newer(entry, record, source)
        return True

    def forget(self, node: NodeId) -> None:
        """Forget a node altogether: its tombstone is old enough, or it was revoked."""
        self._circle.table.forget(node)
        self._circle.timers.cancel(("forget", node))
        self._probing.unwatch(node)
        self._connections.forget(node)
        self._budgets.pop(node, None)
        self._two_faced.discard(node)

    def _take_first(self, record: Record, source: NodeId) -> bool:
        circle, said = self._circle, record.announcement
        if said.left:
            return False
        if circle.table.live_count >= MEMBERS:
            if not self._is_full_told:
                circle.notify(Level.WARNING, "the mesh is full", said.node, members=MEMBERS)
            self._is_full_told = True
            return False
        self._make_room()
        entry = circle.table.add(record, circle.now_s, None if source == said.node else source)
        if source == said.node:
            entry.heard_s = circle.now_s
        via = {} if source == said.node else {"via": short(source)}
        circle.notify(Level.INFO, "member joined", said.node, name=said.name, **via)
        self._connections.learn(said.node, said.addresses)
        self._probing.watch(said.node)
        self._connections.rebalance()
        return True

    def _take_newer(self, entry: Entry, record: Record, source: NodeId) -> None:
        circle, said, old = self._circle, record.announcement, entry.announcement
        circle.table.put(entry, record)
        if source != said.node and said.node not in circle.links:
            entry.vouched_by = source
        if said.addresses != old.addresses:
            self._connections.learn(said.node, said.addresses)
            self._connections.rebalance()
        if said.left:
            self._bid_farewell(entry)
        elif said.incarnation > old.incarnation:
            self._probing.refuted(entry)

    def _bid_farewell(self, entry: Entry) -> None:
        circle = self._circle
        if circle.table.judge(entry, Evidence.GOODBYE, circle.now_s):
            entry.why = "it left"
            circle.notify(Level.INFO, "member left", entry.node)
            self._probing.unwatch(entry.node)
            circle.timers.set(("forget", entry.node), circle.now_s + TOMBSTONE_S)
            self._connections.rebalance()

    def _compare(self, entry: Entry, said: Announcement) -> None:
        """One number for two statements: a broken or lying node. The first stays."""
        known = entry.announcement
        same = (said.incarnation, said.version) == (known.incarnation, known.version)
        if same and said != known and entry.node not in self._two_faced:
            self._two_faced.add(entry.node)
            self._circle.notify(
                Level.WARNING, "two different statements with one version", entry.node,
                incarnation=said.incarnation, version=said.version,
            )  # fmt: skip

    def _may(self, node: NodeId) -> bool:
        budget = self._budgets.get(node)
        if budget is None:
            budget = self._budgets[node] = Budget(STATEMENTS_PER_S, STATEMENTS_BURST, self._circle.now_s)
        return budget.take(self._circle.now_s)

    def _make_room(self) -> None:
        """Forget the oldest tombstone, if there are too many."""
        entries = self._circle.table.entries
        if len(entries) - self._circle.table.live_count + 1 >= TOMBSTONES:
            gone = [(entry.since_s, node) for node, entry in entries.items() if not entry.is_live]
            self.forget(min(gone)[1])


def _is_jump(said: Announcement, entry: Entry | None) -> bool:
    """Tell whether numbers run too far ahead of what is known to be honest."""
    incarnation = entry.incarnation if entry is not None else 0
    version = entry.announcement.version if entry is not None and said.incarnation == incarnation else 0
    return said.incarnation - incarnation > STATEMENT_JUMP or said.version - version > STATEMENT_JUMP
