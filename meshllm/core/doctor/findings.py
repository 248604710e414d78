"""One line of `mesh-llm doctor`: what was looked at, how it is, and what to do about it.

Owns the shape and the four results. Decides nothing: the modules beside it do. Doesn't know how anything was found
out, nor how it is printed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    """How something is."""

    OK = "pass"
    NOTE = "note"
    """Neither good nor bad: something to know."""
    WARN = "warn"
    """It works, and not as it should."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found."""

    name: str
    result: Result
    message: str
    advice: str = ""
    """What to do; empty where nothing is to be done."""
    model: str = ""
    """What it is about, where that is one model."""

    @property
    def line(self) -> str:
        """Return message and advice as one line."""
        return f"{self.message}: {self.advice}" if self.advice else self.message


def failed(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return the names of the checks that failed, each once, in their order."""
    names = (f"{one.name} of {one.model}" if one.model else one.name for one in findings if one.result is Result.FAIL)
    return tuple(dict.fromkeys(names))


def listed(names: Sequence[str], most: int = 4) -> str:
    """Return some names as a phrase, the first ones where there are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
