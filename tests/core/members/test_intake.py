"""Which statements of others are taken. Rows of the table of malformed input, and lessons of neighbours."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.effects import Level, Notify
from meshllm.core.ids import NodeId
from meshllm.core.messages import Push
from meshllm.core.standing import MemberState
from tests.core.members.builders import Party, a_record, an_address


def push(party: Party, peer: str, name: str, incarnation: int = 1, version: int = 0, **changes: object) -> None:
    """Let a peer carry a statement."""
    party.hear(peer, Push(records=(a_record(name, incarnation, version, **changes),)))


def bury(party: Party, name: str, *witnesses: str) -> None:
    """Let a connected member die while others talk."""
    party.lose(name)
    for _ in range(8):
        for peer in witnesses:
            party.hear(peer, Push(records=()))
        party.advance(1.0)
    assert party.state(name) is MemberState.DEAD


def test_a_node_heard_of_for_the_first_time_is_a_member_with_a_voucher() -> None:
    """People see who told of it until it speaks itself."""
    party = Party("a")

    push(party, "a", "new")

    assert (party.state("new"), party.entry("new").vouched_by, party.entry("a").vouched_by) == (
        MemberState.ALIVE, "a", None,
    )  # fmt: skip


def test_newer_wins_and_older_is_ignored() -> None:
    """Whatever the order in which they arrive."""
    party = Party("a")

    for incarnation, version in ((1, 5), (1, 3), (2, 0), (1, 9)):
        push(party, "a", "b", incarnation, version)

    assert (party.entry("b").incarnation, party.entry("b").announcement.version) == (2, 0)


def test_a_jump_that_no_honest_node_makes_is_refused() -> None:
    """Or one record would lock its owner out for ever."""
    party = Party("a")
    push(party, "a", "b", 1, 5)

    push(party, "a", "b", 1, 5 + 2**40)
    push(party, "a", "b", 2**40, 0)
    push(party, "a", "c", 2**40, 0)

    assert party.entry("b").announcement.version == 5
    assert NodeId("c") not in party.members.table.entries


def test_two_statements_with_one_number_keep_the_first_and_are_told_once() -> None:
    """Equivocation: a broken or lying node."""
    party = Party("a")
    push(party, "a", "b", 1, 1, engine_build="honest")

    for _ in range(3):
        push(party, "a", "b", 1, 1, engine_build="other")

    notices = [one for one in party.done(Notify) if one.level is Level.WARNING]
    assert party.entry("b").announcement.engine_build == "honest"
    assert len(notices) == 1


def test_the_dead_stay_dead_whatever_old_statements_arrive() -> None:
    """Flapping begins where third parties revive the dead."""
    party = Party("a", "b")
    bury(party, "b", "a")

    push(party, "a", "b", 1, 0)
    push(party, "a", "b", 1, 7)

    assert party.state("b") is MemberState.DEAD


def test_a_newer_incarnation_revives() -> None:
    """Only the node itself can sign one."""
    party = Party("a", "b")
    bury(party, "b", "a")

    push(party, "a", "b", 2, 0)

    assert (party.state("b"), party.entry("b").vouched_by) == (MemberState.ALIVE, "a")


def test_a_refutation_ends_a_suspicion() -> None:
    """It comes through others where the direct way is broken."""
    party = Party("a", "b")
    for _ in range(12):
        party.hear("a", Push(records=()))
        party.advance(1.0)
    assert party.state("b") is MemberState.SUSPECT

    push(party, "a", "b", 2, 0)

    assert party.state("b") is MemberState.ALIVE


def test_who_left_stays_gone_until_it_starts_again() -> None:
    """Neither its old statements nor its last words bring it back."""
    party = Party("a", "b")
    push(party, "a", "b", 1, 1, left=True)
    gone = party.state("b")

    push(party, "a", "b", 1, 9)
    party.hear("b", Push(records=()))
    still = party.state("b")
    push(party, "a", "b", 2, 0)

    assert (gone, still, party.state("b")) == (MemberState.LEFT, MemberState.LEFT, MemberState.ALIVE)


def test_a_goodbye_of_a_stranger_is_nothing() -> None:
    """There is nobody to remember."""
    party = Party("a")

    push(party, "a", "b", 1, 1, left=True)

    assert NodeId("b") not in party.members.table.entries


def test_one_owner_that_says_too_much_is_heard_less() -> None:
    """Ten statements a second, with a burst of fifty; pings are not starved."""
    party = Party("a")

    for version in range(200):
        push(party, "a", "b", 1, version + 1)
    early = party.entry("b").announcement.version
    party.now_s += 1.0
    push(party, "a", "b", 1, 1000)

    assert early <= 52
    assert party.entry("b").announcement.version == 1000


def test_a_peer_that_floods_is_not_listened_to() -> None:
    """Ten thousand messages in a moment change nothing that matters."""
    party = Party("a")

    for number in range(2000):
        push(party, "a", f"n{number:04}")

    assert len(party.members.table.entries) <= 401
    assert party.state("a") is MemberState.ALIVE


def test_a_full_mesh_takes_nobody_and_says_so_once() -> None:
    """A Sybil with a thousand certificates fills no memory."""
    party = Party("a")
    for number in range(1100):
        party.now_s += 0.02
        push(party, "a", f"n{number:04}")

    warnings = [one for one in party.done(Notify) if one.message == "the mesh is full"]
    assert party.members.table.live_count == 1024
    assert len(warnings) == 1


def test_the_oldest_tombstone_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand nodes that came and went fill no memory."""
    monkeypatch.setattr("meshllm.core.members.intake.TOMBSTONES", 5)
    party = Party("a")
    for number in range(8):
        party.now_s += 1.0
        push(party, "a", f"n{number}")
        push(party, "a", f"n{number}", 1, 1, left=True)

    left = [node for node, entry in party.members.table.entries.items() if entry.state is MemberState.LEFT]
    assert sorted(left) == ["n3", "n4", "n5", "n6", "n7"]


def test_a_record_that_is_the_same_object_is_no_news() -> None:
    """The cheapest of all comparisons comes first."""
    party = Party("a")
    record = a_record("b")

    party.hear("a", Push(records=(record,)))
    before = party.entry("b").record
    party.hear("a", Push(records=(record,)))

    assert party.entry("b").record is before


def test_a_new_address_of_a_member_is_learned() -> None:
    """It moved to another network."""
    party = Party("a")
    push(party, "a", "b")

    push(party, "a", "b", 1, 1, addresses=(an_address("elsewhere"),))

    assert party.members.connections.contacts[NodeId("b")].addresses[0] == an_address("elsewhere")


STATEMENTS = st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 4), st.integers(0, 4)), max_size=25)


@given(STATEMENTS, st.randoms())
def test_the_order_of_arrival_does_not_matter(statements: list[tuple[str, int, int]], chance: random.Random) -> None:
    """Merging is commutative, associative and idempotent: all nodes end up with the same."""
    shuffled = [*statements, *statements[:5]]
    chance.shuffle(shuffled)
    one, other = Party("a"), Party("a")

    for party, order in ((one, statements), (other, shuffled)):
        for name, incarnation, version in order:
            push(party, "a", name, incarnation, version)

    assert one.members.table.summary() == other.members.table.summary()
