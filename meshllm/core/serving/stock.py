"""What the mesh has of each model: who holds its file, who serves it, who wants it, who waits for it.

Owns an index over the statements of live members, and the memory of what dead ones served. Decides
which models lack hosts (`needs`); which node should help is `assignment`'s. Doesn't know how statements
travel, nor this node's own models beyond what it says of them.

Kept up to date change by change: in a mesh of two hundred, one member's news costs that member's models.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import IntEnum
from typing import TypeVar

from meshllm.core.announcement import Announcement, DiskModel, ModelOrder, ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.known_models import CATALOG_FILES
from meshllm.core.limits import ORPHAN_S, ORPHANS
from meshllm.core.rights import Rights
from meshllm.core.serving.assignment import Need, Urgency
from meshllm.core.serving.demand import MeshDemand
from meshllm.core.serving.sites import may_host, may_yet_host
from meshllm.core.serving.sources import gives_files
from meshllm.core.serving.stock_entry import Entry, is_source, wished

_Said = TypeVar("_Said", DiskModel, ServedModel)
Newest = Callable[[ModelId], ModelOrder | None]
"""The newest order about a model that counts."""


_FILLS_NO_GAP = frozenset({ServingState.DRAINING, ServingState.FAILED})
_NO_DIGESTS: frozenset[str] = frozenset()


class Change(IntEnum):
    """What a member's news is to this node."""

    NOTHING = 0
    DEMAND = 1
    """How much models are asked for there: worth a look some time."""
    NUMBERS = 2
    """Memory or load: the same."""
    MODELS = 3
    """Somebody has, serves or wants something else than before."""


