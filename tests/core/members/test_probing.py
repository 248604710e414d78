"""Whether members live."""

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.ids import NodeId
from meshllm.core.members.times import wan
from meshllm.core.messages import Ack, Ping, PingReply, PingRequest, Verdict
from meshllm.core.standing import MemberState
from tests.core.members.builders import Party

TIMES = wan()
SILENT_S = 6  # a probe interval, with its jitter


def keep_talking(party: Party, *peers: str, for_s: float) -> None:
    """Let time pass while some peers say something every second."""
    for _ in range(int(for_s)):
        for peer in peers:
            party.hear(peer, Ack(seq=0))
        party.advance(1.0)


def test_a_member_that_talks_is_not_asked() -> None:
    """Its pings to us are word enough; each pair of nodes has one conversation, not two."""
    party = Party("a")

    keep_talking(party, "a", for_s=20)

    assert party.said(Ping) == []


def test_a_silent_member_is_pinged_then_suspected_then_dead() -> None:
    """Each stage takes its time, and others are asked before the last."""
    party = Party("a", "b", "c", "d", "e")
    others = ("b", "c", "d", "e")

    keep_talking(party, *others, for_s=SILENT_S)
    pinged = (len(party.said(Ping, "a")), party.state("a"))
    keep_talking(party, *others, for_s=TIMES.probe_timeout_s)
    suspected = (len(party.said(PingRequest)), party.state("a"))
    keep_talking(party, *others, for_s=TIMES.confirm_s + 1)

    assert pinged == (1, MemberState.ALIVE)
    assert suspected == (3, MemberState.SUSPECT)
    assert party.state("a") is MemberState.DEAD
    assert [verdict.is_dead for verdict in party.said(Verdict)] == [True] * 5
    assert "nobody else reached it" in party.entry("a").why


def test_any_word_ends_a_suspicion() -> None:
    """Also one that answers something else."""
    party = Party("a", "b")
    keep_talking(party, "b", for_s=SILENT_S + TIMES.probe_timeout_s + 1)
    assert party.state("a") is MemberState.SUSPECT

    party.hear("a", Ack(seq=12345))

    assert party.state("a") is MemberState.ALIVE


def test_a_member_that_others_reach_stays_alive_and_is_asked_through_them() -> None:
    """A one-way link between two nodes is not the death of one."""
    party = Party("a", "b")
    keep_talking(party, "b", for_s=SILENT_S + TIMES.probe_timeout_s + 1)

    party.hear("b", PingReply(seq=1, target=NodeId("a")))
    after = (party.state("a"), party.entry("a").vouched_by)
    party.effects.clear()
    keep_talking(party, "b", for_s=SILENT_S)

    assert after == (MemberState.ALIVE, "b")
    assert party.said(PingRequest, "b")
    assert party.state("a") is MemberState.ALIVE


def test_a_word_for_a_member_that_nobody_asked_about_is_nothing() -> None:
    """Nobody can keep a dead node alive by answering before the question."""
    party = Party("a", "b")

    party.hear("b", PingReply(seq=1, target=NodeId("a")))
    party.hear("b", PingReply(seq=1, target=NodeId("stranger")))

    assert party.entry("a").vouched_by is None


def test_a_refused_packet_makes_a_suspect_at_once_and_shortens_the_rest() -> None:
    """A killed daemon is known in seconds; a forged refusal alone kills nobody."""
    party = Party("a", "b")

    party.tell(ev.PathFailed(peer=NodeId("a"), reason="refused"))
    at_once = (party.state("a"), len(party.said(Ping, "a")), len(party.said(PingRequest, "b")))
    party.advance(TIMES.refused_s + 0.1)

    assert at_once == (MemberState.SUSPECT, 1, 1)
    assert party.state("a") is MemberState.DEAD


def test_a_forged_refusal_is_answered_by_the_member_itself() -> None:
    """The probe that it triggers comes back."""
    party = Party("a", "b")

    party.tell(ev.PathFailed(peer=NodeId("a"), reason="refused"))
    party.hear("a", Ack(seq=1))
    party.advance(TIMES.refused_s + 0.5)

    assert party.state("a") is MemberState.ALIVE


def test_a_lost_connection_is_looked_into_at_once() -> None:
    """By a dial and by asking others; it is no verdict."""
    party = Party("a", "b")

    party.lose("a")

    assert party.state("a") is MemberState.ALIVE
    assert [dial.peer for dial in party.done(do.Dial)] == ["a"]
    assert len(party.said(PingRequest, "b")) == 1


def test_a_dead_member_that_speaks_is_alive_and_learns_what_was_thought_of_it() -> None:
    """So that it can refute that for everybody."""
    party = Party("a", "b")
    keep_talking(party, "b", for_s=20)
    assert party.state("a") is MemberState.DEAD
    party.effects.clear()

    party.connect("a")

    assert party.state("a") is MemberState.ALIVE
    assert party.said(Verdict, "a") == [Verdict(node=NodeId("a"), incarnation=1, is_dead=True)]


