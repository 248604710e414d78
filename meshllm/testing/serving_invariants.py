"""What must hold of who serves what, whatever happens to a simulated mesh.

Owns the checks: memory is never promised twice, two nodes do not fill one gap, whatever is wanted and fits is served
in time, nothing starts and stops without a reason. Decides nothing. I1 to I10 are in `invariants`.

`ServingWatch` looks at every step of every node, and at the whole once a second; it raises InvariantError.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from meshllm.core import effects as do
from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.catalog import ModelSpec
from meshllm.core.effects import Effect, Level
from meshllm.core.events import Event
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import disk_reserve_bytes
from meshllm.core.resources import MemoryLimit
from meshllm.core.serving.capacity import NoRoom, Room, plan_engine, room_for_one_more
from meshllm.core.serving.sites import less
from meshllm.core.standing import LIVE
from meshllm.core.view import Reason
from meshllm.testing.invariants import InvariantError
from meshllm.testing.sim import SimMesh, SimNode
from meshllm.testing.sim_machine import SimEngine
from meshllm.testing.sim_models import HUB
from meshllm.testing.sim_requests import SimRequests

LOOK_S = 1.0
SERVED_S = 20.0
"""From the moment that everybody knows that a model is wanted and nobody serves it, plus what a load takes."""
DOUBLE_S = 5.0
"""How long two nodes may be at work on the same gap."""
FLAP_S = 120.0
"""A model that its node stopped by itself and starts again within this is flapping."""
STORY_LINES = 60
_MARGIN = 0.9
"""Of the room of a node: what fits only just may look as if it did not, to others."""
_DOWNLOAD_S = 5.0
"""Of a download beside its bytes: names, scans, the next step of the core."""
_FILLS = frozenset({Reason.UNSERVED_ON_DISK, Reason.UNSERVED_DOWNLOAD, Reason.REQUESTED_BY_REQUEST})
"""Reasons of which a model needs one host alone."""
_AT_WORK = frozenset({ServingState.DOWNLOADING, ServingState.LOADING, ServingState.READY})


@dataclass(slots=True)
class ServingCounts:
    """What a run was like."""

    starts: int = 0
    stops: int = 0
    flaps: int = 0
    yields: int = 0
    """Claims that were given up before they were ready, because somebody else had the better one."""
    changes: int = 0
    """Of what is wanted, and of who is there: each may be answered by some starts and stops."""
    served_s: list[float] = field(default_factory=list)
    """From the moment that a model is wanted and could be served until it is ready."""
    reserved_s: list[float] = field(default_factory=list)
    """The same for models whose last host died, from the moment that everybody knew."""
    refetched_s: list[float] = field(default_factory=list)
    """Those of them that had to be fetched first: for a while nobody with the file had room for it."""


@dataclass(slots=True)
class _Gap:
    """A model that is wanted and not ready anywhere."""

    since_s: float | None = None
    """Since when somebody could serve it and everybody could know."""
    bound_s: float = 0.0
    had_host: bool = False
    is_on_disk: bool = True
    """All that time somebody who could serve it had its file."""


class ServingWatch:
    """Looks at every step of a mesh."""

    def __init__(self, mesh: SimMesh, requests: SimRequests) -> None:
        """Begin to watch."""
        self.counts = ServingCounts()
        self.story: deque[str] = deque(maxlen=STORY_LINES)
        self.lost: dict[str, NodeId] = {}
        """Models whose last host died, and who that was."""
        self._mesh = mesh
        self._requests = requests
        self._gaps: dict[str, _Gap] = {}
        self._pairs: dict[tuple[ModelId, NodeId, NodeId], float] = {}
        self._excused: set[tuple[ModelId, NodeId, NodeId]] = set()
        self._stopped_s: dict[tuple[NodeId, ModelId], float] = {}
        self._said: dict[NodeId, tuple[ServedModel, ...]] = {}
        mesh.observers.append(self)
        mesh.endings.append(self._ended)
        mesh.later(LOOK_S, self._look)

    def say(self, line: str) -> None:
        """Add to the story that a violation tells."""
        self.story.append(f"{self._mesh.now_s:7.2f} {line}")

    # -- each step ---------------------------------------------------------------------------------------

    def __call__(self, node: SimNode, event: Event, effects: tuple[Effect, ...]) -> None:
        """Take one step of one node."""
        del event
        if effects:
            self._obey(node, effects)
        serving = node.core.view.me.serving
        if node.node not in self._said:
            self._is_back(node.node)
        if serving is not self._said.get(node.node):
            self._notice_yields(node, self._said.get(node.node, ()), serving)
            self._said[node.node] = serving

    def _obey(self, node: SimNode, effects: tuple[Effect, ...]) -> None:
        begun: list[SimEngine] = []
        for effect in effects:
            if isinstance(effect, do.StartEngine):
                self.counts.starts += 1
                begun.append(SimEngine(effect.plan))
                self._check_memory(node, begun)
                self._started(node, effect.plan.model.id)
            elif isinstance(effect, do.StopEngine):
                self.counts.stops += 1
                if node.core.view.local.get(effect.model) is not None and not node.core.view.leaving:
                    self._stopped_s[node.node, effect.model] = self._mesh.now_s
                self.say(f"{node.node}: stops {effect.model}")
            elif isinstance(effect, do.Notify) and effect.level is not Level.DEBUG and not _is_of_members(effect):
                fields = " ".join(f"{name}={value}" for name, value in effect.fields)
                self.say(f"{node.node}: {effect.message} {fields}")

    def _check_memory(self, node: SimNode, begun: list[SimEngine]) -> None:
        """No over-commit: what all engines were promised together is what the machine has and the node may use."""
        rig = node.rig
        if rig is None:
            raise InvariantError(f"{node.node} starts an engine without a machine")
        host, gpu = rig.promised_bytes()
        host += sum(engine.split[0] for engine in begun)
        gpu += sum(engine.split[1] for engine in begun)
        machine, limit = node.machine, node.config.serving.wishes.max_memory
        host_limit = MemoryLimit(share=0.9) if machine.gpu_bytes else limit
        host_most = min(host_limit.of(machine.memory_bytes), machine.memory_bytes - machine.others_bytes)
        if host > host_most or gpu > limit.of(machine.gpu_bytes):
            models = ", ".join(sorted([*rig.engines, *(engine.plan.model.id for engine in begun)]))
            raise InvariantError(f"over-commit: {node.node} gives {models} {host} + {gpu} bytes of {host_most}")

    def _started(self, node: SimNode, model: ModelId) -> None:
        local = node.core.view.local.get(model)
        reason = local.reason if local is not None else None
        self.say(f"{node.node}: starts {model} ({reason})")
        stopped_s = self._stopped_s.pop((node.node, model), None)
        if stopped_s is not None and self._mesh.now_s - stopped_s < FLAP_S:
            self.counts.flaps += 1
            self.say(f"{node.node}: {model} was stopped there {self._mesh.now_s - stopped_s:.0f} s ago")
        for other in self._mesh.running():
            if other.node != node.node and not self._sees(node, other):
                self._excused.add(_pair(model, node.node, other.node))

    def _sees(self, node: SimNode, other: SimNode) -> bool:
        """Tell whether two nodes think each other alive."""
        return node.state_of(other.node) in LIVE and other.state_of(node.node) in LIVE

    def _notice_yields(self, node: SimNode, before: tuple[ServedModel, ...], after: tuple[ServedModel, ...]) -> None:
        left = {served.model for served in before if served.state in _CLAIMS} - {served.model for served in after}
        for model in left:
            elsewhere = node.core.view.replicas.get(model, ())
            if any(replica.served.state is not ServingState.DRAINING for replica in elsewhere):
                self.counts.yields += 1
                self.say(f"{node.node}: yields {model}")

    def _ended(self, node: NodeId) -> None:
        """A process has ended: note what nobody serves any more."""
        self.counts.changes += 1
        ready = [served.model for served in self._said.pop(node, ()) if served.state is ServingState.READY]
        found = self._mesh.nodes[node]
        has_left = found.exit_code is not None
        for model in ready:
            self.counts.changes += 1
            if not has_left and not any(self._is_ready(other, model) for other in self._mesh.running()):
                self.lost[model] = node
                self.say(f"the last host of {model}, {node}, is gone")
        for key in [key for key in self._stopped_s if key[0] == node]:
            del self._stopped_s[key]

    def _is_back(self, node: NodeId) -> None:
        """A host that died runs again: it looks after its models itself, and what nobody asks for may stay cold."""
        self.lost = {model: host for model, host in self.lost.items() if host != node}

    # -- once a second -------------------------------------------------------------------------------------

    def _look(self) -> None:
        running = self._mesh.running()
        serving = {node.node: node.core.view.me.serving for node in running}
        self._check_doubles(running)
        ready = {served.model for said in serving.values() for served in said if served.state is ServingState.READY}
        wanted = self._wanted(running)
        for model in wanted:
            if model not in ready:
                self._gaps.setdefault(model, _Gap(had_host=model in self.lost))
        for model, gap in list(self._gaps.items()):
            if model in ready or model not in wanted:
                self._closed(model, gap, is_ready=model in ready)
            else:
                self._check_gap(model, gap, running)
        self._mesh.later(LOOK_S, self._look)

    def _wanted(self, running: list[SimNode]) -> set[str]:
        """Return the models that somebody wants to be served by whomever."""
        names = {name for node in running for name in node.config.serving.requested}
        names |= self._requests.waiting() | set(self.lost)
        return {name.removeprefix(f"{HUB}/") for name in names}

    def _closed(self, model: str, gap: _Gap, *, is_ready: bool) -> None:
        del self._gaps[model]
        self.lost.pop(model, None)
        if is_ready:
            took_s = self._mesh.now_s - gap.since_s if gap.since_s is not None else 0.0
            lost_s = self.counts.reserved_s if gap.is_on_disk else self.counts.refetched_s
            (lost_s if gap.had_host else self.counts.served_s).append(took_s)

    def _check_gap(self, model: str, gap: _Gap, running: list[SimNode]) -> None:
        """Whatever is wanted, fits somewhere, and is known to be unserved, is served in time."""
        spec = self._mesh.library.named(ModelId(model))
        able = dict(self._able(spec, running)) if spec is not None else {}
        if not able or not self._is_known(ModelId(model), running):
            gap.since_s = None
            return
        now_s = self._mesh.now_s
        if gap.since_s is None:
            gap.since_s, gap.bound_s, gap.is_on_disk = now_s, 0.0, True
        gap.is_on_disk &= any(_has_file(self._mesh.nodes[node], ModelId(model)) for node in able)
        gap.bound_s = max(gap.bound_s, SERVED_S + max(able.values()))
        if now_s - gap.since_s > gap.bound_s:
            who = ", ".join(f"{node} in {load_s:.0f} s" for node, load_s in sorted(able.items())[:5])
            since = f"unserved for {now_s - gap.since_s:.0f} s"
            raise InvariantError(f"{model} is wanted, {since}, and could be served by {who}")

    def _able(self, spec: ModelSpec, running: list[SimNode]) -> Iterator[tuple[NodeId, float]]:
        """Yield the nodes that could serve a model now or are about to, with how long that takes."""
        for node in running:
            rig = node.rig
            if rig is None or node.core.view.leaving:
                continue
            load_s = spec.size_bytes / node.machine.load_bytes_per_s
            if not _has_file(node, spec.id):
                load_s += spec.size_bytes / node.machine.download_bytes_per_s + _DOWNLOAD_S
            is_at_it = spec.id in rig.engines or any(one.model == spec.id for one in node.core.view.me.serving)
            if is_at_it or (self._may_begin(node, spec) and fits(node, spec)):
                yield node.node, load_s

    def _may_begin(self, node: SimNode, spec: ModelSpec) -> bool:
        """Tell whether a node would take a model on unasked."""
        return node.config.serving.fills_gaps and (_has_file(node, spec.id) or self._may_fetch(node, spec))

    def _may_fetch(self, node: SimNode, spec: ModelSpec) -> bool:
        """Tell whether a node would download a model: it may, there is room, and a live member says where it is."""
        free_bytes = node.machine.disk_bytes - (node.disk.fetched_bytes if node.disk is not None else 0)
        is_told = any(
            wanted.model == spec.id and wanted.repository
            for member in node.core.view.members.values() if member.state in LIVE
            for wanted in member.announcement.requested
        )  # fmt: skip
        is_storable = free_bytes >= 2 * (spec.size_bytes + disk_reserve_bytes(spec.size_bytes))
        return node.config.serving.downloads and is_told and is_storable

    def _is_known(self, model: ModelId, running: list[SimNode]) -> bool:
        """Tell whether nobody thinks any more that a node serves a model which does not run."""
        for node in running:
            for replica in node.core.view.replicas.get(model, ()):
                if not self._mesh.hears(replica.node):
                    return False
        return True

    def _is_ready(self, node: SimNode, model: ModelId) -> bool:
        return any(one.model == model and one.state is ServingState.READY for one in node.core.view.me.serving)

    def _check_doubles(self, running: list[SimNode]) -> None:
        """Of two nodes that reach for the same gap one yields, once they know of each other."""
        fillers: dict[ModelId, list[NodeId]] = {}
        for node in running:
            for served in node.core.view.me.serving:
                is_filler = served.is_assigned and node.config.serving.fills_gaps
                if is_filler and served.state in _AT_WORK and _reason(node, served.model) in _FILLS:
                    fillers.setdefault(served.model, []).append(node.node)
        now_s = self._mesh.now_s
        known = self._mesh.nodes
        pairs = {
            _pair(model, one, other)
            for model, nodes in fillers.items() if len(nodes) > 1
            for one in nodes for other in nodes if one < other and self._sees(known[one], known[other])
        }  # fmt: skip
        self._pairs = {pair: self._pairs.get(pair, now_s) for pair in pairs}
        for pair, since_s in self._pairs.items():
            if now_s - since_s > DOUBLE_S and pair not in self._excused:
                model, one, other = pair
                raise InvariantError(f"double claim: {one} and {other} fill the same gap with {model}")

    # -- a mesh in which nothing happens -----------------------------------------------------------------------

    def moves(self) -> int:
        """Return all starts and stops so far."""
        return self.counts.starts + self.counts.stops


_CLAIMS = frozenset({ServingState.CLAIMED, ServingState.DOWNLOADING, ServingState.LOADING})
_OF_MEMBERS = ("member ", "refuted", "this node", "a node was")


def _is_of_members(effect: do.Notify) -> bool:
    return effect.message.startswith(_OF_MEMBERS)


def _has_file(node: SimNode, model: ModelId) -> bool:
    return node.disk is not None and model in node.disk.files


def _pair(model: ModelId, one: NodeId, other: NodeId) -> tuple[ModelId, NodeId, NodeId]:
    return (model, one, other) if one < other else (model, other, one)


def _reason(node: SimNode, model: ModelId) -> Reason | None:
    local = node.core.view.local.get(model)
    return local.reason if local is not None else None


def fits(node: SimNode, spec: ModelSpec, *, alone: bool = False) -> bool:
    """Tell whether a node has room for a model, beside what it has or if it had nothing else."""
    rig, wishes = node.rig, node.config.serving.wishes
    if rig is None:
        return False
    plans = {} if alone else {model: local.plan for model, local in node.core.view.local.items() if local.plan}
    taken = (0, 0) if alone else rig.taken_bytes()
    resources = node.machine.resources(*taken, 0)
    loading = frozenset(model for model, engine in rig.engines.items() if not engine.is_ready)
    room = room_for_one_more(resources, node.machine.build, wishes.max_memory, plans, loading)
    kept = room if alone else _beside_what_waits(node)
    room = Room(
        gpu_bytes=int(min(room.gpu_bytes, kept.gpu_bytes) * _MARGIN),
        host_bytes=int(min(room.host_bytes, kept.host_bytes) * _MARGIN),
    )
    return not isinstance(plan_engine(spec, room, wishes, resources), NoRoom)


def _beside_what_waits(node: SimNode) -> Room:
    """Return what a node's whole memory leaves beside what it was told to serve and has no room for yet."""
    wishes, resources = node.config.serving.wishes, node.machine.resources(0, 0, 0)
    room = room_for_one_more(resources, node.machine.build, wishes.max_memory, {}, frozenset())
    for local in node.core.view.local.values():
        if local.wanted and local.waiting and local.reason is Reason.EXPLICIT and local.spec is not None:
            plan = plan_engine(local.spec, room, wishes, resources)
            if not isinstance(plan, NoRoom):
                on_gpu = room if plan.gpu_layers else replace(room, gpu_bytes=0)
                room = less(on_gpu, plan.memory.total_bytes)
    return room


