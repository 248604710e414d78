"""Versions are three numbers."""

import pytest

from meshllm.core.registration import parse_version


@pytest.mark.rows("REG-7")
@pytest.mark.parametrize(
    "text",
    ["", "1", "1.0", "1.0.0.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "1.0.x", " 1.0.0", "1.0.0\n", "\uff11.0.0", "-1.0.0"],
)
def test_anything_else_than_three_numbers_is_no_version(text: str) -> None:
    """Strict: two spellings of one version would be two versions."""
    assert parse_version(text) is None


@pytest.mark.rows("REG-7")
def test_versions_sort_by_their_numbers() -> None:
    """Not as text."""
    texts = ["1.10.0", "1.2.0", "0.9.9", "10.0.0"]

    assert sorted(texts, key=lambda text: parse_version(text) or ()) == ["0.9.9", "1.2.0", "1.10.0", "10.0.0"]
