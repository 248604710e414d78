"""A node as assignment sees it: what it has on disk, what it may do, and what would fit into it.

Owns the estimate of other nodes' memory from what they announce. Decides nothing. Doesn't know which
models are wanted; the exact arithmetic for this node's own engines is `capacity`'s, handed in as `fit`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshllm.core.announcement import Announcement, Role, ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import MIB, disk_reserve_bytes
from meshllm.core.rights import Rights
from meshllm.core.serving.capacity import Room

USABLE_SHARE = 0.9
"""Of another machine's memory: what a node takes that does not say so itself."""
BESIDE_BYTES = 256 * MIB
"""Cache, buffers and process of a small engine: what a model takes beside 1.1 times its file."""

Fit = Callable[[ModelId, int, Room], Room | None]
"""(model, bytes of its file, room) -> what is left of the room with it loaded, or None where it does not fit."""


def need_bytes(size_bytes: int) -> int:
    """Return what a model of this size takes in memory, roughly and not too little."""
    return size_bytes * 11 // 10 + BESIDE_BYTES


def estimated(model: ModelId, size_bytes: int, room: Room) -> Room | None:  # noqa: ARG001 - a Fit
    """Return what an estimated model leaves of a room: GPUs first, the rest on the host."""
    need = need_bytes(size_bytes)
    if room.gpu_bytes + room.host_bytes < need:
        return None
    return less(room, need)


def less(room: Room, taken_bytes: int) -> Room:
    """Return a room with so much less in it, GPUs first."""
    on_gpu = min(taken_bytes, room.gpu_bytes)
    return Room(gpu_bytes=room.gpu_bytes - on_gpu, host_bytes=max(room.host_bytes - (taken_bytes - on_gpu), 0))


def more(room: Room, freed_bytes: int, most: Room) -> Room:
    """Return a room with so much more in it, GPUs first, at most `most`."""
    to_gpu = min(freed_bytes, max(most.gpu_bytes - room.gpu_bytes, 0))
    host = min(room.host_bytes + freed_bytes - to_gpu, max(most.host_bytes, room.host_bytes))
    return Room(gpu_bytes=room.gpu_bytes + to_gpu, host_bytes=host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A live node that may host."""

    node: NodeId
    name: str = ""
    room: Room
    whole: Room
    """What it could use if nothing ran there."""
    disk: Mapping[ModelId, int]
    """Models whose files it has, with their bytes."""
    serves: frozenset[ModelId] = frozenset()
    """Models that it serves, is about to serve, or has not quite stopped serving."""
    evictable: Mapping[ModelId, int]
    """Bytes that models would give back that it gave itself and that rest."""
    removable_bytes: int = 0
    """The same, with those that are at work: what requests may wait for."""
    disk_free_bytes: int = 0
    fills_gaps: bool = False
    downloads: bool = False
    has_wishes: bool = False
    """It was told what to serve, and gives itself nothing that merely lies on its disk."""
    waiting: frozenset[ModelId] = frozenset()
    """Models that requests wait for at this very node."""
    refuses: frozenset[ModelId] = frozenset()
    """Models that it does not take, for reasons of its own; known of this node only."""
    reluctant: frozenset[ModelId] = frozenset()
    """Models that it takes only for requests; the same."""
    fit: Fit = estimated

    def can_download(self, size_bytes: int) -> bool:
        """Tell whether it may fetch a file of this size, of which the size has to be known."""
        room = self.disk_free_bytes - disk_reserve_bytes(size_bytes)
        return self.downloads and 0 < size_bytes <= room


def site_of(said: Announcement) -> Site | None:
    """Return a live member as a site, by its own words; None for one that may not or cannot host."""
    if not may_host(said) or said.resources is None:
        return None
    return Site(
        node=said.node, name=said.name, room=room_of(said), whole=whole_of(said),
        disk={one.model: one.size_bytes for one in said.models_on_disk},
        serves=frozenset(one.model for one in said.serving),
        evictable={one.model: need_bytes(one.size_bytes) for one in said.serving if _rests(one)},
        removable_bytes=sum(need_bytes(one.size_bytes) for one in said.serving if one.is_assigned),
        disk_free_bytes=said.resources.disk_free_bytes, fills_gaps=said.fills_gaps, downloads=may_fetch(said),
        has_wishes=bool(said.requested), waiting=frozenset(said.waiting),
    )  # fmt: skip


def may_host(said: Announcement) -> bool:
    """Tell whether a node is one that serves models to others at all."""
    return Rights.HOST in said.rights and said.role is not Role.CLIENT and not said.left


def may_yet_host(said: Announcement) -> bool:
    """Tell whether a node may host and does not know yet what: not known yet is not the same as nothing."""
    return may_host(said) and said.is_starting


def may_fetch(said: Announcement) -> bool:
    """Tell whether a node fetches what others want: it says so, and is a machine of the mesh's own person."""
    return said.downloads and Rights.ADMIN in said.rights


def _rests(served: ServedModel) -> bool:
    return served.is_assigned and served.state is ServingState.READY and not served.busy + served.queued


def whole_of(said: Announcement) -> Room:
    """Return what a node could use if nothing ran there: what it says, else the usual share of its machine."""
    resources = said.resources
    if resources is None:
        return Room(gpu_bytes=0, host_bytes=0)
    if said.usable is not None:
        return Room(gpu_bytes=said.usable.gpu_bytes, host_bytes=said.usable.memory_bytes)
    return Room(
        gpu_bytes=int(resources.gpu_total_bytes * USABLE_SHARE),
        host_bytes=int(resources.memory_total_bytes * USABLE_SHARE),
    )


def room_of(said: Announcement) -> Room:
    """Return what is left: of what may be used less everything promised, and of what is free less the unseen."""
    resources = said.resources
    if resources is None:
        return Room(gpu_bytes=0, host_bytes=0)
    promised = unseen = 0
    for one in said.serving:
        need = need_bytes(one.size_bytes) if one.own_bytes is None else one.own_bytes
        promised += need
        if one.state in (ServingState.CLAIMED, ServingState.DOWNLOADING, ServingState.LOADING):
            unseen += need  # what was measured cannot show it yet
    for lent in said.lends:
        promised += lent.memory_bytes
        unseen += 0 if lent.is_loaded else lent.memory_bytes
    allowed = less(whole_of(said), promised)
    free = less(Room(gpu_bytes=resources.gpu_free_bytes, host_bytes=resources.memory_free_bytes), unseen)
    return Room(gpu_bytes=min(allowed.gpu_bytes, free.gpu_bytes), host_bytes=min(allowed.host_bytes, free.host_bytes))