def served(mesh: SimMesh) -> Counter[str]:
    """Return how many nodes answer for each model."""
    return Counter(
        str(one.model)
        for node in mesh.running() for one in node.core.view.me.serving if one.state is ServingState.READY
    )  # fmt: skip


def check_explicit(mesh: SimMesh) -> None:
    """What a node was told to serve, it serves, as far as it fits beside the rest; the first one in any case."""
    for node in mesh.running():
        for number, name in enumerate(node.config.serving.requested):
            spec = mesh.library.named(ModelId(name.removeprefix(f"{HUB}/")))
            if spec is None or not _has_file(node, spec.id):
                continue
            if not fits(node, spec, alone=number == 0 and name == spec.id):
                continue
            if not any(one.model == spec.id and one.state is ServingState.READY for one in node.core.view.me.serving):
                raise InvariantError(f"{node.node} was told to serve {spec.id}, which fits, and does not")


def check_calm(watch: ServingWatch, before: int) -> None:
    """Nothing starts or stops where nothing happens. `before` are the moves at the beginning of the calm."""
    if watch.moves() != before:
        raise InvariantError(f"{watch.moves() - before} starts and stops without a reason")


STARTS_PER_CHANGE = 4.0


def check_moves(watch: ServingWatch, models: int) -> None:
    """No flapping: starts and stops are bounded by what happened, and by how many models there are."""
    counts = watch.counts
    bound = STARTS_PER_CHANGE * (counts.changes + models)
    if watch.moves() > bound or counts.flaps > counts.changes:
        moves = f"{counts.starts} starts, {counts.stops} stops, {counts.flaps} of one right after the other"
        raise InvariantError(f"flapping: {moves}, for {counts.changes} changes and {models} models")
