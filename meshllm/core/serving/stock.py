"""What the mesh has of each model: who holds its file, who serves it, who wants it, who waits for it.

Owns an index over the statements of live members, and the memory of what dead ones served. Decides
which models lack hosts (`needs`); which node should help is `assignment`'s. Doesn't know how statements
travel, nor this node's own models beyond what it says of them.

Kept up to date change by change: in a mesh of two hundred, one member's news costs that member's models.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import IntEnum

from meshllm.core.announcement import Announcement, ModelOrder, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.known_models import CATALOG_FILES
from meshllm.core.limits import ORPHAN_S, ORPHANS
from meshllm.core.serving.assignment import Need, Urgency
from meshllm.core.serving.sites import may_host
from meshllm.core.serving.stock_entry import Entry, is_source, wished

Newest = Callable[[ModelId], ModelOrder | None]
"""The newest order about a model that counts."""


_FILLS_NO_GAP = frozenset({ServingState.DRAINING, ServingState.FAILED})


class Change(IntEnum):
    """What a member's news is to this node."""

    NOTHING = 0
    NUMBERS = 1
    """Memory, load or demand: worth a look some time."""
    MODELS = 2
    """Somebody has, serves or wants something else than before."""


class Stock:
    """All models that live members speak of."""

    def __init__(self) -> None:
        """Know of none."""
        self.entries: dict[ModelId, Entry] = {}
        self._said: dict[NodeId, Announcement] = {}
        self._orphaned: set[ModelId] = set()
        self.touched: set[ModelId] = set()
        """Models of which something changed since somebody emptied this."""

    def __len__(self) -> int:
        """Return how many live members are known, this node among them."""
        return len(self._said)

    # -- what members say ------------------------------------------------------------------------------

    def put(self, said: Announcement) -> Change:
        """Take a live member's statement; tell what kind of news it was."""
        old = self._said.get(said.node)
        if old is said:
            return Change.NOTHING
        self._said[said.node] = said
        if old is None:
            for entry in self._orphans():
                if entry.orphaned_by == said.node:
                    self._unorphan(entry)  # it has come back, and looks after its models itself
        elif _numbers(old) == _numbers(said) and _is_same(old, said):
            return Change.NOTHING
        touched = self._clear(old) if old is not None else set()
        touched |= self._add(said)
        self._note_orders(old, said)
        for one in said.serving if self._orphaned else ():
            if one.state is ServingState.READY and one.model in self._orphaned:
                self._unorphan(self.entries[one.model])
        self._renew(touched)
        return Change.NUMBERS if old is not None and _is_same(old, said) else Change.MODELS

    def remove(self, node: NodeId) -> Change:
        """Forget a member that left."""
        old = self._said.pop(node, None)
        if old is None:
            return Change.NOTHING
        self._renew(self._clear(old))
        self._note_orders(old, None)
        return Change.MODELS

    def bury(self, node: NodeId, now_s: float) -> Change:
        """Forget a member that died, but not what it served: others may take that over for a while."""
        old = self._said.get(node)
        if old is None:
            return Change.NOTHING
        for wish in old.requested:
            if is_source(wish, old):
                self.entries[wished(wish)].remembered = wish  # perhaps nobody else knows where its file is
        left = [one.model for one in old.serving if one.model in self.entries and one.state not in _FILLS_NO_GAP]
        for model in left[: max(ORPHANS - len(self._orphaned), 0)]:
            self._orphaned.add(model)
            self.entries[model].orphaned_by, self.entries[model].orphaned_until_s = node, now_s + ORPHAN_S
        self.remove(node)
        return Change.MODELS

    def expire(self, now_s: float) -> None:
        """Let go of what dead members served long ago."""
        late = [entry for entry in self._orphans() if entry.orphaned_until_s <= now_s]
        for entry in late:
            self._unorphan(entry)
        self._renew({entry.model for entry in late})

    def next_s(self) -> float | None:
        """Return when something is to be let go of."""
        return min((entry.orphaned_until_s for entry in self._orphans()), default=None)

    def said(self, node: NodeId) -> Announcement | None:
        """Return the newest statement of a live member."""
        return self._said.get(node)

    def _note_orders(self, old: Announcement | None, new: Announcement | None) -> None:
        before, after = old.orders if old is not None else (), new.orders if new is not None else ()
        if before != after or (old is not None and new is not None and old.rights != new.rights):
            self.touched |= {order.model for order in (*before, *after)}

    def everybody(self) -> list[Announcement]:
        """Return the newest statements of all live members, in order."""
        return [said for _, said in sorted(self._said.items())]

    def _add(self, said: Announcement) -> set[ModelId]:
        node, touched = said.node, set[ModelId]()
        for file in said.models_on_disk if may_host(said) else ():
            self._entry(file.model, touched).files[node] = file
        for one in said.serving if may_host(said) else ():
            if one.state is not ServingState.FAILED:
                self._entry(one.model, touched).serving[node] = one
        for wish in said.requested:
            entry = self._entry(wished(wish), touched)
            entry.wishes[node] = wish
            if is_source(wish, said):
                entry.sources[node] = wish
        for model in said.waiting:
            self._entry(model, touched).waiting.add(node)
        return touched

    def _clear(self, said: Announcement) -> set[ModelId]:
        node, touched = said.node, set[ModelId]()
        for model in (
            *(file.model for file in said.models_on_disk), *(one.model for one in said.serving),
            *(wished(wish) for wish in said.requested), *said.waiting,
        ):  # fmt: skip
            entry = self._entry(model, touched)
            entry.files.pop(node, None)
            entry.serving.pop(node, None)
            entry.wishes.pop(node, None)
            entry.sources.pop(node, None)
            entry.waiting.discard(node)
        return touched

    def _entry(self, model: ModelId, touched: set[ModelId]) -> Entry:
        touched.add(model)
        entry = self.entries.get(model)
        if entry is None:
            entry = self.entries[model] = Entry(model)
        return entry

    def _renew(self, touched: set[ModelId]) -> None:
        self.touched |= touched
        for model in touched & self.entries.keys():
            if not self.entries[model].renew():
                del self.entries[model]

    def _orphans(self) -> list[Entry]:
        return [self.entries[model] for model in sorted(self._orphaned)]

    def _unorphan(self, entry: Entry) -> None:
        entry.orphaned_by = None
        self.touched.add(entry.model)
        self._orphaned.discard(entry.model)
        if not entry.renew():
            del self.entries[entry.model]

    # -- what follows from it ------------------------------------------------------------------------------

    def needs(
        self, newest: Newest, demand: Mapping[ModelId, float], hot: Collection[ModelId], *, least_bytes: int
    ) -> list[Need]:
        """Return every model with the hosts that it has and should have.

        `hot` ones should have one more than they have; smaller files than `least_bytes` outside the catalogue
        are toys that nobody serves unasked.
        """
        same: dict[str, list[Entry]] = {}
        for entry in self.entries.values():
            for digest in entry.digests:
                same.setdefault(digest, []).append(entry)
        return [
            self._need(entry, _twins(entry, same), newest(entry.model), demand.get(entry.model, 0.0), hot, least_bytes)
            for entry in self.entries.values()
        ]

    def _need(
        self, entry: Entry, twins: list[Entry], order: ModelOrder | None, demand: float, hot: Collection[ModelId],
        least_bytes: int,
    ) -> Need:  # fmt: skip
        by_name = entry.hosts
        hosts = by_name.union(*(twin.hosts for twin in twins)) if twins else by_name
        is_cold = is_ordered_out(entry, order)
        is_held = is_cold and order is not None and order.hold
        urgency, places = Urgency.LYING, 0
        if entry.waiting and not by_name and not is_held:
            urgency, places, hosts = Urgency.WAITING, 1, by_name  # it was asked for by this name
        elif not is_cold and (entry.floor or entry.orphaned_by is not None or entry.model in hot):
            hottest = len(entry.ready) + 1 if entry.model in hot else 0
            urgency, places = Urgency.WANTED, max(entry.floor, hottest, int(entry.orphaned_by is not None))
        elif not is_cold and not entry.wishes and _is_first(entry, twins) and _is_no_toy(entry, least_bytes):
            places = 1
        return Need(
            model=entry.model, urgency=urgency, places=places, hosts=hosts, holders=entry.holders,
            size_bytes=entry.size_bytes, reference=entry.reference, demand=demand,
            is_hot=entry.model in hot and len(hosts) >= entry.floor, is_open=places > 0 and _is_first(entry, twins),
        )  # fmt: skip


