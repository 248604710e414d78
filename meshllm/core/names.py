"""From the name that people ask for to the model that it means.

Owns the order of resolution: registered version, exact id, alias, unique case-insensitive stem. Doesn't
know whether the model is loaded, nor which files are the same. Names that are reserved (`default`,
`auto`) never name a model.

What only a name that is no exact one needs is made with the first such name: most indexes never see one.
"""

import difflib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from itertools import islice, pairwise

from meshllm.core.ids import ModelId
from meshllm.core.quantization import name_of_level

DEFAULT_NAMES = frozenset({"", "default"})
"""Names that stand for the default register; so does none at all."""
AUTO_NAME = "auto"
RESERVED_NAMES = frozenset({"default", AUTO_NAME})
NEAR_NAMES_MAX = 3
STABLE = "stable"
"""The alias among the versions of an id that decides which of them the bare id means."""
_FIRST_VERSION = "1.0.0"
"""What a file is whose version nobody registered."""
_NEAR_SEARCHED = 2_048
_NEAR_COMPARED = 48
_NEAR_CHARS = 64
_NOTHING_REMEMBERED = 256


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


@dataclass(frozen=True, slots=True)
class GivenName:
    """A name that somebody gives to a model: an alias, or with a version one of those that `name@version` chooses."""

    name: str
    version: str
    """Empty for an alias."""
    model: ModelId


