"""Signals end the node.

Owns which signals are heard, and for how long. Decides what each means: to leave, or that a terminal was closed.
Doesn't know how a node ends.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol


class Ending(Protocol):
    """What can be asked to end."""

    def leave(self, reason: str) -> None:
        """End; asked a second time, at once."""

    def hang_up(self) -> None:
        """End, because the terminal is closed."""


@contextlib.contextmanager
def signals_obeyed(node: Ending) -> Iterator[None]:
    """Let signals end the node while this lasts."""
    loop = asyncio.get_running_loop()
    handlers: dict[signal.Signals, Callable[[], None]] = {
        number: partial(node.leave, number.name) for number in (signal.SIGTERM, signal.SIGINT)
    }
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` sets it
        handlers[signal.SIGHUP] = node.hang_up
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
