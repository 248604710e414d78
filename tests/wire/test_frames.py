"""Frames: lengths, limits, and streams that end too early (rows of malformed inputs, 3.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.limits import CONTROL_FRAME_BYTES
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.frames import FrameReader, frame


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=300), max_size=6), cuts=st.lists(st.integers(1, 40), max_size=40)
)
def test_payloads_come_out_however_the_bytes_arrive(payloads: list[bytes], cuts: list[int]) -> None:
    """A network cuts anywhere, also within the length."""
    stream = b"".join(frame(payload) for payload in payloads)
    reader = FrameReader()

    found = []
    for cut in cuts:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    found += reader.feed(stream)

    reader.finish()
    assert found == payloads


@pytest.mark.parametrize("length", [1, CONTROL_FRAME_BYTES])
def test_frames_up_to_the_limit_are_taken(length: int) -> None:
    """The limit itself is allowed."""
    assert FrameReader().feed(frame(bytes(length))) == [bytes(length)]


def test_empty_frames_are_skipped() -> None:
    """They carry nothing and harm nobody."""
    assert FrameReader().feed(frame(b"") + frame(b"a") + frame(b"")) == [b"a"]


@pytest.mark.parametrize("length", [CONTROL_FRAME_BYTES + 1, 2**32 - 1])
def test_larger_frames_are_refused_before_they_are_held(length: int) -> None:
    """Four bytes may not make anybody wait for four gigabytes."""
    with pytest.raises(WireError) as caught:
        FrameReader().feed(length.to_bytes(4, "big"))

    assert caught.value.code is WireCode.FRAME_TOO_LARGE


def test_a_reader_may_be_stricter() -> None:
    """Before admission a peer gets 16 KiB in all."""
    with pytest.raises(WireError) as caught:
        FrameReader(limit_bytes=10).feed(frame(bytes(11)))

    assert caught.value.code is WireCode.FRAME_TOO_LARGE


def test_an_end_within_a_frame_is_told() -> None:
    """What is cut off must never look complete."""
    reader = FrameReader()
    reader.feed(frame(b"abc")[:-1])

    with pytest.raises(WireError) as caught:
        reader.finish()

    assert caught.value.code is WireCode.TRUNCATED
    assert reader.held_bytes == 6


def test_own_frames_keep_the_limit() -> None:
    """What no peer would take is not sent."""
    with pytest.raises(WireError) as caught:
        frame(bytes(CONTROL_FRAME_BYTES + 1))

    assert caught.value.code is WireCode.FRAME_TOO_LARGE


def test_empty_frames_are_told_where_they_mean_something() -> None:
    """On a line they end a direction."""
    skipped, told = FrameReader(), FrameReader(keeps_empty=True)
    data = frame(b"one") + frame(b"") + frame(b"two")

    assert skipped.feed(data) == [b"one", b"two"]
    assert told.feed(data) == [b"one", b"", b"two"]
