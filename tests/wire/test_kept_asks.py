"""Questions about kept answers, in the heads of tunnels: their form, and what is none."""

from typing import Any

import pytest

from meshllm.core.ids import ModelId
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.kept_asks import KeptAsk
from meshllm.wire.packing import pack, plain
from meshllm.wire.tunnel_frames import FrameKind, TunnelFrame, TunnelHead, TunnelReader, encode_head, tunnel_frame

LOOK = KeptAsk(recipe="0123456789abcdef" * 2, digest=b"w" + bytes(16))
PUT = KeptAsk(recipe="0123456789abcdef" * 2, digest=b"s" + bytes(16), keeps=True, size_bytes=700)


def a_head(kept: KeptAsk | None) -> TunnelHead:
    """Return the head of a tunnel about an answer."""
    return TunnelHead(request_id="r", model=ModelId("m"), deadline_s=0.2, kept=kept)


@pytest.mark.parametrize("ask", [LOOK, PUT, None])
def test_a_question_travels_in_the_head_of_a_tunnel(ask: KeptAsk | None) -> None:
    """One without carries a request, as ever."""
    head = a_head(ask)

    assert TunnelReader(is_forth=True).feed(encode_head(head)) == [TunnelFrame(FrameKind.HEAD, value=head)]


WRONG: dict[str, dict[str, Any]] = {
    "no recipe": {"recipe": ""}, "a path as recipe": {"recipe": "../../../../../../../../etc/passw"},
    "a long recipe": {"recipe": "0" * 33}, "a loud recipe": {"recipe": "A" * 32}, "a number as recipe": {"recipe": 7},
    "no digest": {"digest": b""}, "a short digest": {"digest": b"w" * 16}, "a long digest": {"digest": b"w" * 18},
    "another form": {"digest": b"x" * 17}, "text as digest": {"digest": "w" * 17},
    "nothing to keep": {"keeps": True}, "something with a question": {"size_bytes": 1},
    "less than nothing": {"keeps": True, "size_bytes": -1}, "half a byte": {"keeps": True, "size_bytes": 0.5},
    "a number as choice": {"keeps": 1, "size_bytes": 1},
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_question_is_our_error(change: dict[str, Any]) -> None:
    """Whatever it is; nothing of it is looked up."""
    document = plain(a_head(LOOK)) | {"kept": plain(LOOK) | change}

    with pytest.raises(WireError) as caught:
        TunnelReader(is_forth=True).feed(tunnel_frame(FrameKind.HEAD, pack(document)))

    assert caught.value.code is WireCode.MALFORMED


@pytest.mark.parametrize("kept", ["x", 7, [], True, {"recipe": "0" * 32}])
def test_what_has_no_form_is_our_error(kept: object) -> None:
    """Half a question, too."""
    with pytest.raises(WireError):
        TunnelReader(is_forth=True).feed(tunnel_frame(FrameKind.HEAD, pack(plain(a_head(None)) | {"kept": kept})))


def test_what_a_newer_node_says_besides_is_left_out() -> None:
    """As everywhere."""
    document = plain(a_head(LOOK)) | {"kept": plain(LOOK) | {"more": 1}}
    (frame,) = TunnelReader(is_forth=True).feed(tunnel_frame(FrameKind.HEAD, pack(document)))

    assert frame.value == a_head(LOOK)
