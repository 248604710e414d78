"""From the name that people ask for to the model that it means.

Owns the order of resolution: exact id, alias, unique case-insensitive stem. Doesn't know whether the
model is loaded. Names that are reserved (`default`, `auto`) never name a model.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshllm.core.ids import ModelId
from meshllm.core.quantization import name_of_level

DEFAULT_NAMES = frozenset({"", "default"})
"""Names that stand for the default register; so does none at all."""
AUTO_NAME = "auto"
RESERVED_NAMES = frozenset({"default", AUTO_NAME})
NEAR_NAMES_MAX = 3


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing has that name; `near` are the closest that exist."""

    asked: str
    near: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Several models have that name."""

    asked: str
    candidates: tuple[ModelId, ...]


class NameIndex:
    """Names of a fixed set of models, for many look-ups. Immutable."""

    __slots__ = ("_aliases", "_exact", "_folded")

    def __init__(self, models: Iterable[ModelId], aliases: Mapping[str, Iterable[ModelId]] | None = None) -> None:
        """Index models by id, by alias and by folded stem. An alias may name several: ambiguous."""
        self._exact = {str(model): model for model in models}
        self._aliases = {alias: tuple(sorted(set(targets))) for alias, targets in (aliases or {}).items()}
        self._folded: dict[str, tuple[ModelId, ...]] = {}
        for model in self._exact.values():
            self._fold(model, model)
        for alias, targets in self._aliases.items():
            for target in targets:
                self._fold(alias, target)

    def _fold(self, name: str, model: ModelId) -> None:
        known = self._folded.get(name.casefold(), ())
        if model not in known:
            self._folded[name.casefold()] = tuple(sorted((*known, model)))

    def including(self, models: Iterable[ModelId], aliases: Mapping[str, Iterable[ModelId]]) -> "NameIndex":
        """Return an index of these models and more; this very one if there are no more."""
        more = [model for model in models if model not in self._exact]
        if not more:
            return self
        merged = {alias: list(targets) for alias, targets in self._aliases.items()}
        for alias, targets in aliases.items():
            merged.setdefault(alias, []).extend(targets)
        return NameIndex([*self._exact.values(), *more], merged)

    def resolve(self, asked: str) -> ModelId | Unknown | Ambiguous:
        """Return the model that a name means, or why it means none."""
        if (exact := self._exact.get(asked)) is not None:
            return exact
        for candidates in (
            self._aliases.get(asked, ()), self._folded.get(asked.casefold(), ()), self._prefixed(asked),
            self._with_level(asked),
        ):  # fmt: skip
            if len(candidates) == 1:
                return candidates[0]
            if candidates:
                return Ambiguous(asked, candidates)
        return Unknown(asked, self._near(asked))

    def _prefixed(self, asked: str) -> tuple[ModelId, ...]:
        """Return the models whose id is the name plus a quantisation: `Qwen2.5-3B-Instruct`."""
        if not asked:
            return ()
        heads = (f"{asked.casefold()}-", f"{asked.casefold()}.")
        return tuple(sorted(model for model in self._exact.values() if model.casefold().startswith(heads)))

    def _with_level(self, asked: str) -> tuple[ModelId, ...]:
        """Return the model that a name with a quantisation means: `Qwen2.5-3B-Instruct:Q4_K_M`, or `:4` for bits."""
        found = name_of_level(asked, self._folded)
        return self._folded[found] if found is not None else ()

    def _near(self, asked: str) -> tuple[str, ...]:
        names = {name.casefold(): name for name in (*self._exact, *self._aliases)}
        close = difflib.get_close_matches(asked.casefold()[:64], names, n=NEAR_NAMES_MAX, cutoff=0.4)
        return tuple(names[folded] for folded in close)

    def aliases_of(self, model: ModelId) -> tuple[str, ...]:
        """Return the aliases that name a model, sorted."""
        return tuple(sorted(alias for alias, targets in self._aliases.items() if model in targets))