class Stock:
    """All models that live members speak of."""

    def __init__(self) -> None:
        """Know of none."""
        self._entries: dict[ModelId, Entry] = {}
        self._stale: set[ModelId] = set()
        """Models of which somebody spoke since anybody looked: they are made anew when somebody does."""
        self._said: dict[NodeId, Announcement] = {}
        self._everybody: list[Announcement] | None = None
        self._orphaned: set[ModelId] = set()
        self._names: dict[str, set[ModelId]] = {}
        """The models whose entries have a digest, as far as these were looked at."""
        self._needs: dict[ModelId, tuple[object, Need]] = {}
        """What followed last from a model's entry and its twins', and what else that was made of."""
        self._demand = MeshDemand()
        self.starting: set[NodeId] = set()
        """Live members that may host and do not know yet what."""
        self.touched: set[ModelId] = set()
        """Models of which something changed since somebody emptied this."""

    def __len__(self) -> int:
        """Return how many live members are known, this node among them."""
        return len(self._said)

    @property
    def entries(self) -> Mapping[ModelId, Entry]:
        """Return what there is of each model by now."""
        if self._stale:
            stale, self._stale = self._stale, set()
            for model in stale & self._entries.keys():
                self._renew(model)
        return self._entries

    def _renew(self, model: ModelId) -> None:
        """Make anew what follows from an entry, and forget what followed for it and for its twins."""
        entry = self._entries[model]
        before = entry.digests
        is_left = entry.renew()
        after = entry.digests if is_left else _NO_DIGESTS
        self._needs.pop(model, None)
        for digest in before | after:
            for twin in self._names.get(digest, ()):
                self._needs.pop(twin, None)
        for digest in before - after:
            self._names[digest].discard(model)
            if not self._names[digest]:
                del self._names[digest]
        for digest in after - before:
            self._names.setdefault(digest, set()).add(model)
        if not is_left:
            del self._entries[model]

    def has_host(self, model: ModelId) -> bool:
        """Tell whether anybody serves a model or is about to."""
        entry = self._entries.get(model)
        return entry is not None and entry.has_host

    # -- what members say ------------------------------------------------------------------------------

    def put(self, said: Announcement) -> Change:
        """Take a live member's statement; tell what kind of news it was."""
        old = self._said.get(said.node)
        if old is said:
            return Change.NOTHING
        self._said[said.node], self._everybody = said, None
        if may_yet_host(said):
            self.starting.add(said.node)
        else:
            self.starting.discard(said.node)
        is_same = old is not None and _is_same(old, said)
        if old is None:
            for entry in self._orphans():
                if entry.orphaned_by == said.node:
                    self._unorphan(entry)  # it has come back, and looks after its models itself
        elif is_same and _numbers(old) == _numbers(said):
            self._demand.hear(said.node, said.demand)
            return Change.DEMAND if old.demand != said.demand else Change.NOTHING
        self._exchange(said.node, old, said)
        self._demand.hear(said.node, said.demand)
        self._note_orders(old, said)
        for one in said.serving if self._orphaned else ():
            if one.state is ServingState.READY and one.model in self._orphaned:
                self._unorphan(self._entries[one.model])
        return Change.NUMBERS if is_same else Change.MODELS

    def remove(self, node: NodeId) -> Change:
        """Forget a member that left."""
        old = self._said.pop(node, None)
        if old is None:
            return Change.NOTHING
        self._everybody = None
        self.starting.discard(node)
        self._exchange(node, old, None)
        self._demand.hear(node, ())
        self._note_orders(old, None)
        return Change.MODELS

    def bury(self, node: NodeId, now_s: float) -> Change:
        """Forget a member that died, but not what it served: others may take that over for a while."""
        old = self._said.get(node)
        if old is None:
            return Change.NOTHING
        for wish in old.requested:
            if is_source(wish, old):
                self._entry(wished(wish)).remembered = wish  # perhaps nobody else knows where its file is
        left = [one.model for one in old.serving if one.model in self.entries and one.state not in _FILLS_NO_GAP]
        for model in left[: max(ORPHANS - len(self._orphaned), 0)]:
            self._orphaned.add(model)
            entry = self._entry(model)
            entry.orphaned_by, entry.orphaned_until_s = node, now_s + ORPHAN_S
        self.remove(node)
        return Change.MODELS

    def expire(self, now_s: float) -> None:
        """Let go of what dead members served long ago."""
        for entry in self._orphans():
            if entry.orphaned_until_s <= now_s:
                self._unorphan(entry)

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
        if self._everybody is None:
            self._everybody = [self._said[node] for node in sorted(self._said)]
        return self._everybody

    def _exchange(self, node: NodeId, old: Announcement | None, new: Announcement | None) -> None:
        """Put what a member says in place of what it said; most of it is the same as before."""
        for model, file in _news(_files(old), _files(new)).items():
            _put(self._entry(model).files, node, file)
        self._exchange_givers(node, old, new)
        for model, served in _news(_serving(old), _serving(new)).items():
            _put(self._entry(model).serving, node, served)
        if old is None or new is None or old.requested != new.requested or old.rights != new.rights:
            self._exchange_wishes(node, old, new)
        was, now = old.waiting if old is not None else (), new.waiting if new is not None else ()
        if was != now:
            for model in was:
                self._entry(model).waiting.discard(node)
            for model in now:
                self._entry(model).waiting.add(node)

    def _exchange_givers(self, node: NodeId, old: Announcement | None, new: Announcement | None) -> None:
        """Note whether a member gives the files that it has."""
        was = _given(old)
        now = _given(new)
        if was == now:
            return
        for file in was[0]:
            self._entry(file.model).givers.pop(node, None)
        for file in now[0]:
            self._entry(file.model).givers[node] = now[1]

    def _exchange_wishes(self, node: NodeId, old: Announcement | None, new: Announcement | None) -> None:
        for wish in old.requested if old is not None else ():
            entry = self._entry(wished(wish))
            entry.wishes.pop(node, None)
            entry.sources.pop(node, None)
        for wish in new.requested if new is not None else ():
            entry = self._entry(wished(wish))
            entry.wishes[node] = wish
            if new is not None and is_source(wish, new):
                entry.sources[node] = wish

    def _entry(self, model: ModelId) -> Entry:
        """Return the entry of a model of which something is about to change."""
        self.touched.add(model)
        self._stale.add(model)
        entry = self._entries.get(model)
        if entry is None:
            entry = self._entries[model] = Entry(model)
        return entry

    def _orphans(self) -> list[Entry]:
        return [self._entries[model] for model in sorted(self._orphaned)]

    def _unorphan(self, entry: Entry) -> None:
        entry.orphaned_by = None
        self.touched.add(entry.model)
        self._stale.add(entry.model)
        self._orphaned.discard(entry.model)

    # -- what follows from it ------------------------------------------------------------------------------

    def demand(self) -> Mapping[ModelId, float]:
        """Return the requests a minute that enter the whole mesh, by model."""
        return self._demand.sums()

    def needs(
        self, newest: Newest, demand: Mapping[ModelId, float], hot: Collection[ModelId], *, least_bytes: int
    ) -> list[Need]:
        """Return every model with the hosts that it has and should have.

        `hot` ones should have one more than they have; smaller files than `least_bytes` outside the catalogue
        are toys that nobody serves unasked.
        """
        needs = []
        for model, entry in self.entries.items():
            order, rate, is_hot = newest(model), demand.get(model, 0.0), model in hot
            made_of = (order, rate, is_hot, least_bytes)
            known = self._needs.get(model)
            if known is None or known[0] != made_of:
                need = self._need(entry, self._twins(entry), order, rate, least_bytes, is_hot=is_hot)
                known = self._needs[model] = made_of, need
            needs.append(known[1])
        return needs

    def _twins(self, entry: Entry) -> list[Entry]:
        """Return the other names of a model's files."""
        names = {model for digest in entry.digests for model in self._names[digest]}
        return [self._entries[model] for model in names if model != entry.model]

    def _need(
        self, entry: Entry, twins: list[Entry], order: ModelOrder | None, demand: float, least_bytes: int, *,
        is_hot: bool,
    ) -> Need:  # fmt: skip
        by_name = entry.hosts
        hosts = by_name.union(*(twin.hosts for twin in twins)) if twins else by_name
        is_cold = is_ordered_out(entry, order)
        is_held = is_cold and order is not None and order.hold
        urgency, places = Urgency.LYING, 0
        if entry.waiting and not by_name and not is_held:
            urgency, places, hosts = Urgency.WAITING, 1, by_name  # it was asked for by this name
        elif not is_cold and (entry.floor or entry.orphaned_by is not None or is_hot):
            hottest = len(entry.ready) + 1 if is_hot else 0
            urgency, places = Urgency.WANTED, max(entry.floor, hottest, int(entry.orphaned_by is not None))
        elif not is_cold and not entry.wishes and _is_first(entry, twins) and _is_no_toy(entry, least_bytes):
            places = 1
        return Need(
            model=entry.model, urgency=urgency, places=places, hosts=hosts, holders=entry.holders,
            size_bytes=entry.size_bytes, reference=entry.reference, demand=demand,
            is_hot=is_hot and len(hosts) >= entry.floor, is_open=places > 0 and _is_first(entry, twins),
        )  # fmt: skip


