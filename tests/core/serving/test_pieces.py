"""The pieces of one file from several peers."""

from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.ids import NodeId
from meshllm.core.serving.pieces import FilePiece, PieceBook

ONE, TWO = NodeId("one"), NodeId("two")


def test_pieces_are_given_out_in_order_and_the_last_is_short() -> None:
    """The beginning is whole early."""
    book = PieceBook(25, piece_bytes=10)

    taken = [book.take(ONE), book.take(TWO), book.take(ONE), book.take(TWO)]

    assert taken == [
        FilePiece(number=0, offset=0, length=10), FilePiece(number=1, offset=10, length=10),
        FilePiece(number=2, offset=20, length=5), None,
    ]  # fmt: skip


def test_what_a_peer_was_asked_for_goes_to_another_when_it_fails() -> None:
    """Only that; what it sent stays."""
    book = PieceBook(30, piece_bytes=10)
    first, second = book.take(ONE), book.take(ONE)
    assert first is not None and second is not None  # noqa: PT018
    book.arrived(ONE, first)

    assert book.lost(ONE) == 1
    assert book.take(TWO) == second


def test_the_whole_beginning_ends_at_the_first_gap() -> None:
    """So much can be hashed."""
    book = PieceBook(25, piece_bytes=10)
    pieces = [piece for piece in (book.take(ONE) for _ in range(3)) if piece is not None]

    book.arrived(ONE, pieces[2])
    before = book.whole_bytes, book.done_bytes
    book.arrived(ONE, pieces[0])
    book.arrived(ONE, pieces[1])

    assert before == (0, 5)
    assert (book.whole_bytes, book.done_bytes, book.is_complete) == (25, 25, True)


def test_an_earlier_try_counts() -> None:
    """What it brought is not asked for again; numbers beyond the file mean nothing."""
    book = PieceBook(25, (0, 2, 99), piece_bytes=10)

    assert (book.done_bytes, book.whole_bytes, book.done) == (15, 10, {0, 2})
    assert book.take(ONE) == FilePiece(number=1, offset=10, length=10)
    assert book.take(ONE) is None


def test_a_late_piece_counts_once() -> None:
    """One that was given to somebody else meanwhile."""
    book = PieceBook(10, piece_bytes=10)
    piece = book.take(ONE)
    assert piece is not None
    book.lost(ONE)

    book.arrived(ONE, piece)

    assert book.done_bytes == 0


@given(
    size_bytes=st.integers(min_value=1, max_value=200),
    steps=st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.booleans()), max_size=60),
)
def test_whatever_fails_every_byte_comes_once(size_bytes: int, steps: list[tuple[NodeId, bool]]) -> None:
    """Peers fail in any order; in the end one brings what is left, and nothing is missing or double."""
    book = PieceBook(size_bytes, piece_bytes=7)
    got: list[FilePiece] = []
    for peer, fails in [*steps, *[(ONE, False)] * 40]:
        if fails:
            book.lost(peer)
        elif (piece := book.take(peer)) is not None:
            book.arrived(peer, piece)
            got.append(piece)
    book.lost(TWO)

    covered = sorted(byte for piece in got for byte in range(piece.offset, piece.offset + piece.length))
    assert covered == list(range(size_bytes))
    assert book.is_complete
