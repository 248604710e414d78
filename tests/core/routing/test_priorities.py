"""Which requests go first where not all can."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core import limits
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE, Rights
from meshllm.core.routing.priorities import NAMES, Priority, aged, engine_room, of_peer, room

LOW, NORMAL, HIGH = Priority.LOW, Priority.NORMAL, Priority.HIGH
START_S = limits.PRIORITY_MINDED_S


@pytest.mark.parametrize(
    ("slots", "admitted", "expected"), [(4, 68, [8, 68, 76]), (1, 2, [2, 2, 3]), (100, 300, [200, 300, 337])]
)
def test_high_ones_have_a_reserve_and_low_ones_only_half_a_queue_of_short_ones(
    slots: int, admitted: int, expected: list[int]
) -> None:
    """Normal ones have what they always had."""
    assert [room(priority, slots, admitted) for priority in Priority] == expected


@given(st.sampled_from(Priority), st.integers(1, 64), st.integers(0, 500))
def test_more_urgent_ones_never_have_less_room(priority: Priority, slots: int, admitted: int) -> None:
    """Whatever the engine."""
    assert room(LOW, slots, admitted) <= room(NORMAL, slots, admitted) < room(HIGH, slots, admitted)
    assert room(priority, slots, admitted) <= room(priority, slots + 1, admitted + 1)


@pytest.mark.parametrize(
    ("number", "rights", "expected"),
    [
        (1, GUEST, HIGH), (1, OWN_MACHINE, HIGH), (1, Rights.INFER | Rights.ADMIN, HIGH), (1, CLIENT_ONLY, NORMAL),
        (0, CLIENT_ONLY, NORMAL), (2, CLIENT_ONLY, LOW), (2, GUEST, LOW), (99, GUEST, NORMAL),
    ],
)  # fmt: skip
def test_a_mere_client_has_no_high_ones_at_other_nodes(number: int, rights: Rights, expected: Priority) -> None:
    """Newer nodes may know other numbers: they count for none."""
    assert of_peer(number, rights) is expected


def test_waiting_makes_up_for_a_low_priority() -> None:
    """In the end it has the room that all have."""
    assert [aged(priority, START_S - 1) for priority in Priority] == [LOW, NORMAL, HIGH]
    assert [aged(priority, START_S) for priority in Priority] == [NORMAL, NORMAL, HIGH]


@pytest.mark.parametrize(("whole", "slots", "expected"), [(68, 4, 8), (3, 4, 3), (2, 1, 2)])
def test_where_priorities_meet_no_more_than_one_for_each_slot_waits_at_the_engine(
    whole: int, slots: int, expected: int
) -> None:
    """An engine has no turns: whoever is at it is before whoever is not."""
    assert engine_room(whole, slots) == expected


def test_priorities_have_names() -> None:
    """Those of the header."""
    assert NAMES == {"low": LOW, "normal": NORMAL, "high": HIGH}