def test_a_node_that_is_late_itself_accuses_nobody() -> None:
    """The answer may be waiting in its own queue."""
    party = Party("a", "b")
    for _ in range(40):
        party.tell(ev.LoopLagged(lag_s=3.0))
        keep_talking(party, "b", for_s=1)

    assert party.state("a") is not MemberState.DEAD


def test_after_a_gap_verdicts_are_forgotten_and_everybody_is_asked() -> None:
    """A laptop that wakes up must not accuse the world."""
    party = Party("a", "b", "c")
    keep_talking(party, "b", "c", for_s=SILENT_S + TIMES.probe_timeout_s + 1)
    assert party.state("a") is MemberState.SUSPECT
    party.effects.clear()

    party.now_s += 3600
    party.members.advance(party.now_s)
    party.advance(1.0)

    assert [party.state(name) for name in "abc"] == [MemberState.ALIVE] * 3
    assert [len(party.said(Ping, name)) for name in "abc"] == [1, 1, 1]


def test_a_sleep_that_the_daemon_noticed_does_the_same() -> None:
    """Whoever sees it first."""
    party = Party("a", "b")
    keep_talking(party, "b", for_s=SILENT_S + TIMES.probe_timeout_s + 1)

    party.tell(ev.Slept(gap_s=100.0))

    assert party.state("a") is MemberState.ALIVE


def test_a_death_that_was_slept_through_is_known_within_eight_seconds() -> None:
    """The first answer gets half the time; confirming takes as long as ever, and so does the next question."""
    party = Party("a", "b", "c")
    party.tell(ev.Slept(gap_s=100.0))
    soon_s = TIMES.probe_interval_s / 10 + TIMES.probe_timeout_s / 2

    keep_talking(party, "b", "c", for_s=soon_s + 1)
    suspected = party.state("a")
    keep_talking(party, "b", "c", for_s=TIMES.confirm_s)
    dead = party.state("a")
    keep_talking(party, "b", for_s=SILENT_S + TIMES.probe_timeout_s / 2)

    assert (suspected, dead) == (MemberState.SUSPECT, MemberState.DEAD)
    assert party.state("c") is MemberState.ALIVE


def test_who_had_nobody_to_ask_asks_as_soon_as_somebody_is_there() -> None:
    """After a sleep all connections are lost at once; the question does not wait for another round."""
    party = Party("a", "b", "c")
    for peer in ("b", "c", "a"):
        party.lose(peer)
    party.effects.clear()

    party.connect("b")
    party.connect("c")
    keep_talking(party, "b", "c", for_s=TIMES.confirm_s / 2 + 1)
    asked = len(party.said(PingRequest))
    keep_talking(party, "b", "c", for_s=TIMES.confirm_s)

    assert asked == 2
    assert party.state("a") is MemberState.DEAD


def test_alone_with_one_other_the_verdict_takes_as_long_as_ever() -> None:
    """There is nobody to ask, halfway or later."""
    party = Party("a")
    party.lose("a")

    party.advance(TIMES.confirm_s - 0.5)
    early = party.state("a")
    party.advance(1.0)

    assert early is not MemberState.DEAD
    assert party.state("a") is MemberState.DEAD


def test_a_question_about_a_third_member_is_asked_on_and_answered() -> None:
    """Two questions at once take one ping."""
    party = Party("a", "b", "c")

    party.hear("a", PingRequest(seq=7, target=NodeId("c")))
    party.hear("b", PingRequest(seq=9, target=NodeId("c")))
    asked = len(party.said(Ping, "c"))
    party.hear("c", Ack(seq=1))

    assert asked == 1
    assert party.said(PingReply, "a") == [PingReply(seq=7, target=NodeId("c"))]
    assert party.said(PingReply, "b") == [PingReply(seq=9, target=NodeId("c"))]


def test_a_question_about_oneself_is_answered_and_one_about_a_stranger_is_not() -> None:
    """Silence means: not from here."""
    party = Party("a")

    party.hear("a", PingRequest(seq=1, target=NodeId("m")))
    party.hear("a", PingRequest(seq=2, target=NodeId("stranger")))

    assert party.said(PingReply) == [PingReply(seq=1, target=NodeId("m"))]


def test_questions_of_others_are_bounded() -> None:
    """A peer that asks and asks costs a bounded amount of memory."""
    party = Party("a", "c")

    for seq in range(1000):
        party.hear("a", PingRequest(seq=seq, target=NodeId("c")))
        party.now_s += 0.005

    assert party.members._probing.helping <= 256


def test_a_tombstone_is_forgotten_after_a_day() -> None:
    """Not before, or an old rumour would revive it."""
    party = Party("a")
    party.lose("a")
    party.advance(20.0)
    assert party.state("a") is MemberState.DEAD

    party.advance(86_000.0)
    kept = NodeId("a") in party.members.table.entries
    party.advance(500.0)

    assert kept
    assert NodeId("a") not in party.members.table.entries