def is_ordered_out(entry: Entry, order: ModelOrder | None) -> bool:
    """Tell whether somebody ordered that a model is not served, and nobody has asked for it since."""
    if order is None or order.verb is not Verb.UNLOAD:
        return False
    return not any(one.order >= order.version for one in entry.serving.values())


def _twins(entry: Entry, same: Mapping[str, list[Entry]]) -> list[Entry]:
    """Return the other names of a model's files."""
    return [twin for digest in entry.digests for twin in same[digest] if twin is not entry]


def _is_first(entry: Entry, twins: Iterable[Entry]) -> bool:
    """Tell whether a model's name stands for its file, which may have several."""
    return all(entry.model < twin.model for twin in twins if twin.files or twin.serving)


def _is_no_toy(entry: Entry, least_bytes: int) -> bool:
    return bool(entry.files) and (entry.model in CATALOG_FILES or entry.size_bytes >= least_bytes)


def _is_same(old: Announcement, new: Announcement) -> bool:
    """Tell whether two statements of a node say the same of models, apart from numbers."""
    return (
        old.waiting == new.waiting and old.requested == new.requested and old.models_on_disk == new.models_on_disk
        and (old.serving == new.serving or _states(old) == _states(new))
        and old.rights == new.rights and old.role == new.role and old.orders == new.orders
        and old.fills_gaps == new.fills_gaps and old.downloads == new.downloads
    )  # fmt: skip


def _states(said: Announcement) -> list[tuple[object, ...]]:
    return [(one.model, one.digest, one.state, one.is_assigned, one.order) for one in said.serving]


def _numbers(said: Announcement) -> tuple[object, ...]:
    return said.resources, said.serving, said.demand
