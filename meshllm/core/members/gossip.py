"""What to tell whom now, so that everybody knows the newest statement of everybody.

Owns the news that are yet to be told, and the comparison of tables. Decides: own changes go to every
connected peer at once, news of others to a few, which tell a few; what that misses, a comparison of
summaries finds: soon after news, and now and then at rest. Doesn't judge statements; `intake` does.

A comparison costs one short message while two tables are equal, whatever their size. Where they differ:
the hashes of 64 buckets, then the entries of the differing ones, then the records that one side lacks.
"""

from collections.abc import Iterable

from meshllm.core.announcement import Record
from meshllm.core.ids import NodeId
from meshllm.core.limits import GOSSIP_BATCH_BYTES, GOSSIP_BATCH_RECORDS, GOSSIP_BUCKETS, GOSSIP_DIRECT_RECORDS
from meshllm.core.limits import GOSSIP_FANOUT as FANOUT
from meshllm.core.members.circle import Circle
from meshllm.core.messages import Delta, Digest, DigestEntry, Push, Verdict
from meshllm.core.standing import MemberState

_RECORD_BYTES = 1024
"""Counted for a record whose bytes are not known: one's own, and those of simulations."""
_SETTLE_ROUNDS = 2
_SETTLE_SLOWEST = 4.0
"""While news keep coming, comparisons after news become rarer, to this many times their first pause."""


