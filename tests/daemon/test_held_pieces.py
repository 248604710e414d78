"""Memory for pieces: bounded, used again, and given to what comes next where it is short."""

import pytest

from meshllm.daemon.held_pieces import HeldPieces


def test_a_piece_waits_for_its_turn() -> None:
    """As it was filled, with its own length; once."""
    held = HeldPieces(blocks=2, block_bytes=8)
    block = held.room()
    block[:3] = b"abc"

    held.hold(7, block, 3)
    taken = held.take(7)

    assert taken is not None
    assert bytes(taken[0][: taken[1]]) == b"abc"
    assert held.take(7) is None


def test_what_is_given_back_is_used_again() -> None:
    """A copy that keeps up takes few blocks, however many pieces it has."""
    held = HeldPieces(blocks=5, block_bytes=8)
    blocks = set()
    for _ in range(100):
        block = held.room()
        blocks.add(id(block.obj))
        held.give_back(block)

    assert len(blocks) == 1


def test_the_piece_whose_turn_is_last_makes_room() -> None:
    """It is read from the disk again; those before it are still here."""
    held = HeldPieces(blocks=3, block_bytes=8)
    for number in (4, 9, 6):
        held.hold(number, held.room(), 8)

    held.room()

    assert [held.take(number) is not None for number in (4, 6, 9)] == [True, True, False]


def test_more_hands_than_blocks_are_a_mistake() -> None:
    """Nobody waits for memory that nobody will give back."""
    held = HeldPieces(blocks=1, block_bytes=8)
    held.room()

    with pytest.raises(IndexError):
        held.room()
