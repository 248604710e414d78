"""Finding out what a path carries, and doubting it."""

import pytest

from meshllm.core import limits
from meshllm.transport.path_size import SIZES, PathSize, answer_to, answered_size, probe


def test_sizes_are_tried_upward_until_one_does_not_pass() -> None:
    """What passed is used; what did not pass three times is not tried for ever."""
    path = PathSize()
    small, large = SIZES

    assert path.next_try() == small
    path.on_tried()
    assert path.on_answer(small)
    for _ in range(limits.PATH_SIZE_TRIES):
        assert path.next_try() == large
        path.on_tried()

    assert path.next_try() is None
    assert path.size_bytes == small


def test_only_a_datagram_that_went_out_counts_as_a_try() -> None:
    """While congestion holds everything back, nothing is learnt about the path."""
    path = PathSize()

    assert [path.next_try() for _ in range(10)] == [SIZES[0]] * 10


@pytest.mark.parametrize("size", [0, 1200, 65_535, SIZES[1]])
def test_answer_to_what_was_not_asked_changes_nothing(size: int) -> None:
    """A peer cannot make this node send what its path does not carry."""
    path = PathSize()
    path.next_try()

    assert not path.on_answer(size)
    assert path.size_bytes == limits.QUIC_DATAGRAM_BYTES


def test_trouble_falls_back_to_what_every_path_carries() -> None:
    """Once: large datagrams are not tried again on a path that betrayed them."""
    path = PathSize()
    path.on_answer(SIZES[0])

    first, again = path.on_trouble(), path.on_trouble()

    assert (first, again) == (True, False)
    assert (path.size_bytes, path.next_try()) == (limits.QUIC_DATAGRAM_BYTES, None)


def test_probe_and_answer_are_told_apart() -> None:
    """Anything else in a datagram frame is ignored."""
    asked = probe(1452)
    answer = answer_to(asked)

    assert len(asked) < 1452
    assert answer is not None
    assert (answered_size(answer), answered_size(asked), answer_to(answer)) == (1452, None, None)
    assert (answer_to(b""), answered_size(b""), answer_to(b"?"), answered_size(b"!xyz")) == (None, None, None, None)
