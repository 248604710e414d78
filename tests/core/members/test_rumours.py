"""What to make of the verdicts of others."""

from meshllm.core.effects import Leave, Level, Notify
from meshllm.core.ids import NodeId
from meshllm.core.messages import Ack, Delta, Ping, PingRequest, Push, Verdict
from meshllm.core.standing import MemberState
from tests.core.members.builders import Party, a_record, an_address


def dead(name: str, incarnation: int = 1) -> Verdict:
    """Return somebody's verdict."""
    return Verdict(node=NodeId(name), incarnation=incarnation, is_dead=True)


def test_a_verdict_is_looked_into_and_passed_to_whom_it_is_about() -> None:
    """One ping of one's own, a question to others, and the accused may refute it."""
    party = Party("a", "b", "c")

    party.hear("a", dead("b"))

    assert len(party.said(Ping, "b")) == 1
    assert party.said(Verdict, "b") == [dead("b")]
    assert party.said(PingRequest)
    assert party.state("b") is MemberState.ALIVE


def test_a_false_verdict_changes_nothing() -> None:
    """The member answers, and that is all."""
    party = Party("a", "b")

    party.hear("a", dead("b"))
    party.hear("b", Ack(seq=1))
    party.advance(2.0)

    assert party.state("b") is MemberState.ALIVE
    assert party.said(Verdict, "a") == []


def test_a_true_verdict_is_this_nodes_own_within_seconds() -> None:
    """It does not wait for its own next ping."""
    party = Party("a", "b")

    party.hear("a", dead("b"))
    for _ in range(6):
        party.hear("a", Ack(seq=0))
        party.advance(1.0)

    assert party.state("b") is MemberState.DEAD


def test_a_flood_of_verdicts_is_one_question_in_five_seconds() -> None:
    """A liar costs little."""
    party = Party("a", "b")

    for _ in range(300):
        party.hear("a", dead("b"))
        party.hear("b", Ack(seq=1))

    assert len(party.said(Ping, "b")) == 1


def test_a_verdict_on_a_former_incarnation_is_answered_with_the_newer_one() -> None:
    """Whoever says so has not heard the refutation."""
    party = Party("a", "b")
    party.hear("b", Push(records=(a_record("b", 2),)))
    party.effects.clear()

    party.hear("a", dead("b", 1))

    assert party.said(Delta, "a")[0].records[0].announcement.incarnation == 2
    assert party.said(Ping, "b") == []


def test_a_verdict_on_a_stranger_or_the_dead_is_nothing() -> None:
    """There is nothing to find out."""
    party = Party("a")

    party.hear("a", dead("nobody"))
    party.hear("a", dead("a"))

    assert party.said(Ping) == []


def test_a_rumour_of_ones_own_death_is_refuted_with_a_higher_incarnation() -> None:
    """And told to everybody at once."""
    party = Party("a", "b")

    party.hear("a", dead("m", 1))
    party.advance(0.1)

    assert party.own.announcement.incarnation == 2
    assert party.said(Push, "b")[0].records[0].announcement.incarnation == 2


def test_old_and_invented_rumours_about_oneself_are_ignored() -> None:
    """Nobody can drive the incarnation up but by signing it."""
    party = Party("a")

    party.hear("a", dead("m", 0))
    party.hear("a", dead("m", 2**50))

    assert party.own.announcement.incarnation == 1


def test_one_refutation_a_second_is_enough() -> None:
    """Two accusers that disagree do not start a race."""
    party = Party("a")

    for incarnation in (1, 2, 3):
        party.hear("a", dead("m", incarnation))

    assert party.own.announcement.incarnation == 2


def test_ones_own_statement_from_before_a_restart_is_outbid() -> None:
    """The counter on disk was lost; the mesh remembers."""
    party = Party("a")

    party.hear("a", Push(records=(a_record("m", 7, 3),)))

    assert party.own.announcement.incarnation == 8


def test_an_older_own_statement_is_nothing() -> None:
    """It only comes late."""
    party = Party("a")
    party.own.outbid(4)

    party.hear("a", Push(records=(a_record("m", 2, 3),)))

    assert party.own.announcement.incarnation == 5


def test_a_twin_is_told_of_and_one_of_the_two_gives_up() -> None:
    """A copied state folder: both would refute each other for ever."""
    ends = []
    for address in ("a-first", "z-last"):
        party = Party("a")
        for _ in range(3):
            above = party.own.announcement.incarnation + 1
            party.hear("a", Push(records=(a_record("m", above, addresses=(an_address(address),)),)))
            party.advance(1.0)
        errors = [one for one in party.done(Notify) if one.level is Level.ERROR]
        ends.append((len(errors), [leave.exit_code for leave in party.done(Leave)]))

    assert ends == [(1, [4]), (1, [])]


def test_a_verdict_on_a_new_incarnation_is_looked_into_at_once() -> None:
    """The question that was open is over with the old one; found by seed 778 of the misfortunes."""
    party = Party("a", "b")
    party.hear("a", dead("b", 1))
    party.hear("a", Push(records=(a_record("b", 2),)))
    party.effects.clear()

    party.hear("a", dead("b", 2))

    assert len(party.said(Ping, "b")) == 1
