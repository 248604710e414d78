"""Sizes as people write them."""

import pytest

from meshllm.core.limits import GIB
from meshllm.core.resources import MemoryLimit, format_bytes, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12GB", 12 * 10**9), ("12 GiB", 12 * GIB), ("1.5g", int(1.5 * GIB)), ("500mb", 500 * 10**6), ("7b", 7)],
)
def test_sizes_with_their_units(text: str, expected: int) -> None:
    """GB counts in thousands and GiB in 1,024s, as everywhere else."""
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "12", "GB", "-1GB", "0GB", "12XB", "1e9b", "12GB!", "nanGB"])
def test_what_is_no_size_is_refused_with_examples(text: str) -> None:
    """A wrong limit must not become a silent default."""
    with pytest.raises(ValueError, match="write for example"):
        parse_size(text)


def test_limit_as_share_and_as_size() -> None:
    """Both forms of `--max-vram` bound a total."""
    assert MemoryLimit.parse("80%").of(1000) == 800
    assert MemoryLimit.parse("12GB").of(20 * 10**9) == 12 * 10**9
    assert MemoryLimit.parse("12GB").of(8 * 10**9) == 8 * 10**9


@pytest.mark.parametrize("text", ["0%", "101%", "-5%", "80"])
def test_impossible_shares_are_refused(text: str) -> None:
    """A share is of something that exists."""
    with pytest.raises(ValueError, match=r"0 % to 100 %|write for example"):
        MemoryLimit.parse(text)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (98_362_432, "98.4 MB"), (1_500_000_000, "1.5 GB"), (123e9, "123 GB")],
)
def test_bytes_for_people(count: int, expected: str) -> None:
    """Two digits are enough to compare and short enough to read."""
    assert format_bytes(int(count)) == expected
