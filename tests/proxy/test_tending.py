"""Tasks that look after requests have an owner, and their mistakes cost one request."""

import asyncio
import logging
from typing import cast

import pytest

from meshllm.proxy.forward import Exchange
from meshllm.proxy.openai import Problem
from meshllm.proxy.tending import Tending


class ExchangeDouble:
    """Remembers what it was answered with."""

    request_id = b"r1"

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.answers: list[Problem] = []

    def answer(self, problem: Problem) -> None:
        """Remember."""
        self.answers.append(problem)


async def test_a_task_that_fails_answers_its_request(caplog: pytest.LogCaptureFixture) -> None:
    """A mistake of ours is a 500 and a log line, never a hang."""
    tending, exchange = Tending(), ExchangeDouble()

    async def fail() -> None:
        raise ValueError

    with caplog.at_level(logging.ERROR):
        tending.start(cast("Exchange", exchange), fail())
        assert exchange.task is not None
        await asyncio.wait([exchange.task])
        await asyncio.sleep(0)

    assert [(problem.status, problem.code) for problem in exchange.answers] == [(500, "internal_error")]
    assert "pursue:b'r1'" in caplog.text


async def test_closing_ends_every_task() -> None:
    """And answers nobody: the front door does."""
    tending, exchange = Tending(), ExchangeDouble()
    tending.start(cast("Exchange", exchange), asyncio.Event().wait())  # type: ignore[arg-type]

    await tending.close()

    assert exchange.task is not None
    assert exchange.task.cancelled()
    assert exchange.answers == []
