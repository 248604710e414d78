"""Small stories with everything that is said in them; rewrite them with MESHLLM_REWRITE_TRANSCRIPTS=1."""

import os
from pathlib import Path

import pytest

from meshllm.testing.scenario import play

TRANSCRIPTS = Path(__file__).parent / "transcripts"


@pytest.mark.parametrize("name", sorted(file.stem for file in TRANSCRIPTS.glob("*.txt")))
def test_story_goes_as_written(name: str) -> None:
    """A change of behaviour is a difference that somebody reads."""
    file = TRANSCRIPTS / f"{name}.txt"
    text = file.read_text(encoding="utf-8")

    played = play(text)
    if os.environ.get("MESHLLM_REWRITE_TRANSCRIPTS"):
        file.write_text(played, encoding="utf-8")
        text = played

    assert played == text
