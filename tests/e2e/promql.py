"""Which series an expression of a dashboard asks for, as far as a test needs that: names, label matchers, groupings."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.samples import Sample

_SELECTOR = re.compile(r"\b(?P<name>(?:meshllm|nopenai)_[a-z0-9_]+)(?:\{(?P<labels>[^}]*)\})?")
_MATCHER = re.compile(r'\s*(?P<label>[a-z_]+)\s*(?P<how>=~|!~|!=|=)\s*"(?P<value>[^"]*)"\s*(?:,|$)')
_GROUPING = re.compile(r"\bby\s*\((?P<labels>[^)]*)\)")
_LEGEND = re.compile(r"\{\{\s*(?P<label>[a-z_]+)\s*\}\}")


@dataclass(frozen=True)
class Selector:
    """One selector of an expression."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]

    def finds(self, samples: Iterable[Sample]) -> list[Sample]:
        """Return the samples that it selects."""
        return [one for one in samples if one.name == self.name and self._takes(one.labels)]

    def _takes(self, labels: Mapping[str, str]) -> bool:
        return all(_fits(labels.get(label, ""), how, value) for label, how, value in self.matchers)


def _fits(found: str, how: str, value: str) -> bool:
    is_same = re.fullmatch(value, found) is not None if how.endswith("~") else found == value
    return is_same is not how.startswith("!")


def selectors(expression: str) -> list[Selector]:
    """Return the selectors of an expression, every dashboard variable standing for all. Raises ValueError."""
    expression = re.sub(r"\$\w+", ".*", expression)
    found = []
    for one in _SELECTOR.finditer(expression):
        text, matchers = one["labels"] or "", []
        while text.strip():
            matcher = _MATCHER.match(text)
            if matcher is None:
                raise ValueError(f"no matcher: {text!r} in {expression!r}")
            matchers.append((matcher["label"], matcher["how"], matcher["value"]))
            text = text[matcher.end() :]
        found.append(Selector(one["name"], tuple(matchers)))
    if not found:
        raise ValueError(f"nothing is selected by {expression!r}")
    return found


def labels_wanted(expression: str, legend: str) -> set[str]:
    """Return the labels that an expression groups by and its legend shows."""
    groups = [label.strip() for one in _GROUPING.finditer(expression) for label in one["labels"].split(",")]
    return {*groups, *(one["label"] for one in _LEGEND.finditer(legend))} - {""}
