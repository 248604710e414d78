"""What is left open when a program ends is ended, within bounds, and only in the program that left it so."""

import os

import pytest

from meshllm.core.limits import PROGRAM_EXIT_S
from meshllm.daemon.program_exit import Unclosed


class Ends:
    """Nodes that write down how they are ended."""

    def __init__(self) -> None:
        """Begin with nobody ended."""
        self.order: list[str] = []
        self.within_s: list[float] = []

    def of(self, name: str, *, is_done: bool = True) -> "End":
        """Return what ends a node by that name."""
        return End(self, name, is_done=is_done)


class End:
    """Ends one node."""

    def __init__(self, ends: Ends, name: str, *, is_done: bool) -> None:
        """Write to `ends`."""
        self._ends, self._name, self._is_done = ends, name, is_done

    def __call__(self, within_s: float) -> bool:
        """Be ended."""
        self._ends.order.append(self._name)
        self._ends.within_s.append(within_s)
        return self._is_done


def test_what_was_not_closed_is_ended_newest_first_and_once() -> None:
    """All of them share what time there is."""
    unclosed, ends = Unclosed(), Ends()
    for name in ("a", "closed", "b"):
        unclosed.add(name, ends.of(name))
    unclosed.remove("closed")
    unclosed.remove("never there")

    unclosed.end_all()
    unclosed.end_all()

    assert ends.order == ["b", "a"]
    assert PROGRAM_EXIT_S >= ends.within_s[0] >= ends.within_s[1] >= 0.0


def test_what_cannot_be_ended_in_time_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """And holds nobody else up."""
    unclosed, ends = Unclosed(), Ends()
    unclosed.add("a", ends.of("a"))
    unclosed.add("slow", ends.of("slow", is_done=False))

    unclosed.end_all()

    assert ends.order == ["slow", "a"]
    assert [record.message for record in caplog.records] == [
        "the program ends before its node has; close it, or use it in an `async with`"
    ]


def test_a_fork_ends_nothing_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the list, and neither the loop nor the sockets; what it makes itself is its own."""
    unclosed, ends = Unclosed(), Ends()
    unclosed.add("parent's", ends.of("parent's"))
    monkeypatch.setattr(os, "getpid", lambda: -1)

    unclosed.end_all()
    unclosed.add("child's", ends.of("child's"))
    unclosed.end_all()

    assert ends.order == ["child's"]