class NameIndex:
    """Names of a fixed set of models, for many look-ups. Immutable, but for what it remembers of its own answers."""

    def __init__(
        self, models: Iterable[ModelId], aliases: Mapping[str, Iterable[ModelId]] | None = None,
        versions: Iterable[GivenName] = (),
    ) -> None:  # fmt: skip
        """Index models by id, by alias, by version and by folded stem. An alias may name several: ambiguous."""
        self._exact = {str(model): model for model in models}
        self._aliases = {alias: tuple(sorted(set(targets))) for alias, targets in (aliases or {}).items()}
        self._versions: dict[str, dict[str, tuple[ModelId, ...]]] = {}
        for one in versions:
            known = self._versions.setdefault(one.name.casefold(), {})
            known[one.version] = tuple(sorted({*known.get(one.version, ()), one.model}))
        self._unknown: dict[str, Unknown] = {}

    def including(
        self, models: Iterable[ModelId], aliases: Mapping[str, Iterable[ModelId]], versions: Iterable[GivenName] = ()
    ) -> "NameIndex":
        """Return an index of what this one has and more; this very one if there is no more."""
        more = [model for model in models if model not in self._exact]
        merged = {alias: set(targets) for alias, targets in self._aliases.items()}
        for alias, targets in aliases.items():
            merged.setdefault(alias, set()).update(targets)
        added = tuple(versions)
        if not more and not added and all(len(merged[alias]) == len(self._aliases.get(alias, ())) for alias in merged):
            return self
        return NameIndex([*self._exact.values(), *more], merged, [*self._all_versions(), *added])

    def _all_versions(self) -> Iterator[GivenName]:
        for name, versions in self._versions.items():
            for version, models in versions.items():
                yield from (GivenName(name, version, model) for model in models)

    @cached_property
    def _folded(self) -> dict[str, tuple[ModelId, ...]]:
        folded: dict[str, set[ModelId]] = {}
        for model in self._exact.values():
            folded.setdefault(model.casefold(), set()).add(model)
        for alias, targets in self._aliases.items():
            folded.setdefault(alias.casefold(), set()).update(targets)
        return {name: tuple(sorted(models)) for name, models in folded.items()}

    @cached_property
    def _sorted(self) -> list[tuple[str, ModelId]]:
        return sorted((model.casefold(), model) for model in self._exact.values())

    @cached_property
    def _pairs(self) -> list[tuple[frozenset[str], str]]:
        """Return names with the pairs of letters in each, folded: what makes two names look alike."""
        names = islice((*self._exact, *self._aliases), _NEAR_SEARCHED)
        return [(_pairs_of(name.casefold()), name) for name in names]

    def resolve(self, asked: str) -> ModelId | Unknown | Ambiguous:
        """Return the model that a name means, or why it means none."""
        versions = self._versions.get(asked.casefold()) if self._versions else None
        if versions is not None:
            return _one_of(asked, self._aliases.get(f"{asked}@{STABLE}") or versions[max(versions, key=_order)])
        if (exact := self._exact.get(asked)) is not None:
            return exact
        for candidates in (
            self._aliases.get(asked, ()), self._folded.get(asked.casefold(), ()), self._prefixed(asked),
            self._with_level(asked),
        ):  # fmt: skip
            if candidates:
                return _one_of(asked, candidates)
        name, _, version = asked.partition("@")
        if version and (candidates := self._versions.get(name.casefold(), {}).get(version, ())):
            return _one_of(asked, candidates)
        if version == _FIRST_VERSION and name in self._exact:
            return self._exact[name]
        return self._nothing(asked)

    def meant_by(self, asked: str) -> tuple[ModelId, ...]:
        """Return every model that a name may mean: all versions of an id, all candidates."""
        versions = self._versions.get(asked.casefold(), {})
        found = self.resolve(asked)
        direct = () if isinstance(found, Unknown) else found.candidates if isinstance(found, Ambiguous) else (found,)
        exact = self._exact.get(asked)
        of_id = (exact,) if exact is not None else ()
        return tuple(dict.fromkeys([*direct, *of_id, *(model for models in versions.values() for model in models)]))

    def _prefixed(self, asked: str) -> tuple[ModelId, ...]:
        """Return the models whose id is the name plus a quantisation: `Qwen2.5-3B-Instruct`."""
        if not asked:
            return ()
        found = []
        for head in (f"{asked.casefold()}-", f"{asked.casefold()}."):
            at = bisect_left(self._sorted, (head,))
            while at < len(self._sorted) and self._sorted[at][0].startswith(head):
                found.append(self._sorted[at][1])
                at += 1
        return tuple(sorted(found))

    def _nothing(self, asked: str) -> Unknown:
        """Say that nothing has a name; a client that repeats its mistake costs the search once."""
        known = self._unknown.get(asked)
        if known is None:
            known = Unknown(asked, self._near(asked))
            if len(self._unknown) < _NOTHING_REMEMBERED:
                self._unknown[asked] = known
        return known

    def _with_level(self, asked: str) -> tuple[ModelId, ...]:
        """Return the model that a name with a quantisation means: `Qwen2.5-3B-Instruct:Q4_K_M`, or `:4` for bits."""
        found = name_of_level(asked, self._folded)
        return self._folded[found] if found is not None else ()

    def _near(self, asked: str) -> tuple[str, ...]:
        folded = asked.casefold()[:_NEAR_CHARS]
        pairs = _pairs_of(folded)
        likely = nlargest(_NEAR_COMPARED, ((len(pairs & has), name) for has, name in self._pairs))
        names = {name.casefold(): name for _, name in likely}
        close = difflib.get_close_matches(folded, names, n=NEAR_NAMES_MAX, cutoff=0.4)
        return tuple(names[name] for name in close)

    def aliases_of(self, model: ModelId) -> tuple[str, ...]:
        """Return the aliases that name a model, sorted."""
        return tuple(sorted(alias for alias, targets in self._aliases.items() if model in targets))


def _one_of(asked: str, candidates: tuple[ModelId, ...]) -> ModelId | Ambiguous:
    return candidates[0] if len(candidates) == 1 else Ambiguous(asked, candidates)


def _pairs_of(text: str) -> frozenset[str]:
    return frozenset(map("".join, pairwise(text)))


def _order(version: str) -> tuple[bool, tuple[int, ...], str]:
    """Return what orders versions: by their numbers; what has none comes first."""
    parts = version.split(".")
    if all(part.isdecimal() for part in parts):
        return (True, tuple(map(int, parts)), "")
    return (False, (), version)