def _files(said: Announcement | None) -> tuple[DiskModel, ...]:
    return said.models_on_disk if said is not None and may_host(said) else ()


def _given(said: Announcement | None) -> tuple[tuple[DiskModel, ...], Rights]:
    """Return the files that a member gives to others, and what it may do."""
    return (_files(said), said.rights) if said is not None and gives_files(said) else ((), Rights.NONE)


def _serving(said: Announcement | None) -> tuple[ServedModel, ...]:
    """Return what a member serves or is about to: a server that failed fills no gap."""
    if said is None or not may_host(said):
        return ()
    return tuple(one for one in said.serving if one.state is not ServingState.FAILED)


def _news(before: tuple[_Said, ...], after: tuple[_Said, ...]) -> dict[ModelId, _Said | None]:
    """Return the models of which another thing is said than before; None where nothing is said any more."""
    if before == after:
        return {}
    was, now = {one.model: one for one in before}, {one.model: one for one in after}
    return {model: now.get(model) for model in was | now if was.get(model) != now.get(model)}


def _put(said: dict[NodeId, _Said], node: NodeId, one: _Said | None) -> None:
    if one is None:
        said.pop(node, None)
    else:
        said[node] = one


def is_ordered_out(entry: Entry, order: ModelOrder | None) -> bool:
    """Tell whether somebody ordered that a model is not served, and nobody has asked for it since."""
    if order is None or order.verb is not Verb.UNLOAD:
        return False
    return not any(one.order >= order.version for one in entry.serving.values())


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
        and old.fills_gaps == new.fills_gaps and old.downloads == new.downloads and old.bulk_port == new.bulk_port
        and old.is_starting == new.is_starting
        and [model for model, _ in old.unshared] == [model for model, _ in new.unshared]
    )  # fmt: skip


def _states(said: Announcement) -> list[tuple[object, ...]]:
    return [(one.model, one.digest, one.state, one.is_assigned, one.order, one.shared) for one in said.serving]


def _numbers(said: Announcement) -> tuple[object, ...]:
    return said.name, said.resources, said.usable, said.serving, said.lends, said.unshared
