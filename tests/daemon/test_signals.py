"""Signals to a process that runs a node."""

import asyncio
import os
import signal

import pytest

from meshllm.daemon.signals import signals_obeyed

WITHIN_S = 30.0


class Heard:
    """Keeps what a node was asked."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[str] = asyncio.Queue()

    def leave(self, reason: str) -> None:
        """Note the reason."""
        self.asked.put_nowait(reason)

    def hang_up(self) -> None:
        """Note that the terminal is closed."""
        self.asked.put_nowait("hung up")


@pytest.mark.parametrize(
    ("number", "asked"),
    [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"), (signal.SIGHUP, "hung up")],
)
async def test_each_signal_asks_the_node_to_end_in_its_own_way(number: signal.Signals, asked: str) -> None:
    """And the handlers are gone afterwards."""
    before, node = signal.getsignal(number), Heard()

    with signals_obeyed(node):
        os.kill(os.getpid(), number)
        async with asyncio.timeout(WITHIN_S):
            heard = await node.asked.get()

    assert heard == asked
    assert signal.getsignal(number) in {before, signal.SIG_DFL, signal.default_int_handler}


async def test_nohup_is_respected() -> None:
    """Whoever started it so wants it to outlive the terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_obeyed(Heard()):
            handler = signal.getsignal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert handler is signal.SIG_IGN
