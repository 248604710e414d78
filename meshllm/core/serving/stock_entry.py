"""One model as the live members have it: files, hosts, wishes, by node, and what follows from them.

Owns the shape and the derived facts, which are made anew only when a member speaks of the model. Decides
which word of where a file may be fetched from is to be trusted. Doesn't know other models.
"""

from dataclasses import dataclass, field

from meshllm.core.announcement import Announcement, DiskModel, RequestedModel, ServedModel, ServingState
from meshllm.core.catalog import ModelReference, model_id_of
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.known_models import CATALOG_FILES, find, reference_of
from meshllm.core.rights import Rights
from meshllm.core.serving.rebalance import Load
from meshllm.core.serving.sources import own_file_reference

_NO_DIGEST = frozenset({""})


@dataclass(slots=True)
class Entry:
    """A model, by node. The second half follows from the first: `renew` makes it."""

    model: ModelId
    files: dict[NodeId, DiskModel] = field(default_factory=dict)
    serving: dict[NodeId, ServedModel] = field(default_factory=dict)
    wishes: dict[NodeId, RequestedModel] = field(default_factory=dict)
    sources: dict[NodeId, RequestedModel] = field(default_factory=dict)
    """Those of them that say where the file may be fetched from, and may be trusted in it."""
    givers: dict[NodeId, Rights] = field(default_factory=dict)
    """Those of the nodes with its file that give it to others, and what they may do in the mesh."""
    waiting: set[NodeId] = field(default_factory=set)
    remembered: RequestedModel | None = None
    """A source by the word of a member that has died since."""
    orphaned_by: NodeId | None = None
    """A host of it that died, while nobody has taken over."""
    orphaned_until_s: float = 0.0

    holders: frozenset[NodeId] = frozenset()
    hosts: frozenset[NodeId] = frozenset()
    """Nodes that serve it or are about to."""
    ready: tuple[NodeId, ...] = ()
    """Nodes that answer for it, sorted."""
    floor: int = 0
    """How many hosts members want it to have."""
    min_warm: int = 0
    """How many of them they want to be kept although nobody asks."""
    digests: frozenset[str] = frozenset()
    size_bytes: int = 0
    reference: ModelReference | None = None
    load: Load | None = None
    """What its ready hosts can do and have to do, by the demand that was asked for last; None without one."""

    @property
    def has_host(self) -> bool:
        """Tell whether a node serves it or is about to; right even before `renew`."""
        return any(one.state is not ServingState.DRAINING for one in self.serving.values())

    def asked(self, per_minute: float) -> Load | None:
        """Return the load of its ready hosts at so many requests a minute; None without one."""
        if self.load is not None and self.load.per_minute != per_minute:
            self.load = self.load.asked(per_minute)
        return self.load

    def renew(self) -> bool:
        """Derive what follows from the rest; tell whether anything is left of it."""
        known: list[DiskModel | ServedModel | RequestedModel] = [
            *self.files.values(), *self.serving.values(), *self.wishes.values()
        ]  # fmt: skip
        sizes = {one.size_bytes for one in known}
        if self.remembered is not None:
            sizes.add(self.remembered.size_bytes)
        self.size_bytes = max(sizes, default=0)
        self.digests = frozenset({one.digest for one in known} - _NO_DIGEST)
        self.holders = frozenset(self.files)
        self._renew_hosts()
        self.min_warm = self.floor = 0
        for wish in self.wishes.values():
            self.min_warm = max(self.min_warm, wish.min_warm)
            self.floor = max(self.floor, wish.min_warm, wish.min_replicas)
        self.reference = self._reference()
        return bool(known or self.waiting or self.orphaned_by is not None)

    def _renew_hosts(self) -> None:
        hosts, ready = [], []
        slots = busy = queued = 0
        for node, one in self.serving.items():
            if one.state is not ServingState.DRAINING:
                hosts.append(node)
            if one.state is ServingState.READY:
                ready.append(node)
                slots, busy, queued = slots + one.slots, busy + one.busy, queued + one.queued
        self.hosts = frozenset(hosts)
        self.ready = tuple(sorted(ready))
        self.load = Load(per_minute=0.0, slots=slots, busy=busy, queued=queued) if ready else None

    def _reference(self) -> ModelReference | None:
        """Return where a model may be fetched from: the catalogue, or the word of a member that may host, or members.

        A package is only ever the catalogue's: no member makes others fetch programs. A file that only members have is
        fetched for members that want it, never because it merely lies there.
        """
        if self.model in CATALOG_FILES:
            found = find(self.model)
            return reference_of(found[0], found[1], self.model) if found is not None and found[1] is not None else None
        wish = self.sources[min(self.sources)] if self.sources else self.remembered
        if wish is None:
            return (
                own_file_reference(self.model, self.files, self.wishes.values(), self.givers) if self.wishes else None
            )
        return ModelReference(
            id=self.model, repository=wish.repository, filename=wish.filename, size_bytes=wish.size_bytes,
            sha256=wish.sha256, asked_as=wish.name,
        )  # fmt: skip


def wished(wish: RequestedModel) -> ModelId:
    """Return the model that a wish is for, as far as anybody knows."""
    return wish.model or ModelId(wish.name)


def is_source(wish: RequestedModel, said: Announcement) -> bool:
    """Tell whether a member's wish says plausibly where the file is, and the member may say so."""
    if Rights.HOST not in said.rights or not wish.repository or not wish.filename or wish.size_bytes <= 0:
        return False
    is_inside = ".." not in wish.filename.split("/") and wish.filename[0] != "/"
    return is_inside and model_id_of(wish.filename) == wished(wish)
