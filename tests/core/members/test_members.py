"""The door to membership."""

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.ids import ConnectionId, NodeId
from meshllm.core.messages import Ack, Digest, ErrorReport, Leaving, Ping, Push, TrustDigest
from meshllm.core.standing import MemberState
from tests.core.members.builders import Party, a_record


def test_a_ping_is_answered_at_once_with_its_number() -> None:
    """Also by a node that is busy with everything else."""
    party = Party("a")

    effects = party.hear("a", Ping(seq=42))

    assert effects == [do.Send(peer=NodeId("a"), message=Ack(seq=42))]


def test_a_connection_begins_with_who_one_is_and_the_dialler_says_what_it_knows() -> None:
    """One exchange, not two."""
    party = Party()
    party.connect("a", is_dialled=True)
    party.connect("b", is_dialled=False)

    assert [len(party.said(Push, name)) for name in "ab"] == [1, 1]
    assert [len(party.said(Digest, name)) for name in "ab"] == [1, 0]


def test_what_was_said_on_a_connection_that_had_to_go_is_said_again() -> None:
    """After a double dial, one of the two takes its messages with it."""
    party = Party("a")
    party.effects.clear()

    party.tell(ev.PeerLost(peer=NodeId("a"), connection=ConnectionId(77), code="replaced"))

    assert len(party.said(Push, "a")) == 1


def test_goodbye_is_said_to_everybody_once() -> None:
    """And nothing is begun after it."""
    party = Party("a", "b")

    for _ in range(2):
        party.members.leave("SIGTERM")
        party.effects += party.members.settle()

    assert [len(party.said(Leaving, name)) for name in "ab"] == [1, 1]
    assert party.said(Leaving)[0].record.announcement.left
    assert party.members.next_s() is None


def test_a_goodbye_is_believed_of_the_leaver_alone() -> None:
    """Nobody can send another away."""
    party = Party("a", "b")

    party.hear("a", Leaving(record=a_record("b", 1, 1, left=True), reason="x"))
    party.hear("a", Leaving(record=a_record("a", 1, 1), reason="not really"))
    believed = (party.state("a"), party.state("b"))
    party.hear("a", Leaving(record=a_record("a", 1, 2, left=True), reason="SIGTERM"))

    assert believed == (MemberState.ALIVE, MemberState.ALIVE)
    assert party.state("a") is MemberState.LEFT


def test_a_revoked_node_is_cut_off_and_not_heard_of_again() -> None:
    """Neither its connection nor its statements count, whoever carries them."""
    party = Party("a", "b")

    party.tell(ev.NodesRevoked(nodes=(NodeId("b"),)))
    party.hear("a", Push(records=(a_record("b", 5),)))
    party.connect("b")

    assert [(one.peer, one.code) for one in party.done(do.Disconnect)] == [("b", "revoked")] * 2
    assert NodeId("b") not in party.members.table.entries
    assert NodeId("b") not in party.members.circle.links


def test_this_node_never_revokes_itself() -> None:
    """Others do that for it; it would only fall silent."""
    party = Party("a")

    party.tell(ev.NodesRevoked(nodes=(NodeId("m"),)))

    assert party.hear("a", Ping(seq=1))


def test_messages_for_other_parts_count_as_a_sign_of_life() -> None:
    """Whatever it says, it lives."""
    party = Party("a")
    party.advance(12.0)
    assert party.state("a") is MemberState.SUSPECT

    for message in (TrustDigest(revocations=b""), ErrorReport(code="unsupported", message="x")):
        party.hear("a", message)

    assert party.state("a") is MemberState.ALIVE


def test_a_node_without_peers_wants_nothing() -> None:
    """It need not wake up."""
    party = Party()

    assert party.members.next_s() is None


def test_a_node_whose_only_peer_is_gone_looks_for_it_and_does_nothing_else() -> None:
    """No comparison with nobody."""
    party = Party("a")
    party.lose("a")
    party.advance(100.0)
    party.effects.clear()

    party.advance(60.0)

    assert {type(effect) for effect in party.effects} <= {do.Dial, do.KeepRoster}


def test_it_has_heard_when_a_peer_told_what_it_knows() -> None:
    """Before that, a name that nobody knows may only be not known yet."""
    party = Party()
    party.connect("a", is_dialled=True)
    before = party.members.has_heard

    party.hear("a", Digest(summary=party.members.table.summary()))

    assert (before, party.members.has_heard) == (False, True)
