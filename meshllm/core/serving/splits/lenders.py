"""Who could take part in a split, and what keeps each of the others out of it, in words.

Owns the conditions, one for each reason that people see. Decides whether a node may be the host or a worker of one.
Doesn't know which of those that may are needed: `plan` does.

Everything is read from what nodes announce of themselves, this one included, so that nodes agree; only round trips are
each node's own measurements.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from meshllm.core.announcement import Announcement, Role
from meshllm.core.ids import ModelId, NodeId, short
from meshllm.core.resources import format_bytes
from meshllm.core.rights import Rights
from meshllm.core.serving.election import in_order
from meshllm.core.serving.sites import may_host, more, need_bytes, room_of, whole_of
from meshllm.core.serving.splits.model import SplitModel
from meshllm.core.split_limits import SPLIT_ROUND_TRIP_S
from meshllm.core.standing import LIVE, MemberState
from meshllm.core.view import Member


class SplitLack(StrEnum):
    """What keeps a node out of a split."""

    CLIENT = "client"
    NO_RIGHT = "no_right"
    SILENT = "silent"
    """It does not answer at the moment."""
    UNKNOWN_MACHINE = "unknown_machine"
    NO_ENGINE = "no_engine"
    NO_RPC = "no_rpc"
    """Its engine cannot share a model."""
    NO_PORT = "no_port"
    """Nothing of it can be reached by TCP."""
    OTHER_BUILD = "other_build"
    OTHER_PROTOCOL = "other_protocol"
    NO_ROUND_TRIP = "no_round_trip"
    """The way to it was not measured: not the same as near."""
    FAR = "far"
    NO_MEMORY = "no_memory"
    NO_FILE = "no_file"
    """Of hosts only: the host reads the file."""
    NOT_ENOUGH = "not_enough"
    """Nothing: it would take part, and all together have too little memory."""


PASSING = frozenset({SplitLack.SILENT, SplitLack.UNKNOWN_MACHINE, SplitLack.NO_ROUND_TRIP})
"""What is over in a moment, or else the node is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A node that takes no part, and why."""

    node: NodeId
    name: str
    lack: SplitLack
    why: str
    help: str = ""
    """What somebody could do about it; empty where nothing can be done."""


@dataclass(frozen=True, slots=True)
class Lender:
    """A live node as a split sees it."""

    said: Announcement
    rtt_s: float | None = None
    """As the node that asks measured it; None while unmeasured, and of itself."""
    is_silent: bool = False

    @property
    def node(self) -> NodeId:
        """Return who it is."""
        return self.said.node

    @property
    def name(self) -> str:
        """Return what people call it."""
        return self.said.name or short(self.said.node)

    @property
    def free_bytes(self) -> int:
        """Return what it could lend: the room on its GPUs where its engine uses any, else of its memory."""
        room = room_of(self.said)
        return room.gpu_bytes if whole_of(self.said).gpu_bytes else room.host_bytes

    def has_file(self, model: SplitModel) -> bool:
        """Tell whether it has a model's file, by the digest where that is known."""
        return any(
            one.digest == model.digest if model.digest and one.digest else one.model == model.model
            for one in self.said.models_on_disk
        )

    def layers(self, model: SplitModel, beside_bytes: int) -> int:
        """Return how many layers it has room for beside what it needs anyway; -1 without room even for that."""
        free = self.free_bytes - beside_bytes
        return -1 if free < 0 else min(free // max(model.layer_bytes, 1), model.layers)


def lenders_of(members: Iterable[Member]) -> tuple[Lender, ...]:
    """Return the live nodes of a view, sorted by id."""
    found = (
        Lender(member.announcement, member.rtt_s, member.state is MemberState.SUSPECT)
        for member in members if member.state in LIVE and not member.announcement.left
    )  # fmt: skip
    return tuple(sorted(found, key=lambda lender: lender.node))


def could_hold(said: Announcement, size_bytes: int) -> bool:
    """Tell whether a node could hold a model alone if no other were in its memory."""
    if not may_host(said):
        return False
    freed = sum(need_bytes(one.size_bytes) for one in said.serving)
    room = more(room_of(said), freed, whole_of(said))
    return room.gpu_bytes + room.host_bytes >= need_bytes(size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a split asks of its members, seen from one node."""

    me: NodeId
    """Who asks, and measured the round trips."""
    needs_build: bool = True
    """False: suppose that all had the same engine, and that it could share."""

    def unfit(self, lender: Lender) -> Excluded | None:
        """Return why a node could be no part of any split; None where it could."""
        said = lender.said
        if said.role is Role.CLIENT:
            return out(lender, SplitLack.CLIENT, "it only sends requests")
        if Rights.RPC not in said.rights:
            why = "it has no right to lend memory: its token carries none, or it was started with --no-rpc"
            return out(lender, SplitLack.NO_RIGHT, why, _RIGHT_HELP)
        if lender.is_silent:
            return out(lender, SplitLack.SILENT, "it does not answer at the moment")
        if said.is_starting:
            return out(lender, SplitLack.UNKNOWN_MACHINE, "it has just started, and does not know yet what it can lend")
        if said.resources is None:
            return out(lender, SplitLack.UNKNOWN_MACHINE, "it has not said yet what memory it has")
        return _unequipped(lender) if self.needs_build else None

    def unfit_as_worker(self, lender: Lender, host: Lender, model: SplitModel) -> Excluded | None:
        """Return why a node could be no worker of a host; None where it could."""
        found = self.unfit(lender) or self.mismatch(lender, host)
        return found or self._unreachable(lender, host) or _without_room(lender, model)

    def unfit_as_host(self, lender: Lender, model: SplitModel) -> Excluded | None:
        """Return why a node could not be the host; None where it could."""
        if (found := self.unfit(lender)) is not None:
            return found
        if not may_host(lender.said):
            return out(lender, SplitLack.NO_RIGHT, "it has no right to answer requests of others", _RIGHT_HELP)
        if not lender.has_file(model):
            why, help_ = "it does not have the file", f"mesh-llm pull {model.model} on {lender.name}"
            return out(lender, SplitLack.NO_FILE, why, help_)
        if lender.layers(model, model.host_beside_bytes) < 0:
            needed = format_bytes(model.host_beside_bytes)
            why = f"{format_bytes(lender.free_bytes)} are free; the host of this model needs {needed} beside its layers"
            return out(lender, SplitLack.NO_MEMORY, why, _ROOM_HELP)
        return None

    def mismatch(self, lender: Lender, host: Lender) -> Excluded | None:
        """Return what is wrong with a node's engine beside the host's; None where they are equal."""
        said, its = lender.said, host.said
        if not self.needs_build:
            return None
        if said.rpc_version == its.rpc_version:
            return None
        (protocol, _, _), (its_protocol, _, _) = said.rpc_version.partition(" "), its.rpc_version.partition(" ")
        if protocol != its_protocol:
            why = f"its engine speaks RPC {said.rpc_version}, that of {host.name} {its.rpc_version}"
            return out(lender, SplitLack.OTHER_PROTOCOL, why, _BUILD_HELP)
        why = f"its engine for sharing is {said.rpc_version}, that of {host.name} is {its.rpc_version}"
        return out(lender, SplitLack.OTHER_BUILD, why, _BUILD_HELP)

    def rtt_s(self, lender: Lender, host: Lender) -> float | None:
        """Return the round trip between a worker and its host, as far as this node knows.

        Where this node is neither of them, what it measured to the worker stands for it: the host has its own number.
        """
        return host.rtt_s if lender.node == self.me else lender.rtt_s

    def _unreachable(self, lender: Lender, host: Lender) -> Excluded | None:
        rtt_s = self.rtt_s(lender, host)
        if rtt_s is None:
            return out(
                lender, SplitLack.NO_ROUND_TRIP, "the way to it was not measured: there is no connection to it yet"
            )
        if rtt_s > SPLIT_ROUND_TRIP_S:
            why = f"it is too far: a round trip of {rtt_s * 1000:.0f} ms, at most {SPLIT_ROUND_TRIP_S * 1000:.0f} ms"
            return out(lender, SplitLack.FAR, why, "a wired network between both")
        return None


_BUILD_HELP = "the same version of mesh-llm on both, and mesh-llm engine build"
_PORT_HELP = "let other nodes reach its TCP port, which has the number of its UDP port"
_RIGHT_HELP = "mesh-llm token --rights infer,host,rpc makes one that carries it"
_ROOM_HELP = "mesh-llm unload another model there"


def _unequipped(lender: Lender) -> Excluded | None:
    """Return what a node lacks to share models; None where it could."""
    said = lender.said
    if not said.engine_build:
        return out(lender, SplitLack.NO_ENGINE, "it has no engine that works", f"mesh-llm doctor on {lender.name}")
    if not said.rpc_version:
        why = f"its engine ({said.engine_build}) cannot share a model with other machines"
        return out(lender, SplitLack.NO_RPC, why, f"mesh-llm engine build on {lender.name}")
    if not said.bulk_port:
        return out(lender, SplitLack.NO_PORT, "it has no TCP port for other nodes", _PORT_HELP)
    return None


def _without_room(lender: Lender, model: SplitModel) -> Excluded | None:
    if lender.layers(model, model.worker_beside_bytes) >= 1:
        return None
    needed = format_bytes(model.layer_bytes + model.worker_beside_bytes)
    why = f"{format_bytes(lender.free_bytes)} are free, one layer takes {needed}"
    return out(lender, SplitLack.NO_MEMORY, why, _ROOM_HELP)


def out(lender: Lender, lack: SplitLack, why: str, help_: str = "") -> Excluded:
    """Return a node with what keeps it out."""
    return Excluded(node=lender.node, name=lender.name, lack=lack, why=why, help=help_)


def standing(lenders: Iterable[Lender]) -> list[Lender]:
    """Return nodes in the order in which they become hosts: by the election of all hosts."""
    found = {lender.node: lender for lender in lenders}
    return [found[said.node] for said in in_order(lender.said for lender in found.values())]


def unshareable(members: Iterable[Announcement], holders: Collection[NodeId], need: tuple[ModelId, int]) -> str | None:
    """Return why nodes cannot hold a model together, by what everybody knows; None where they might.

    `need` is the model and the bytes of its file. Empty where nobody here shares models at all. What a host knows
    better, it says: who asks waits for a plan only where one may come. It may while somebody has just started.
    """
    model, size_bytes = need
    groups: dict[str, list[Lender]] = {}
    is_early = False
    for said in members:
        lender = Lender(said)
        is_early |= said.is_starting and Rights.RPC in said.rights
        if said.rpc_version and Conditions(me=said.node).unfit(lender) is None:
            groups.setdefault(said.rpc_version, []).append(lender)
    why = "" if not groups else "no node that has its file may share it"
    for _, group in sorted(groups.items()):
        hosts = [lender for lender in standing(group) if lender.node in holders and may_host(lender.said)]
        free_bytes = sum(lender.free_bytes for lender in group)
        if not hosts:
            continue
        if is_early:
            return None
        words = [dict(lender.said.unshared).get(model) for lender in hosts]
        if len(group) < 2:
            why = f"no other node can lend memory to {hosts[0].name}, which has the file"
        elif free_bytes < need_bytes(size_bytes):
            why = f"all that might share it have {format_bytes(free_bytes)} free together"
        elif None in words:
            return None
        else:
            why = str(words[0])
    return why
