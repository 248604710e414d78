"""Single values, from text and from TOML."""

import pytest

from meshllm.config_kinds import KINDS
from meshllm.core.resources import MemoryLimit


@pytest.mark.parametrize(
    ("name", "given", "is_text", "value"),
    [
        ("port", "9337", True, 9337),
        ("port", 9337, False, 9337),
        ("drain_s", 2, False, 2.0),
        ("offline", "ON", True, True),
        ("offline", False, False, False),
        ("models", "a,,b", True, ("a", "b")),
        ("models", "a,b", False, ("a,b",)),
        ("models", ["a", "b"], False, ("a", "b")),
        ("log_level", "WARNING", False, "warning"),
        ("host", "[::1]", True, "::1"),
        ("host", "[FD00:0::1]", False, "fd00::1"),
        ("host", "::1", True, "::1"),
        ("host", "localhost", True, "localhost"),
        ("max_vram", "12GiB", False, MemoryLimit(size_bytes=12 * 1024**3)),
    ],
)
def test_value_is_read(name: str, given: object, is_text: bool, value: object) -> None:
    """A variable is text; TOML has types."""
    assert KINDS[name].read(given, is_text=is_text) == value


@pytest.mark.parametrize(
    ("name", "given", "is_text"),
    [
        ("port", "9337", False),
        ("port", True, False),
        ("port", 1.5, False),
        ("port", "٣", True),
        ("drain_s", "inf", True),
        ("drain_s", 0, False),
        ("offline", "maybe", True),
        ("offline", 1, False),
        ("models", {"a": 1}, False),
        ("unknown_model", "perhaps", True),
        ("host", "a b", True),
        ("host", "", False),
        ("host", "[::1", True),
        ("host", "[]", True),
        ("host", "[::1]:9337", True),
        ("host", "[127.0.0.1]", True),
        ("host", "[localhost]", True),
        ("name", "x" * 64, True),
        ("max_vram", "0%", True),
    ],
)
def test_wrong_value_is_refused(name: str, given: object, is_text: bool) -> None:
    """By ValueError, which says what was expected."""
    with pytest.raises(ValueError, match=r"expected|outside|is not"):
        KINDS[name].read(given, is_text=is_text)
