"""Frames of tunnels: form, limits and order (rows of malformed inputs, 3.3 and 3.5)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.ids import ModelId
from meshllm.core.limits import TUNNEL_FRAME_BYTES
from meshllm.wire import tunnel_frames as tf
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.packing import pack, plain
from meshllm.wire.tunnel_frames import FrameKind, TunnelFrame, TunnelReader, tunnel_frame

HEAD = tf.TunnelHead(
    request_id="req-1", model=ModelId("m"), digest="sha256:" + "0" * 64, deadline_s=29.5, attempt=2, priority=1,
    session="s",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)  # fmt: skip
PROGRESS = tf.TunnelProgress(stage="prefill", queued=1, share=0.5)
REFUSAL = tf.TunnelRefusal(code="context_too_long", message="4096 tokens", retry_after_s=1.5, have=4096, need=5000)
FAILURE = tf.TunnelFailure(code="engine_lost", message="the engine ended")
END = tunnel_frame(FrameKind.END)
CANCEL = tunnel_frame(FrameKind.CANCEL)
DATA = tunnel_frame(FrameKind.DATA, b"GET")


def forth() -> TunnelReader:
    """Return a reader of requests."""
    return TunnelReader(is_forth=True)


def back() -> TunnelReader:
    """Return a reader of answers."""
    return TunnelReader(is_forth=False)


def test_a_request_comes_through() -> None:
    """Head, bytes, end."""
    reader = forth()

    frames = reader.feed(tf.encode_head(HEAD) + DATA + END)

    reader.finish()
    assert frames == [
        TunnelFrame(FrameKind.HEAD, value=HEAD), TunnelFrame(FrameKind.DATA, data=b"GET"), TunnelFrame(FrameKind.END),
    ]  # fmt: skip


def test_an_answer_comes_through() -> None:
    """Progress while it waits, bytes, end."""
    frames = back().feed(tf.encode_progress(PROGRESS) * 2 + DATA + END)

    assert [frame.kind for frame in frames] == [FrameKind.PROGRESS, FrameKind.PROGRESS, FrameKind.DATA, FrameKind.END]
    assert frames[0].value == PROGRESS


def test_a_refusal_comes_through() -> None:
    """With its numbers."""
    assert back().feed(tf.encode_refusal(REFUSAL)) == [TunnelFrame(FrameKind.REFUSED, value=REFUSAL)]


def test_a_failure_comes_through_at_any_time() -> None:
    """Also after bytes."""
    assert back().feed(DATA + tf.encode_failure(FAILURE))[-1] == TunnelFrame(FrameKind.ERROR, value=FAILURE)
    assert back().feed(tf.encode_failure(FAILURE))[-1].value == FAILURE


@given(data=st.binary(max_size=2000), cuts=st.lists(st.integers(1, 50), max_size=50))
def test_bytes_come_out_however_they_arrive(data: bytes, cuts: list[int]) -> None:
    """A network cuts anywhere."""
    stream = tf.encode_head(HEAD) + b"".join(tf.data_frames(data)) + END
    reader, found = forth(), []

    for cut in cuts:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    found += reader.feed(stream)

    assert b"".join(frame.data for frame in found) == data
    assert reader.is_over


def test_much_data_becomes_several_frames() -> None:
    """None above 64 KiB, so that control is never behind more than that."""
    data = bytes(range(256)) * 1000

    frames = tf.data_frames(data)

    assert [len(frame) - 4 for frame in frames] == [65_536, 65_536, 65_536, 59_392]
    assert b"".join(frame[4:] for frame in frames) == data
    assert tf.data_frames(b"") == []


WRONG = {
    "data before the head": (True, DATA),
    "two heads": (True, tf.encode_head(HEAD) * 2),
    "a refusal forth": (True, tf.encode_head(HEAD) + tf.encode_refusal(REFUSAL)),
    "progress forth": (True, tf.encode_head(HEAD) + tf.encode_progress(PROGRESS)),
    "end before the head": (True, END),
    "data after the end": (True, tf.encode_head(HEAD) + END + DATA),
    "second end": (True, tf.encode_head(HEAD) + END + END),
    "part of a frame after the end": (True, tf.encode_head(HEAD) + END + b"\x02"),
    "data after cancel": (True, tf.encode_head(HEAD) + CANCEL + DATA),
    "head back": (False, tf.encode_head(HEAD)),
    "cancel back": (False, CANCEL),
    "refusal after data": (False, DATA + tf.encode_refusal(REFUSAL)),
    "progress after data": (False, DATA + tf.encode_progress(PROGRESS)),
    "data after a refusal": (False, tf.encode_refusal(REFUSAL) + DATA),
    "data after a failure": (False, tf.encode_failure(FAILURE) + DATA),
    "kind 0": (False, b"\0\0\0\0"),
    "kind 8": (False, b"\x08\0\0\0"),
    "kind 255": (True, b"\xff\0\0\0"),
    "end with a payload": (False, tunnel_frame(FrameKind.END, b"x")),
    "empty head": (True, tunnel_frame(FrameKind.HEAD)),
    "head that is no map": (True, tunnel_frame(FrameKind.HEAD, b"\x90")),
    "head with a control character": (True, tunnel_frame(FrameKind.HEAD, pack({**plain(HEAD), "session": "a\r\nb"}))),
    "head with a long session": (True, tunnel_frame(FrameKind.HEAD, pack({**plain(HEAD), "session": "s" * 300}))),
    "head without a model": (True, tunnel_frame(FrameKind.HEAD, pack({**plain(HEAD), "model": ""}))),
    "head with a path as digest": (True, tunnel_frame(FrameKind.HEAD, pack({**plain(HEAD), "digest": "/etc/passwd"}))),
    "head with a negative deadline": (True, tunnel_frame(FrameKind.HEAD, pack({**plain(HEAD), "deadline_s": -1.0}))),
    "head with an endless deadline": (
        True, tunnel_frame(FrameKind.HEAD, pack({**plain(HEAD), "deadline_s": float("inf")})),
    ),
    "progress above all": (False, tunnel_frame(FrameKind.PROGRESS, pack(replace(PROGRESS, share=1.5)))),
    "progress without a stage": (False, tunnel_frame(FrameKind.PROGRESS, pack(replace(PROGRESS, stage="")))),
    "refusal with markup": (False, tunnel_frame(FrameKind.REFUSED, pack(replace(REFUSAL, code="<b>")))),
    "refusal with a novel": (False, tunnel_frame(FrameKind.REFUSED, pack(replace(REFUSAL, message="x" * 300)))),
    "failure with an escape": (False, tunnel_frame(FrameKind.ERROR, pack(replace(FAILURE, message="\x1b[2J")))),
}  # fmt: skip


@pytest.mark.parametrize(("is_forth", "stream"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_frame_is_our_error(is_forth: bool, stream: bytes) -> None:
    """Whatever it is; the stream is reset and the connection stays."""
    with pytest.raises(WireError) as caught:
        TunnelReader(is_forth=is_forth).feed(stream)

    assert caught.value.code is WireCode.MALFORMED


def test_bytes_after_the_end_in_a_later_datagram_are_refused() -> None:
    """As are those in the same one."""
    reader = forth()
    reader.feed(tf.encode_head(HEAD) + END)

    with pytest.raises(WireError):
        reader.feed(b"\x02")


def test_a_frame_above_the_limit_is_refused_before_it_is_held() -> None:
    """On both ends."""
    reader = forth()
    reader.feed(tf.encode_head(HEAD))

    with pytest.raises(WireError) as received:
        reader.feed((FrameKind.DATA << 24 | TUNNEL_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(WireError) as sent:
        tunnel_frame(FrameKind.DATA, bytes(TUNNEL_FRAME_BYTES + 1))

    assert received.value.code is sent.value.code is WireCode.FRAME_TOO_LARGE


@pytest.mark.parametrize("cut", [0, 10])
def test_an_end_of_the_stream_before_the_last_frame_is_told(cut: int) -> None:
    """An answer that was cut off never looks complete."""
    reader = back()
    reader.feed((DATA + DATA)[: cut or None])

    with pytest.raises(WireError) as caught:
        reader.finish()

    assert caught.value.code is WireCode.TRUNCATED


def test_what_this_node_says_is_made_fit() -> None:
    """A session from a client's header, a message from an exception, a deadline that has passed."""
    head = forth().feed(tf.encode_head(replace(HEAD, session="a\nb" * 200, deadline_s=-0.1)))[0].value
    refusal = back().feed(tf.encode_refusal(replace(REFUSAL, message="a\nb" * 200)))[0].value

    assert isinstance(head, tf.TunnelHead)
    assert isinstance(refusal, tf.TunnelRefusal)
    assert (head.session[:6], head.deadline_s, refusal.message[:3]) == ("a?ba?b", 0.0, "a?b")
