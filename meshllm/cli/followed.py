"""The node's status document as it is kept by somebody who follows its events.

Owns putting changes into the document, and how durations in it grow while nothing is said of them. Doesn't talk to
anybody, and knows of the document no more than that its lists have entries with an `id`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshllm.cli.rows import Document, items, part, text, texts

SECTIONS: Final = ("members", "models", "mesh_models")
AGES: Final = frozenset({"uptime_s", "for_s", "heard_s", "ready_for_s"})
COUNTDOWNS: Final = frozenset({"retry_in_s"})


class Followed:
    """A status document that changes arrive for. Times are seconds of one clock, the caller's."""

    def __init__(self) -> None:
        """Know nothing."""
        self.event_id = ""
        """Of the newest event: who names it later is told only what changed since."""
        self._facts: dict[str, tuple[object, float]] = {}
        self._entries: dict[str, dict[str, tuple[Document, float]]] = {name: {} for name in SECTIONS}
        self._order: dict[str, list[str]] = {name: [] for name in SECTIONS}

    @property
    def is_known(self) -> bool:
        """Tell whether there is a document."""
        return bool(self._facts)

    def take(self, name: str, document: Document, event_id: str, at_s: float) -> None:
        """Take an event: `status`, the whole document, or `changes`. Others are left out."""
        if name == "status":
            facts = {key: value for key, value in document.items() if key not in SECTIONS}
            entries = {section: list(items(document, section)) for section in SECTIONS}
            order = {section: [text(entry, "id") for entry in entries[section]] for section in SECTIONS}
        elif name == "changes":
            facts, said = dict(part(document, "facts")), part(document, "order")
            entries = {section: list(items(part(document, "entries"), section)) for section in SECTIONS}
            order = {section: texts(said, section) for section in SECTIONS if said.get(section) is not None}
        else:
            return
        self.event_id = event_id
        self._facts |= {key: (value, at_s) for key, value in facts.items()}
        for section in SECTIONS:
            self._entries[section] |= {text(entry, "id"): (entry, at_s) for entry in entries[section]}
            if section in order:
                self._order[section] = order[section]
                self._entries[section] = {key: self._entries[section][key] for key in order[section]}

    def document(self, now_s: float) -> dict[str, object]:
        """Return the document of this moment."""
        facts = {key: _aged(value, now_s - at_s) for key, (value, at_s) in self._facts.items()}
        lists = {
            section: [_aged(entry, now_s - at_s) for entry, at_s in map(self._entries[section].__getitem__, order)]
            for section, order in self._order.items()
        }
        return {**facts, **lists}


def events(lines: Iterable[str]) -> Iterator[tuple[str, Document, str]]:
    """Yield each server-sent event as its name, its document and its id; and a nameless one for a sign of life."""
    name, data, event_id = "", "", ""
    for line in lines:
        field, _, value = line.partition(": ")
        match field:
            case "event":
                name = value
            case "data":
                data = value
            case "id":
                event_id = value
            case _ if data:
                yield name, _parsed(data), event_id
                name, data = "", ""
            case _ if not line:
                yield "", {}, ""
            case _:
                pass


def _aged(value: object, elapsed_s: float) -> object:
    """Return an object of the document with its durations so much later."""
    if not isinstance(value, Mapping):
        return value
    grown = {key: _later(value[key], elapsed_s) for key in AGES & value.keys()}
    shrunk = {key: _later(value[key], -elapsed_s) for key in COUNTDOWNS & value.keys()}
    return {**value, **grown, **shrunk} if grown or shrunk else value


def _later(duration: object, elapsed_s: float) -> object:
    return round(max(duration + elapsed_s, 0.0), 1) if isinstance(duration, int | float) else duration


def _parsed(data: str) -> Document:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
