"""What nodes do when the program that they live in ends and has not closed them.

Owns the list of nodes that are not closed, and the one call by the interpreter. Decides how long the end of a program
may be held up for all of them together. Doesn't know nodes.

The interpreter first calls what is registered here, then waits for threads, then calls what is registered with
`atexit`: too late for us, since connections to peers may keep threads busy, and threads that are over take no work.
The standard library's own thread pools use the same registration, which is called in the reverse order.
"""

import atexit
import concurrent.futures.thread  # noqa: F401 - it has to be registered before us, so that its threads still work
import logging
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from meshllm.core.limits import PROGRAM_EXIT_S

log = logging.getLogger(__name__)

End = Callable[[float], bool]
"""Ends a node within so many seconds; tells whether it is done."""


class Unclosed:
    """The nodes of this process that somebody still has to close."""

    def __init__(self) -> None:
        """Begin with none."""
        self._ends: dict[object, End] = {}
        self._process = 0

    def add(self, node: object, end: End) -> None:
        """Have a node ended by `end` when the program exits, in the process that this one is."""
        if self._process != os.getpid():
            self._ends.clear()  # a fork has its parent's list, but none of its nodes
            self._process = os.getpid()
        self._ends[node] = end

    def remove(self, node: object) -> None:
        """Forget a node, which was closed."""
        self._ends.pop(node, None)

    def end_all(self) -> None:
        """End what was not closed, the newest first, all of it within a moment."""
        if self._process != os.getpid():
            return
        until_s = monotonic() + PROGRAM_EXIT_S
        while self._ends:
            _, end = self._ends.popitem()
            if not end(max(until_s - monotonic(), 0.0)):
                log.warning("the program ends before its node has; close it, or use it in an `async with`")


UNCLOSED = Unclosed()
_register: Callable[[Callable[[], Any]], object] = getattr(threading, "_register_atexit", atexit.register)
_register(UNCLOSED.end_all)
