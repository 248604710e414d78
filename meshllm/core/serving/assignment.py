"""Which node should serve which model: one pure function that every node applies to its own view.

Owns the order of the four priorities and of the nodes for each model. Decides who should act, and who is
next if that one does not; when to act is `gap_filling`'s, who yields in a collision `claims`'. Doesn't know
how anything was announced.

The order: what requests wait for; what members want to be served; what merely lies on disks. In each, a
model that nobody serves goes first to a node that has its file, then to one that may download it. Nodes
that are left with empty hands take the least served model, from their disk if they can. Each only if it
fits. Ties are broken by demand, then size (the large ones need the room), then a hash, so that nodes with
the same view come to the same answer and with different views rarely collide.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from meshllm.core.catalog import ModelReference
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.resources import format_bytes
from meshllm.core.serving.capacity import Room
from meshllm.core.serving.election import preference
from meshllm.core.serving.sites import Site, more, need_bytes
from meshllm.core.view import Assignment, Reason


class Urgency(IntEnum):
    """Why a model should have a host, the strongest reason first."""

    WAITING = 0
    """Requests wait for it."""
    WANTED = 1
    """A member was told to have it served, or a host of it died."""
    LYING = 2
    """It is on a disk, and nobody has asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A model and the hosts that it has and should have."""

    model: ModelId
    urgency: Urgency = Urgency.LYING
    places: int = 0
    """How many hosts it should have; 0: none unless somebody asks."""
    hosts: frozenset[NodeId] = frozenset()
    """Nodes that serve it or are about to."""
    holders: frozenset[NodeId] = frozenset()
    """Nodes with its file."""
    size_bytes: int = 0
    reference: ModelReference | None = None
    """Where it may be fetched from."""
    demand: float = 0.0
    is_hot: bool = False
    is_open: bool = True
    """A node without work may take it although it has a host: it is served unasked at all."""
    overdue: int = 0
    """How many of the best nodes have let their time pass."""

    @property
    def missing(self) -> int:
        """Return how many hosts it lacks."""
        return max(self.places - len(self.hosts), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that this node should do, or do when `rank` others have not."""

    assignment: Assignment
    urgency: Urgency
    rank: int = 0
    reference: ModelReference | None = None
    """What to download first."""
    makes_room: bool = False
    """It fits only when something else goes."""


@dataclass(slots=True)
class _Bench:
    """A site while models are being given out."""

    site: Site
    room: Room
    disk_free_bytes: int
    count: int
    """Models that it serves or was given."""
    spare: Mapping[ModelId, int]
    """What it could throw out."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """One node that could take a model, and at what price."""

    price: tuple[int, bool, int, bool, int]
    bench: _Bench
    room: Room
    """What would be left."""
    is_download: bool
    makes_room: bool


class _Benches:
    """The sites while models are being given out; most of them never have a part in it."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self.sites = {site.node: site for site in sites}
        self._benches: dict[NodeId, _Bench] = {}

    def of(self, site: Site) -> _Bench:
        bench = self._benches.get(site.node)
        if bench is None:
            bench = _Bench(site, site.room, site.disk_free_bytes, len(site.serves), site.evictable)
            self._benches[site.node] = bench
        return bench

    def holders(self, need: Need) -> list[Site]:
        return [self.sites[node] for node in need.holders if node in self.sites]

    def is_idle(self, site: Site) -> bool:
        """Tell whether a site has nothing to do, and would take something."""
        if site.serves or not site.fills_gaps or site.has_wishes:
            return False
        bench = self._benches.get(site.node)
        return bench is None or bench.count == 0


def assign(sites: Iterable[Site], needs: Sequence[Need], me: NodeId) -> tuple[Step, ...]:
    """Return what this node should do, in order, as far as the others do their part.

    The others' part is thought through in the same way: what they are to take is not left for this node, and
    their memory is not given away twice.
    """
    benches = _Benches(sites)
    if me not in benches.sites:
        return ()
    surplus = frozenset(need.model for need in needs if len(need.hosts) > max(need.places, 1))
    lacking = sorted((need for need in needs if need.missing), key=_order)
    steps: list[Step] = []
    for urgency in Urgency:
        late = []
        for need in lacking:
            if need.urgency is not urgency:
                continue
            offers = _offers(need, benches.holders(need), benches, surplus)
            if need.reference is not None and len(offers) < need.missing + need.overdue:
                late.append(need)  # disks first: those who have nothing may have to fetch it
            else:
                steps += _given(need, offers, me)
        for need in late:
            steps += _given(need, _offers(need, benches.sites.values(), benches, surplus), me)
    return tuple(steps) or _least_served(benches, needs, me)


def _order(need: Need) -> tuple[float, int, ModelId]:
    return -need.demand, -need.size_bytes, need.model


