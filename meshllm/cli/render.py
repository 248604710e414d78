"""How commands show things: tables, JSON, progress. Data goes to standard output, everything else to standard error.

Owns the difference between a terminal and a pipe: rich tables and bars on the one, plain columns and lines in the
other. Doesn't know what is shown.
"""

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING

from meshllm.core.resources import format_bytes

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Table = tuple[Sequence[str], Sequence[Sequence[object]]]
"""Headings, and the cells of each row."""

PLAIN_STEP = 0.1
"""Without a terminal, progress is a line for each such share."""


def clean(text: object) -> str:
    """Return text without characters that would steer a terminal: names come from files and networks."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text))


def print_json(value: object) -> None:
    """Print a value, or a list of records, as JSON."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their headings; numbers and sizes come as text."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for row in cells:
            table.add_row(*row)
        Console(markup=False, highlight=False, emoji=False).print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in (list(columns), *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Print names with their values, one a line."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        print(f"{name.ljust(width)}  {clean(value)}".rstrip())


def say(text: str) -> None:
    """Print a line for people. Where nobody can read it any more, there is nobody to tell."""
    with contextlib.suppress(OSError):
        print(clean(text), file=sys.stderr, flush=True)


def size(count: object) -> str:
    """Return bytes for people; a dash for none."""
    return format_bytes(count) if isinstance(count, int) and count > 0 else "-"


def count_of(number: object) -> str:
    """Return a number of parameters or tokens for people: `135M`, `8192`; a dash for none."""
    if not isinstance(number, int) or number <= 0:
        return "-"
    for unit, divisor in (("B", 10**9), ("M", 10**6)):
        if number >= divisor:
            return f"{number / divisor:.1f}".removesuffix(".0") + unit
    return str(number)


def duration(seconds: object) -> str:
    """Return a duration for people: `12 s`, `5 min`, `3 h 20 min`; a dash for none."""
    if not isinstance(seconds, int | float):
        return "-"
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours >= 48:
        return f"{hours // 24} days"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


class Bars:
    """Progress of named things on standard error. Close it, or use it in a `with` statement."""

    def __init__(self) -> None:
        """Show nothing yet: rich is imported with the first bar."""
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> "Bars":  # noqa: PYI034 - never subclassed
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bars."""
        self.close()

    def show(self, key: str, label: str, share: float, detail: str = "") -> None:
        """Show how far something is: `share` from 0 to 1."""
        if sys.stderr.isatty():
            self._bar(key, label, share, detail)
        elif share >= self._told.get(key, -1.0) + PLAIN_STEP:
            self._told[key] = share
            say(f"{label} {share:.0%} {detail}".rstrip())

    def done(self, key: str) -> None:
        """Forget something that is finished."""
        self._told.pop(key, None)
        task = self._tasks.pop(key, None)
        if task is not None and self._progress is not None:
            self._progress.remove_task(task)
        if not self._tasks:
            self.close()

    def close(self) -> None:
        """Remove all bars from the terminal."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._tasks.clear()

    def _bar(self, key: str, label: str, share: float, detail: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(clean(label), total=1.0, detail=detail)
        self._progress.update(self._tasks[key], completed=share, description=clean(label), detail=clean(detail))


def download_detail(done_bytes: int, total_bytes: int) -> str:
    """Return `41 MB of 98 MB`."""
    return f"{format_bytes(done_bytes)} of {format_bytes(total_bytes)}" if total_bytes else format_bytes(done_bytes)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
