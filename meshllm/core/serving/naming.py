"""The names of all models of the mesh, collected from what members say.

Owns the count of who gives which name to which model, and the index that was made of it. Decides whose
names count: those of living members that may host. Doesn't know which model answers.

Invariant: an index is made anew only when a name appears for the first time or goes for good, however
often members speak.
"""

from collections import Counter

from meshllm.core.announcement import Announcement
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.known_models import aliases_of
from meshllm.core.names import RESERVED_NAMES, GivenName, NameIndex

_NO_NAMES: frozenset[GivenName] = frozenset()


class Naming:
    """Names by node, and the newest index of them all."""

    def __init__(self) -> None:
        """Know no names."""
        self._said: dict[NodeId, object] = {}
        """What each node's names were read from: most of what a node says is about other things."""
        self._of: dict[NodeId, frozenset[GivenName]] = {}
        self._given: Counter[GivenName] = Counter()
        self._local: NameIndex | None = None
        self._index = NameIndex(())
        self._is_stale = True

    def hear(self, node: NodeId, said: Announcement | None) -> None:
        """Take what a node says now; None for one whose names count no more."""
        source = _source(said) if said is not None else None
        if source == self._said.get(node):
            return
        old = self._of.pop(node, _NO_NAMES)
        new = _NO_NAMES
        self._said.pop(node, None)
        if said is not None:
            new = self._of[node] = _names_in(said)
            self._said[node] = source
        for name in old - new:
            self._given[name] -= 1
            if not self._given[name]:
                del self._given[name]
                self._is_stale = True
        for name in new - old:
            self._is_stale |= name not in self._given
            self._given[name] += 1

    def index(self, local: NameIndex) -> NameIndex:
        """Return the index of these names and all others; the same object as long as it would hold the same."""
        if self._is_stale or local is not self._local:
            self._is_stale, self._local = False, local
            self._index = self._including(local)
        return self._index

    def _including(self, local: NameIndex) -> NameIndex:
        models = sorted({given.model for given in self._given})
        aliases: dict[str, list[ModelId]] = aliases_of(models)
        for given in self._given:
            if not _is_version(given) and given.name != given.model:
                aliases.setdefault(given.name, []).append(given.model)
        return local.including(models, aliases, filter(_is_version, self._given))


def _source(said: Announcement) -> object:
    return (said.models_on_disk, said.requested, said.names, tuple([one.model for one in said.serving]))


def _is_version(given: GivenName) -> bool:
    """Tell whether a name is one of the versions of an id; `id@stable` is an alias of one."""
    return bool(given.version) and "@" not in given.name


def _names_in(said: Announcement) -> frozenset[GivenName]:
    """Return the names that a node gives: ids of what it has, serves or wants, aliases, versions."""
    ids = [*(one.model for one in said.models_on_disk), *(one.model for one in said.serving)]
    found = {GivenName(model, "", model) for model in ids}
    found |= {GivenName(name, "", one.model) for one in said.requested if one.model for name in (one.name, one.model)}
    found |= {GivenName(one.name, one.version, one.model) for one in said.names}
    return frozenset(one for one in found if one.name not in RESERVED_NAMES)
