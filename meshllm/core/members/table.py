"""Everybody this node has heard of: one entry each, and a summary of all that two nodes can compare.

Owns the entries, their states and the hashes over them. Decides nothing: `intake` and `probing` write
here, through `put` and `judge`. Doesn't know connections, messages or time.

The summary covers live members and this node: 64 buckets, each the exclusive or of the hashes of its
records' (node, incarnation, version), so that one change costs one update, whatever the mesh's size.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from meshllm.core.announcement import Announcement, Record
from meshllm.core.ids import NodeId
from meshllm.core.limits import GOSSIP_BUCKETS
from meshllm.core.standing import LIVE, Evidence, MemberState, next_state

HASH_BYTES = 8
SUMMARY_BYTES = 12


@dataclass(slots=True, kw_only=True)
class Entry:
    """What is known of one other node."""

    node: NodeId
    record: Record
    state: MemberState
    since_s: float
    """When the state began."""
    vouched_by: NodeId | None = None
    """Who told of it or reached it last; None when it speaks to this node itself."""
    helper: NodeId | None = None
    """Reaches it while this node does not."""
    heard_s: float | None = None
    """When it last spoke to this node."""
    verified_s: float = float("-inf")
    """When a rumour about it was last looked into."""
    why: str = ""
    """Why this node does not reach it, in words."""

    @property
    def announcement(self) -> Announcement:
        """Return what it says of itself."""
        return self.record.announcement

    @property
    def incarnation(self) -> int:
        """Return the incarnation that is known."""
        return self.record.announcement.incarnation

    @property
    def is_live(self) -> bool:
        """Tell whether it counts as a member."""
        return self.state in LIVE


class Table:
    """The entries, and the summary over the live ones."""

    def __init__(self, own: Record) -> None:
        """Know of this node only."""
        self.own = own
        self.me = own.announcement.node
        self.entries: dict[NodeId, Entry] = {}
        self.changed: set[NodeId] = set()
        """Entries that are not as the view shows them. Whoever makes views empties it."""
        self.live_count = 1
        """Live members, this node among them."""
        self._buckets = [bytes(HASH_BYTES)] * GOSSIP_BUCKETS
        """The hash over each bucket, as it is told."""
        self._hashes: dict[NodeId, int] = {}
        self._nodes: list[set[NodeId]] = [set() for _ in range(GOSSIP_BUCKETS)]
        self._homes: dict[NodeId, int] = {}
        self._summary: bytes | None = None
        self._count(own)

    # -- writing -----------------------------------------------------------------------------------

    def put_own(self, record: Record) -> None:
        """Take a statement of this node's own."""
        self.own = record
        self._count(record)

    def add(self, record: Record, now_s: float, vouched_by: NodeId | None) -> Entry:
        """Take in a node that is heard of for the first time."""
        node = record.announcement.node
        entry = Entry(node=node, record=record, state=MemberState.ALIVE, since_s=now_s, vouched_by=vouched_by)
        self.entries[node] = entry
        self.live_count += 1
        self._count(record)
        self.changed.add(node)
        return entry

    def put(self, entry: Entry, record: Record) -> None:
        """Take a newer statement of a known node."""
        entry.record = record
        if entry.is_live:
            self._count(record)
        self.changed.add(entry.node)

    def judge(self, entry: Entry, evidence: Evidence, now_s: float) -> bool:
        """Apply a piece of evidence; tell whether the state changed."""
        state = next_state(entry.state, evidence)
        if state is entry.state:
            return False
        was_live = entry.is_live
        entry.state, entry.since_s = state, now_s
        if entry.is_live != was_live:
            self.live_count += 1 if entry.is_live else -1
            if entry.is_live:
                self._count(entry.record)
            else:
                self._discount(entry.node)
        self.changed.add(entry.node)
        return True

    def forget(self, node: NodeId) -> None:
        """Drop an entry altogether."""
        entry = self.entries.pop(node, None)
        if entry is not None:
            if entry.is_live:
                self.live_count -= 1
                self._discount(node)
            self._homes.pop(node, None)
            self.changed.add(node)

    # -- reading -----------------------------------------------------------------------------------

    def live(self) -> list[NodeId]:
        """Return the other live members, in order."""
        return sorted(node for node, entry in self.entries.items() if entry.is_live)

    def record_of(self, node: NodeId) -> Record | None:
        """Return the newest statement of a node, this one included."""
        if node == self.me:
            return self.own
        entry = self.entries.get(node)
        return entry.record if entry is not None else None

    def summary(self) -> bytes:
        """Return one hash over everything that live members say."""
        if self._summary is None:
            self._summary = blake2b(b"".join(self._buckets), digest_size=SUMMARY_BYTES).digest()
        return self._summary

    def buckets(self) -> tuple[bytes, ...]:
        """Return the hash of each bucket."""
        return tuple(self._buckets)

    def within(self, buckets: Iterable[int]) -> Iterator[Record]:
        """Yield the statements of the live members in some buckets, in order."""
        for index in buckets:
            for node in sorted(self._nodes[index]):
                if (record := self.record_of(node)) is not None:
                    yield record

    # -- hashes ------------------------------------------------------------------------------------

    def _home(self, node: NodeId) -> int:
        home = self._homes.get(node)
        if home is None:
            home = self._homes[node] = blake2b(node.encode(), digest_size=1).digest()[0] % GOSSIP_BUCKETS
        return home

    def _count(self, record: Record) -> None:
        said = record.announcement
        node, home = said.node, self._home(said.node)
        text = f"{node}/{said.incarnation}/{said.version}".encode()
        fresh = int.from_bytes(blake2b(text, digest_size=HASH_BYTES).digest(), "big")
        self._mix(home, self._hashes.get(node, 0) ^ fresh)
        self._hashes[node] = fresh
        self._nodes[home].add(node)

    def _discount(self, node: NodeId) -> None:
        home = self._home(node)
        self._mix(home, self._hashes.pop(node, 0))
        self._nodes[home].discard(node)

    def _mix(self, home: int, difference: int) -> None:
        mixed = int.from_bytes(self._buckets[home], "big") ^ difference
        self._buckets[home] = mixed.to_bytes(HASH_BYTES, "big")
        self._summary = None