# -- models that lack hosts --------------------------------------------------------------------------------


def _given(need: Need, offers: list[_Offer], me: NodeId) -> list[Step]:
    """Give a model to the best offers, and to this node if they let their time pass; return its part."""
    steps = []
    for index, offer in enumerate(offers):
        bench, rank = offer.bench, max(index - need.missing + 1, 0)
        is_mine = bench.site.node == me
        if rank == 0 or (is_mine and rank <= need.overdue):
            bench.room, bench.count = offer.room, bench.count + 1
            if offer.is_download:
                bench.disk_free_bytes -= need.size_bytes
            if offer.makes_room:
                bench.spare = {}
        if is_mine:
            steps.append(_step(need, offer, rank))
    return steps


def _offers(need: Need, sites: Iterable[Site], benches: _Benches, surplus: frozenset[ModelId]) -> list[_Offer]:
    """Return who of some could take a model, best first."""
    model = need.model
    able = [
        site for site in sites
        if (model in site.disk or site.downloads) and model not in site.serves and may_take(site, need)
    ]  # fmt: skip
    found = [offer for site in able if (offer := _offer(need, benches.of(site), surplus)) is not None]
    return sorted(found, key=lambda offer: (offer.price, offer.bench.site.node))


def _offer(need: Need, bench: _Bench, surplus: frozenset[ModelId]) -> _Offer | None:
    """Return how a node could take a model, or None where it cannot."""
    site, model = bench.site, need.model
    is_download = model not in site.disk
    size_bytes = site.disk.get(model, need.size_bytes)
    if is_download and not _can_fetch(need, bench):
        return None
    room, makes_room = site.fit(model, size_bytes, bench.room), False
    if room is None and need.urgency is not Urgency.LYING:
        freed = _spare_bytes(need, bench, surplus)
        room = site.fit(model, size_bytes, more(bench.room, freed, site.whole)) if freed else None
        makes_room = True
    if room is None:
        return None
    is_beside_gpu = bench.room.gpu_bytes < need_bytes(size_bytes)
    price = (
        2 * is_download + makes_room, model not in site.waiting, bench.count, is_beside_gpu,
        preference(site.node, model),
    )  # fmt: skip
    return _Offer(price, bench, room, is_download, makes_room)


def may_take(site: Site, need: Need) -> bool:
    """Tell whether a node gives itself such models at all."""
    if need.model in site.refuses:
        return False
    if need.urgency is not Urgency.WAITING and need.model in site.reluctant:
        return False
    if need.urgency is Urgency.WAITING and need.model in site.waiting:
        return True  # a request that came in there is its own affair
    return site.fills_gaps and not (need.urgency is Urgency.LYING and site.has_wishes)


def _can_fetch(need: Need, bench: _Bench) -> bool:
    return need.urgency is not Urgency.LYING and _is_fetchable(need, bench)


def _is_fetchable(need: Need, bench: _Bench) -> bool:
    if need.reference is None:
        return False
    used = bench.site.disk_free_bytes - bench.disk_free_bytes
    return bench.site.can_download(need.size_bytes + used) if need.size_bytes else False


def _spare_bytes(need: Need, bench: _Bench, surplus: frozenset[ModelId]) -> int:
    """Return what a node could throw out: for waiting requests whatever rests, otherwise what others serve as well."""
    return sum(
        size
        for model, size in bench.spare.items()
        if model != need.model and (need.urgency is Urgency.WAITING or model in surplus)
    )


def _step(need: Need, offer: _Offer, rank: int) -> Step:
    reason = _reason(need, is_download=offer.is_download)
    site = offer.bench.site
    assignment = Assignment(node=site.node, model=need.model, reason=reason, message=_sentence(need, reason, rank))
    reference = need.reference if offer.is_download else None
    return Step(
        assignment=assignment, urgency=need.urgency, rank=rank, reference=reference, makes_room=offer.makes_room
    )


def _reason(need: Need, *, is_download: bool) -> Reason:
    if need.urgency is Urgency.WAITING:
        return Reason.REQUESTED_BY_REQUEST
    if need.hosts:
        return Reason.HOT if need.is_hot else Reason.WARM
    return Reason.UNSERVED_DOWNLOAD if is_download else Reason.UNSERVED_ON_DISK


_SENTENCES = {
    Reason.REQUESTED_BY_REQUEST: "requests wait for it",
    Reason.HOT: "its hosts have more to do than they can",
    Reason.WARM: "it should have more hosts",
    Reason.UNSERVED_ON_DISK: "nobody serves it, and its file is here",
    Reason.UNSERVED_DOWNLOAD: "nobody serves it, nobody who could has its file, and here is room",
    Reason.LEAST_SERVED_ON_DISK: "nothing lacks a host; of the models on this disk it has the fewest",
    Reason.LEAST_SERVED: "nothing lacks a host; of all models it has the fewest",
}


