"""Rendezvous hashing: everybody comes to the same name, and a name that goes moves nothing but its own."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.rendezvous import lot, winner

NAMES = st.lists(st.text(min_size=1), min_size=1, max_size=8, unique=True)


@given(key=st.binary(max_size=64), names=NAMES)
def test_the_order_of_names_makes_no_difference(key: bytes, names: list[str]) -> None:
    """Nodes hear of one another in any order."""
    assert winner(key, names) == winner(key, reversed(names))
    assert winner(key, names) == min(names, key=lambda name: (lot(key, name), name))


@given(key=st.binary(max_size=64), names=NAMES)
def test_a_name_that_goes_moves_only_what_was_its_own(key: bytes, names: list[str]) -> None:
    """What others had they keep."""
    found = winner(key, names)
    for gone in names:
        left = winner(key, [name for name in names if name != gone])
        assert (left == found) == (gone != found)


def test_keys_are_spread_over_all_names() -> None:
    """Roughly alike: each of four has a fifth of a thousand keys at least."""
    counts = Counter(winner(number.to_bytes(2, "big"), "abcd") for number in range(1000))

    assert set(counts) == set("abcd")
    assert min(counts.values()) > 200
    assert winner(b"k", []) is None
