"""A stop sequence over the seam ends the text; nothing else is held back for long."""

from hypothesis import given
from hypothesis import strategies as st

from meshllm.proxy.seam import Seam


def test_text_without_stop_sequences_passes() -> None:
    """As it comes."""
    assert Seam((), "abc").feed("d") == "d"


def test_what_may_be_the_rest_of_a_stop_sequence_waits() -> None:
    """And is told as soon as it is not."""
    seam = Seam(["END"], "the E")

    assert (seam.feed("N"), seam.feed("d of"), seam.feed("N")) == ("", "Nd of", "N")  # codespell:ignore
    assert not seam.has_stopped


def test_the_rest_of_a_stop_sequence_ends_the_text() -> None:
    """In however many pieces it comes."""
    seam = Seam(["never", "END"], "the E")

    assert (seam.feed("N"), seam.feed("D of"), seam.feed("story")) == ("", "", "")
    assert seam.has_stopped


def test_the_last_words_are_not_held_back() -> None:
    """The engine has ended: the stop sequence stays incomplete."""
    assert Seam(["END"], "the E").feed("N", is_last=True) == "N"


@given(st.text("ab", max_size=6), st.text("ab", max_size=8), st.text("ab", min_size=2, max_size=4), st.data())
def test_a_seam_tells_everything_up_to_the_first_stop_that_began_before_it(
    said: str, rest: str, stop: str, data: st.DataObject
) -> None:
    """However the rest is cut into pieces."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rest)))))
    pieces = [rest[a:b] for a, b in zip([0, *cuts], [*cuts, len(rest)], strict=True)]
    seam = Seam([stop], said)

    told = "".join(seam.feed(piece, is_last=number == len(pieces) - 1) for number, piece in enumerate(pieces))

    over = [at for at in range(max(len(said) - len(stop) + 1, 0), len(said)) if (said + rest).startswith(stop, at)]
    assert seam.has_stopped == bool(over)
    assert told == ("" if over else rest)
