"""`mesh-llm status --watch`: the node as it is now, until Ctrl-C.

Owns the screen: rich and live in a terminal, text or JSON lines with each change in a pipe. Decides when a node that
is gone is tried again: what was last known stays, with its age. Doesn't know what a status document says.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from meshllm.cli.api_client import ApiClient, NodeLostError, NoNodeError
from meshllm.cli.followed import Followed, events
from meshllm.cli.render import Table, clean, duration, print_facts, print_table
from meshllm.cli.rows import Document, items, text
from meshllm.core.limits import KEEP_ALIVE_COMMENT_S

if TYPE_CHECKING:
    from rich.console import RenderableType

Facts = Callable[[Document], list[tuple[str, object]]]
Tables = Callable[[Document], list[Table]]
Warnings = Callable[[Document], Iterable[str]]

SILENCE_S: Final = 2.5 * KEEP_ALIVE_COMMENT_S
"""Two signs of life that did not come mean that the node is gone."""
RETRY_S = 1.0
DRAWN_PER_S: Final = 4
_MISSING: Final = ("suspect", "dead")


class Watched:
    """What is known of the node, for the one who reads and the one who draws."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing."""
        self._clock = clock
        self._lock = threading.Lock()
        self._followed = Followed()
        self._heard_s = clock()
        self._problem = ""

    @property
    def event_id(self) -> str:
        """Return where to go on."""
        return self._followed.event_id

    @property
    def is_known(self) -> bool:
        """Tell whether there is something to show."""
        return self._followed.is_known

    def take(self, name: str, document: Document, event_id: str) -> None:
        """Take an event, or a sign of life without a name."""
        with self._lock:
            self._heard_s, self._problem = self._clock(), ""
            self._followed.take(name, document, event_id, self._heard_s)

    def lost(self, problem: str) -> None:
        """Note why nothing is heard."""
        with self._lock:
            self._problem = problem

    def shown(self) -> tuple[dict[str, object], str]:
        """Return the document of this moment, and what is wrong; the document of the last word where that is lost."""
        with self._lock:
            now_s = self._clock()
            if not self._problem:
                return self._followed.document(now_s), ""
            silent_s = duration(now_s - self._heard_s)
            return self._followed.document(self._heard_s), f"{self._problem}; this is from {silent_s} ago"


def watch(client: ApiClient, *, facts: Facts, tables: Tables, warnings: Warnings, as_json: bool) -> None:
    """Show the node until Ctrl-C. Raises CommandError when it was never there, or refuses."""
    watched = Watched()
    if sys.stdout.isatty() and not as_json:
        with _screen(lambda: picture(watched, facts, tables, warnings)):
            for _ in _news(client, watched):
                pass
        return
    for is_news in _news(client, watched):
        if is_news:
            document, _ = watched.shown()
            _print(document, facts, tables, as_json=as_json)


def _print(document: Document, facts: Facts, tables: Tables, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, ensure_ascii=False), flush=True)
        return
    print_facts(facts(document))
    for columns, rows in tables(document):
        print()
        print_table(columns, rows)
    print(flush=True)


def _news(client: ApiClient, watched: Watched) -> Iterator[bool]:
    """Follow the node for ever; yield whether what is known has changed. Raises CommandError."""
    pause = threading.Event()  # nobody sets it: Ctrl-C interrupts the waiting
    while True:
        try:
            headers = {"Last-Event-ID": watched.event_id} if watched.event_id else {}
            with client.lines("GET", "/api/events", timeout_s=SILENCE_S, headers=headers) as lines:
                for name, document, event_id in events(lines):
                    watched.take(name, document, event_id)
                    yield name != ""
            watched.lost("the node closed the connection")
        except (NoNodeError, NodeLostError) as error:
            if not watched.is_known:
                raise
            watched.lost(str(error))
        yield False
        pause.wait(RETRY_S)


@contextmanager
def _screen(draw: Callable[[], "RenderableType"]) -> Iterator[None]:
    """Draw again and again on the whole screen, and leave it as it was."""
    from rich.live import Live

    with Live(get_renderable=draw, screen=True, refresh_per_second=DRAWN_PER_S):
        yield


def picture(watched: Watched, facts: Facts, tables: Tables, warnings: Warnings) -> "RenderableType":
    """Return what the screen shows."""
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    document, problem = watched.shown()
    if not watched.is_known:
        return Text("connecting…")
    grid = Grid.grid(padding=(0, 2))
    for name, value in facts(document):
        grid.add_row(Text(name, style="bold"), Text(clean(value)))
    parts: list[RenderableType] = [Text(problem, style="bold red")] if problem else []
    parts.append(grid)
    for columns, rows in tables(document | {"members": _missing_first(document)}):
        drawn = Grid(*columns, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            drawn.add_row(*(Text(clean(cell)) for cell in row))
        parts += [Text(""), drawn]
    parts += [Text(f"warning: {clean(warning)}", style="yellow") for warning in warnings(document)]
    return Group(*parts)


def _missing_first(document: Document) -> list[Document]:
    """Return the members with those that are not reached behind this node: what is lower may not be on the screen."""
    members = items(document, "members")
    return sorted(members, key=lambda one: (one.get("is_me") is not True, text(one, "state") not in _MISSING))