def _sentence(need: Need, reason: Reason, rank: int) -> str:
    said = _SENTENCES[reason]
    if need.demand and reason is not Reason.REQUESTED_BY_REQUEST:
        said += f" ({need.demand:g} requests a minute)"
    if rank:
        said += f"; {rank} better {'node has' if rank == 1 else 'nodes have'} not acted"
    return said


# -- nodes with empty hands ----------------------------------------------------------------------------------


def _least_served(benches: _Benches, needs: Sequence[Need], me: NodeId) -> tuple[Step, ...]:
    """Return the model that this node should serve beside others, if it has nothing to do.

    Idle nodes choose one after the other, in the order of their ids, each knowing what those before it took.
    """
    mine = benches.sites[me]
    if not benches.is_idle(mine):
        return ()
    served = {need.model: need for need in needs if need.hosts and need.is_open and not need.missing}
    counts = {model: len(need.hosts) for model, need in served.items()}
    before = sorted(node for node, site in benches.sites.items() if node < me and benches.is_idle(site))
    for node in before:
        taken, _ = _replica_for(benches.of(benches.sites[node]), served, counts)
        if taken is not None:
            counts[taken.model] += 1
    chosen, reason = _replica_for(benches.of(mine), served, counts)
    if chosen is None:
        return ()
    made = Assignment(node=me, model=chosen.model, reason=reason, message=_sentence(chosen, reason, 0))
    reference = chosen.reference if reason is Reason.LEAST_SERVED else None
    return (Step(assignment=made, urgency=Urgency.LYING, reference=reference),)


def _replica_for(
    bench: _Bench, served: Mapping[ModelId, Need], counts: Mapping[ModelId, int]
) -> tuple[Need | None, Reason]:
    """Return the model that an idle node should take, and why: from its disk if it can."""
    site = bench.site
    found = _scarcest([served[model] for model in site.disk if model in served], bench, counts)
    if found is not None or not site.downloads:
        return found, Reason.LEAST_SERVED_ON_DISK
    elsewhere = [need for model, need in served.items() if need.reference is not None and model not in site.disk]
    return _scarcest(elsewhere, bench, counts), Reason.LEAST_SERVED


def _scarcest(needs: Iterable[Need], bench: _Bench, counts: Mapping[ModelId, int]) -> Need | None:
    """Return the model with the fewest hosts that may go there and fits, of those the one that is asked for most."""
    node = bench.site.node
    best: tuple[tuple[int, float, int], Need] | None = None
    for need in needs:
        count = counts[need.model]
        if best is not None and count > best[0][0]:
            continue  # whether it fits is what takes the time, and after that the preference
        scarcity = count, -need.demand, preference(node, need.model)
        if (best is None or scarcity < best[0]) and _has_place(need, bench):
            best = (scarcity, need)
    return best[1] if best is not None else None


def _has_place(need: Need, bench: _Bench) -> bool:
    """Tell whether an idle node could have a model in memory, and on its disk, and takes it."""
    site, model = bench.site, need.model
    if model in site.refuses or model in site.reluctant:
        return False
    if model not in site.disk and not _is_fetchable(need, bench):
        return False
    return site.fit(model, site.disk.get(model, need.size_bytes), bench.room) is not None


# -- why nobody can --------------------------------------------------------------------------------------------


def lack_of(need: Need, sites: Mapping[NodeId, Site]) -> str:
    """Return why no node can load a model even if it threw out all that it gave itself; empty when one can."""
    able = [sites[node] for node in sorted(need.holders) if node in sites]
    if need.reference is not None:
        able += [site for node, site in sorted(sites.items()) if site.downloads and node not in need.holders]
    if not able:
        return "no node that loads models has its file or may fetch it"
    best: tuple[int, Site] | None = None
    for site in able:
        if need.model in site.refuses:
            continue
        size_bytes = site.disk.get(need.model, need.size_bytes)
        room = more(site.room, site.removable_bytes, site.whole)
        is_storable = need.model in site.disk or site.can_download(size_bytes)
        if is_storable and site.fit(need.model, size_bytes, room) is not None:
            return ""
        free = room.gpu_bytes + room.host_bytes
        if best is None or free > best[0]:
            best = (free, site)
    return _missing(need, best)


def _missing(need: Need, best: tuple[int, Site] | None) -> str:
    if best is None:
        return "the nodes that have its file could not load it"
    free, site = best
    size_bytes = site.disk.get(need.model, need.size_bytes)
    needed = need_bytes(size_bytes)
    if free >= needed:
        return f"its file takes {format_bytes(size_bytes)} of disk, and no node that may fetch it has so much to spare"
    return f"needs {format_bytes(needed)}, at most {format_bytes(free)} could be free, on {site.name or site.node[:8]}"
