"""What to tell whom."""

from meshllm.core import effects as do
from meshllm.core.ids import NodeId
from meshllm.core.limits import GOSSIP_BUCKETS
from meshllm.core.members.table import Table
from meshllm.core.messages import Delta, Digest, DigestEntry, Push, Verdict
from meshllm.core.standing import MemberState
from tests.core.members.builders import Party, a_record

ALL = tuple(range(GOSSIP_BUCKETS))


def names(message: Push | Delta) -> list[str]:
    """Return whose records a message carries."""
    return sorted(record.announcement.name for record in message.records)


def a_digest(*known: tuple[str, int, int]) -> Digest:
    """Return the complete list of somebody who knows some (name, incarnation, version)."""
    entries = tuple(DigestEntry(node=NodeId(name), incarnation=one, version=two) for name, one, two in known)
    return Digest(summary=b"other", entries=entries, of_buckets=ALL, is_answer=True)


def test_own_news_go_to_every_connected_peer_together() -> None:
    """Changes within a moment are one message."""
    party = Party("a", "b", "c")

    for _ in range(3):
        party.own.outbid(1)
        party.members.say()
    party.advance(0.1)

    assert [len(party.said(Push, peer)) for peer in "abc"] == [1, 1, 1]
    assert party.said(Push)[0].records[0].announcement == party.own.announcement


def test_news_of_others_go_to_a_few_and_not_back() -> None:
    """Those few tell a few."""
    party = Party("a", "b", "c", "d", "e", "f")

    party.hear("a", Push(records=(a_record("new"),)))
    party.advance(0.1)

    told = {effect.peer for effect in party.done(do.Send) if isinstance(effect.message, Push)}
    assert len(told) == 3
    assert "a" not in told


def test_what_is_known_is_not_told_again() -> None:
    """A rumour ends where it is old."""
    party = Party("a", "b", "c", "d", "e")
    party.hear("a", Push(records=(a_record("new"),)))
    party.advance(0.1)
    party.effects.clear()

    party.hear("b", Push(records=(a_record("new"),)))
    party.advance(0.1)

    assert party.said(Push) == []


def test_after_news_summaries_are_compared_soon() -> None:
    """That finds whoever the news missed, long before the next regular comparison."""
    party = Party("a", "b", "c", "d")
    party.advance(2.0)
    party.effects.clear()

    party.hear("a", Push(records=(a_record("new"),)))
    party.advance(2.0)

    assert len(party.said(Digest)) == 6


def test_at_rest_three_summaries_in_fifteen_seconds_are_all() -> None:
    """What a mesh says at rest does not grow with its tables."""
    party = Party(*"abcdefgh")
    party.advance(5.0)
    party.effects.clear()

    party.advance(15.5)

    digests = party.said(Digest)
    assert 3 <= len(digests) <= 6
    assert all(not digest.buckets and not digest.entries for digest in digests)


def test_equal_summaries_end_a_comparison() -> None:
    """The usual case costs one message."""
    party = Party("a")

    party.hear("a", Digest(summary=party.members.table.summary()))

    assert party.said(Digest) == []


def test_a_comparison_narrows_down_to_what_differs() -> None:
    """Summary, then buckets, then the entries of the differing ones."""
    party = Party("a", "b")
    theirs = Table(a_record("a"))
    for record in (a_record("m"), a_record("b", version=4)):
        theirs.add(record, 0.0, None)

    party.hear("a", Digest(summary=theirs.summary()))
    answer = party.said(Digest, "a")[-1]
    party.hear("a", Digest(summary=theirs.summary(), buckets=theirs.buckets(), is_answer=True))
    entries = party.said(Digest, "a")[-1]

    assert len(answer.buckets) == GOSSIP_BUCKETS
    assert len(entries.of_buckets) == 1
    assert "b" in [entry.node for entry in entries.entries]


def test_each_side_gets_what_it_lacks() -> None:
    """Newer ones are sent, newer ones there are asked for."""
    party = Party("a", "b", "c")

    party.hear("a", a_digest(("a", 1, 0), ("b", 1, 5), ("stranger", 1, 0)))

    (delta,) = party.said(Delta, "a")
    assert names(delta) == ["c", "m"]
    assert delta.wanted == ("b", "stranger")


def test_what_is_asked_for_is_sent() -> None:
    """Unknown names are left out."""
    party = Party("a", "b")

    party.hear("a", Delta(wanted=(NodeId("b"), NodeId("m"), NodeId("nobody"))))

    assert names(party.said(Delta, "a")[0]) == ["b", "m"]


def test_who_thinks_a_dead_member_alive_is_told_of_the_verdict() -> None:
    """Not of its record; the other looks for itself."""
    party = Party("a", "b")
    party.lose("b")
    for _ in range(8):
        party.hear("a", Delta())
        party.advance(1.0)
    assert party.state("b") is MemberState.DEAD
    party.effects.clear()

    party.hear("a", a_digest(("a", 1, 0), ("m", 1, 0), ("b", 1, 0)))

    assert party.said(Verdict, "a") == [Verdict(node=NodeId("b"), incarnation=1, is_dead=True)]
    assert party.said(Delta) == []


def test_who_missed_a_goodbye_gets_it() -> None:
    """A goodbye is a statement like any other."""
    party = Party("a", "b")
    party.hear("a", Push(records=(a_record("b", version=1, left=True),)))
    party.effects.clear()

    party.hear("a", a_digest(("a", 1, 0), ("m", 1, 0), ("b", 1, 0)))

    assert party.said(Delta, "a")[0].records[0].announcement.left


def test_a_first_contact_brings_everything_in_one_exchange() -> None:
    """A newcomer knows the mesh after one round trip."""
    party = Party("a", "b")
    party.effects.clear()

    party.connect("new", is_dialled=True)

    digest = party.said(Digest, "new")[0]
    assert len(digest.entries) == 3
    assert digest.of_buckets == ALL
    assert party.said(Push, "new")[0].records == (party.own.record,)


def test_many_records_go_in_messages_of_a_bounded_size() -> None:
    """A control frame has a limit."""
    party = Party("a")
    for number in range(200):
        party.now_s += 0.01
        party.hear("a", Push(records=(a_record(f"n{number:03}"),)))
    party.effects.clear()

    party.hear("a", a_digest())

    deltas = party.said(Delta, "a")
    assert max(len(delta.records) for delta in deltas) <= 64
    assert sum(len(delta.records) for delta in deltas) == 202


def test_a_bucket_that_does_not_exist_is_left_out() -> None:
    """Whatever a peer says, it is no error of ours."""
    party = Party("a")

    party.hear("a", Digest(summary=b"x", of_buckets=(-1, 64, 10**9), entries=()))
    party.hear("a", Digest(summary=b"x", buckets=(b"",) * 3))

    assert party.said(Delta) == []
