"""On which line a value of a TOML or JSON text stands: the parsers do not tell.

Owns finding places for messages. Decides nothing: a place that is not found is told without its line. Works on text
that its parser has accepted already, so it may be simple. Places are written `models[1].engine.threads`.
"""

import json
import re
from dataclasses import dataclass, field

_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_ASSIGNED = re.compile(rf"\s*({_DOTTED})\s*=\s*(.*)")
_FENCES = ('"""', "'''")
_JSON_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+|\n')


def child(place: str, key: str | int) -> str:
    """Return the place of a key or of an item below a place."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    return f"{place}.{key}" if place else key


def parent(place: str) -> str:
    """Return the place that contains a place; empty for the top."""
    if place.endswith("]"):
        return place.rpartition("[")[0]
    return place.rpartition(".")[0]


def toml_lines(text: str) -> dict[str, int]:
    """Return the line of each table and each key that stands at the beginning of a line, from 1."""
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table, fence = "", ""
    for number, line in enumerate(text.splitlines(), start=1):
        if fence:
            fence = "" if line.count(fence) % 2 else fence
            continue
        if (header := _HEADER.match(line)) is not None:
            table = _table(_parts(header[2]), counts, is_new_item=header[1] == "[[")
            found.setdefault(table, number)
        elif (assigned := _ASSIGNED.match(line)) is not None:
            place = table
            for part in _parts(assigned[1]):
                place = child(place, part)
                found.setdefault(place, number)
            fence = next((mark for mark in _FENCES if assigned[2].count(mark) % 2), "")
    for place in tuple(found):  # `[[models]]` is said of the first one
        found.setdefault(parent(place), found[place])
    found.pop("", None)
    return found


def _table(parts: list[str], counts: dict[str, int], *, is_new_item: bool) -> str:
    """Return the place of a header; `[models.engine]` is of the newest of `[[models]]`."""
    place = ""
    for index, part in enumerate(parts):
        place = child(place, part)
        is_last = index == len(parts) - 1
        if is_last and is_new_item:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = child(place, counts[place])
    return place


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_KEY, dotted)]


@dataclass(slots=True)
class _Level:
    """An object or array that is open, and where in it we are."""

    place: str
    is_array: bool
    index: int = 0
    key: str = ""
    expects_key: bool = field(default=True)

    @property
    def here(self) -> str:
        """Return the place of the value that comes next."""
        return child(self.place, self.index if self.is_array else self.key)


def json_lines(text: str) -> dict[str, int]:
    """Return the line of each key and each item of an array, from 1."""
    found: dict[str, int] = {}
    open_levels: list[_Level] = []
    number = 1
    for piece in _JSON_PIECE.findall(text):
        level = open_levels[-1] if open_levels else None
        if piece == "\n":
            number += 1
        elif piece in "}]":
            open_levels.pop()
        elif piece == ",":
            assert level is not None  # noqa: S101 - the parser has accepted the text
            level.index, level.expects_key = level.index + 1, True
        elif piece == ":":
            assert level is not None  # noqa: S101 - as above
            level.expects_key = False
        elif level is not None and not level.is_array and level.expects_key:
            level.key = json.loads(piece)
            found.setdefault(level.here, number)
        else:
            if level is not None and level.is_array:
                found.setdefault(level.here, number)
            if piece in "{[":
                open_levels.append(_Level(place=level.here if level else "", is_array=piece == "["))
    return found
