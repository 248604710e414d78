"""Tasks have an owner, and end with it."""

import asyncio

import pytest

from meshllm.api import background as background_module
from meshllm.api.answers import ApiError
from meshllm.api.background import Background


async def test_closing_ends_every_task() -> None:
    """Nothing is left when the daemon goes."""
    background = Background()
    task = background.start("for ever", asyncio.Event().wait())

    await background.close()

    assert task.cancelled()


async def test_failure_is_logged_under_the_task_s_name(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for it, so it has to speak."""
    background = Background()

    async def fail() -> None:
        raise ValueError("broken")

    task = background.start("fetching", fail())
    await asyncio.wait((task,))
    await background.close()

    assert "task=fetching failed" in caplog.text
    assert "broken" in caplog.text


async def test_streams_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that ends makes room."""
    monkeypatch.setattr(background_module, "MANAGEMENT_STREAMS", 1)
    background = Background()

    with background.stream(), pytest.raises(ApiError), background.stream():
        pass
    with background.stream():
        pass
