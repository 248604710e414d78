"""Ids as text and as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.wire.ids import id_bytes, id_text, is_id


@given(st.binary(min_size=32, max_size=32))
def test_an_id_has_two_forms(data: bytes) -> None:
    """There and back again."""
    text = id_text(data)

    assert is_id(text)
    assert id_bytes(text) == data


@pytest.mark.parametrize("text", ["", "a" * 51, "a" * 53, "A" * 52, "1" * 52, "a" * 51 + "\n"], ids=ascii)
def test_anything_else_has_no_bytes(text: str) -> None:
    """A mistake of ours, not of a peer: peers' ids are checked on entry."""
    assert not is_id(text)
    with pytest.raises(ValueError):
        id_bytes(text)