class Gossip:
    """Who is told what."""

    def __init__(self, circle: Circle) -> None:
        """Have nothing to tell."""
        self._circle = circle
        self._news: dict[NodeId, set[NodeId]] = {}
        """Whose statement is news -> who is known to have it."""
        self._rounds = 0
        self._settle_times = 1.0

    @property
    def pending(self) -> int:
        """Return how many statements are yet to be told."""
        return len(self._news)

    # -- news ----------------------------------------------------------------------------------------

    def say(self) -> None:
        """Tell everybody this node's own newest statement."""
        self._circle.table.put_own(self._circle.own.record)
        self.note(self._circle.me, self._circle.me)

    def note(self, node: NodeId, source: NodeId) -> None:
        """Remember that a node's statement is news, and who brought it."""
        if self._circle.links:
            self._news[node] = {source}
            if ("push", "") not in self._circle.timers:
                self._circle.timers.set(("push", ""), self._circle.now_s + self._circle.times.push_s)

    def has(self, record: Record, peer: NodeId) -> None:
        """A peer has sent what is known here already: it need not be told."""
        said = record.announcement
        knowing = self._news.get(said.node)
        known = self._circle.table.record_of(said.node) if knowing is not None else None
        if knowing is not None and known is not None and not known.announcement.supersedes(said):
            knowing.add(peer)

    def on_push_due(self) -> None:
        """Tell the news."""
        circle, news = self._circle, self._news
        self._news = {}
        own = news.pop(circle.me, None)
        few = set(circle.pick(FANOUT, without=_everywhere(news))) if news else set()
        mine = Push(records=(circle.own.record,)) if own is not None else None
        for peer in circle.linked:
            if peer in few:
                fresh = (circle.table.record_of(node) for node, knowing in news.items() if peer not in knowing)
                records = [record for record in fresh if record is not None and record.announcement.node != peer]
                for batch in _batches([circle.own.record, *records] if mine is not None else records):
                    circle.send(peer, Push(records=batch))
            elif mine is not None:
                circle.send(peer, mine)
        self._rounds = _SETTLE_ROUNDS
        if ("settle", "") not in circle.timers:
            circle.timers.set(("settle", ""), circle.now_s + circle.jitter(circle.times.settle_s * self._settle_times))
        else:
            self._settle_times = min(self._settle_times * 2, _SETTLE_SLOWEST)

    # -- comparing -----------------------------------------------------------------------------------

    def greet(self, peer: NodeId, *, first: bool) -> None:
        """Begin a conversation: who this node is and, from one of the two sides, what it knows."""
        circle = self._circle
        circle.send(peer, Push(records=(circle.own.record,)))
        if not first:
            return
        everything = range(GOSSIP_BUCKETS)
        if circle.table.live_count <= GOSSIP_DIRECT_RECORDS:
            circle.send(peer, self._digest(everything))
        else:
            circle.send(peer, Digest(summary=circle.table.summary()))

    def on_exchange_due(self) -> None:
        """Compare with a few members, at rest."""
        circle = self._circle
        self._compare()
        if circle.links:
            circle.timers.set(("exchange", ""), circle.now_s + circle.jitter(circle.times.exchange_s))

    def on_settle_due(self) -> None:
        """Compare with a few members, after news."""
        circle = self._circle
        self._compare()
        self._rounds -= 1
        if self._rounds > 0:
            circle.timers.set(("settle", ""), circle.now_s + circle.jitter(circle.times.settle_s * self._settle_times))
        else:
            self._settle_times = 1.0

    def _compare(self) -> None:
        digest = Digest(summary=self._circle.table.summary())
        self._circle.tell(self._circle.pick(FANOUT), digest)

    def _digest(self, buckets: Iterable[int]) -> Digest:
        table, buckets = self._circle.table, tuple(buckets)
        entries = tuple(
            DigestEntry(node=said.node, incarnation=said.incarnation, version=said.version)
            for said in (record.announcement for record in table.within(buckets))
        )
        return Digest(summary=table.summary(), entries=entries, of_buckets=buckets, is_answer=True)

    def on_digest(self, peer: NodeId, digest: Digest) -> None:
        """Take the next step of a comparison."""
        circle = self._circle
        table = circle.table
        if digest.summary == table.summary():
            return
        if digest.of_buckets:
            self._level(peer, digest)
        elif digest.buckets:
            pairs = zip(digest.buckets, table.buckets(), strict=False)
            differing = [index for index, (theirs, ours) in enumerate(pairs) if theirs != ours]
            if differing:
                circle.send(peer, self._digest(differing))
        else:
            circle.send(peer, Digest(summary=table.summary(), buckets=table.buckets(), is_answer=True))

    def _level(self, peer: NodeId, digest: Digest) -> None:
        """Send a peer what it lacks, by its own list; ask for what this node lacks."""
        table = self._circle.table
        theirs = {entry.node: (entry.incarnation, entry.version) for entry in digest.entries}
        newer: list[Record] = []
        for record in table.within(index for index in digest.of_buckets if 0 <= index < GOSSIP_BUCKETS):
            said = record.announcement
            known = theirs.pop(said.node, None)
            if known is None or known < (said.incarnation, said.version):
                newer.append(record)
            elif known > (said.incarnation, said.version):
                theirs[said.node] = known
        wanted: list[NodeId] = []
        for node, (incarnation, _) in theirs.items():
            entry = table.entries.get(node)
            if entry is None or entry.is_live or incarnation > entry.incarnation:
                if node not in self._circle.revoked:
                    wanted.append(node)
            elif entry.state is MemberState.LEFT:
                newer.append(entry.record)
            else:
                self._circle.send(peer, Verdict(node=node, incarnation=entry.incarnation, is_dead=True))
        self._deliver(peer, newer, tuple(sorted(wanted)))

    def on_wanted(self, peer: NodeId, wanted: Iterable[NodeId]) -> None:
        """Send a peer the records that it asked for."""
        found = (self._circle.table.record_of(node) for node in wanted)
        self._deliver(peer, [record for record in found if record is not None], ())

    def _deliver(self, peer: NodeId, records: list[Record], wanted: tuple[NodeId, ...]) -> None:
        batches = list(_batches(records))
        for batch in batches[:-1]:
            self._circle.send(peer, Delta(records=batch))
        if batches or wanted:
            self._circle.send(peer, Delta(records=batches[-1] if batches else (), wanted=wanted))


def _everywhere(news: dict[NodeId, set[NodeId]]) -> set[NodeId]:
    """Return the peers that have all of the news."""
    return set.intersection(*news.values()) if news else set()


def _batches(records: list[Record]) -> Iterable[tuple[Record, ...]]:
    """Divide records into messages of a bounded size."""
    batch: list[Record] = []
    size_bytes = 0
    for record in records:
        record_bytes = len(record.sealed) or _RECORD_BYTES
        if batch and (len(batch) >= GOSSIP_BATCH_RECORDS or size_bytes + record_bytes > GOSSIP_BATCH_BYTES):
            yield tuple(batch)
            batch, size_bytes = [], 0
        batch.append(record)
        size_bytes += record_bytes
    if batch:
        yield tuple(batch)
