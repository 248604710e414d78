"""Names and texts from other nodes (P9): what is refused on entry, and how one's own are made to fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.limits import ANNOUNCED_TEXT_CHARS, REMOTE_ERROR_TEXT_BYTES
from meshllm.wire import names
from meshllm.wire.errors import WireError

HOSTILE = ["", "a" * 300, "<script>alert(1)</script>\n", "a\x1b[2Jb", "a\r\nlevel=ERROR", "a\0b", "\u202eexe.txt"]


@pytest.mark.parametrize("text", [*HOSTILE, "b" * 51, "B" * 52, "0" * 52, "a" * 52 + "\n"], ids=ascii)
def test_no_id(text: str) -> None:
    """Ids are 52 letters of base32, nothing before or after."""
    with pytest.raises(WireError):
        names.check_id(text)


@pytest.mark.parametrize("text", [*HOSTILE, "köln", "a/b", "a;rm", "$(x)", "a\n"], ids=ascii)
def test_no_node_name(text: str) -> None:
    """A name can be shown anywhere without another thought."""
    with pytest.raises(WireError):
        names.check_node_name(text)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_model(text: str) -> None:
    """Models are named after files, so letters of any script are fine, and nothing that steers."""
    with pytest.raises(WireError):
        names.check_model(text)


@pytest.mark.parametrize("text", ["x", "a" * 63, "A" * 64, "../../etc/passwd"], ids=ascii)
def test_no_digest(text: str) -> None:
    """A digest is `sha256:` and 64 hexadecimal digits and can never be a path."""
    with pytest.raises(WireError):
        names.check_digest(text)


@pytest.mark.parametrize("text", [*HOSTILE, "Busy", "not-hosting", "1st"], ids=ascii)
def test_no_word(text: str) -> None:
    """Codes are words of the protocol."""
    with pytest.raises(WireError):
        names.check_word(text)


def test_good_ones_pass() -> None:
    """The rules leave room for what people really use."""
    names.check_id("a2" * 26)
    names.check_node_name("studio-mac 2.local_x")
    names.check_model("Qwen2.5-3B-Instruct-Q4_K_M (müde)")
    names.check_digest("sha256:" + "0" * 64)
    names.check_digest("")
    names.check_word("context_too_long")
    names.check_text("anything that isn't long")


def test_a_long_text_is_refused() -> None:
    """A description of 1 MB would be everybody's."""
    with pytest.raises(WireError):
        names.check_text("short", "a" * (ANNOUNCED_TEXT_CHARS + 1))


@given(st.text())
def test_one_s_own_are_made_to_fit(text: str) -> None:
    """A strange host name or model must not make other nodes refuse this one."""
    names.check_node_name(names.fit_node_name(text))
    names.check_text(names.fit_text(text))

    assert names.fit_text(text).isprintable()
    assert len(names.fit_error(text).encode()) <= REMOTE_ERROR_TEXT_BYTES
