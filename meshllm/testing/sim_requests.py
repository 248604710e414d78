"""Requests in a simulated mesh: they come in at a node, wait for a model, are computed somewhere, and end once.

Owns every request from its arrival to its end, and the seeded arrivals. Decides nothing about ways: `plan_routes`
over the entry node's view and `attempts.choose` do, as in the front door; what is pretended here is the time that
tunnels and engines take. Doesn't know what is expected of a mesh: `serving_invariants` does.

Invariants, raised as AssertionError: a request ends exactly once (I5), and one whose answer has begun is never sent
anywhere else (I6).
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from meshllm.core import events as ev
from meshllm.core.effects import Effect
from meshllm.core.events import Event
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import LOAD_WAIT_S, TUNNEL_OPEN_TIMEOUT_S, TUNNEL_SILENCE_S
from meshllm.core.rights import OWN_MACHINE
from meshllm.core.routing.attempts import Setback, Trail, Way, choose, verdict
from meshllm.core.routing.plan_routes import plan_routes
from meshllm.core.routing.routes import Local, Refusal, Remote, Route, RouteRequest, Routes, Wait
from meshllm.core.routing.tunnel_admission import Crowd, DenialCode, TunnelAsked, admit_tunnel
from meshllm.testing.sim import SimMesh, SimNode
from meshllm.testing.sim_machine import Job

REPORT_S = 1.0
"""How often a front door tells its core of its traffic."""
REFUSED_S = 1.0
"""Until a tunnel to a dead process whose machine is up is known to be over."""
SILENT_SHARE = 0.25
"""Of a request's work, before its first byte."""
COMPLETE, GONE, BROKEN, TIMED_OUT = "complete", "client_gone", "stream_lost", "model_loading"
_RESEND_S = 0.2
_AGAIN_S = 0.5
_SETBACKS = {
    DenialCode.BUSY: Setback.BUSY, DenialCode.NOT_ADMITTED: Setback.NOT_ADMITTED,
    DenialCode.NOT_HOSTING: Setback.NOT_READY, DenialCode.DRAINING: Setback.NOT_READY,
    DenialCode.LOADING: Setback.NOT_READY,
}  # fmt: skip


@dataclass(slots=True, eq=False)
class SimRequest:
    """One request. Times are the simulation's."""

    number: int
    model: str
    entry: NodeId
    life: int
    """Of the entry node's process: with it, the client's connection ends."""
    asked_s: float
    work_s: float
    trail: Trail = field(default_factory=Trail)
    hosts: list[NodeId] = field(default_factory=list)
    """Where it was sent."""
    begun_s: float | None = None
    """When the first byte came."""
    ended_s: float | None = None
    end: str = ""
    """`complete`, or the code of the error."""
    has_waited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """How requests arrive."""

    per_s: float
    """In the whole mesh."""
    models: tuple[str, ...]
    work_s: float = 2.0
    """Of an engine for one request, on average."""
    hot_share: float = 0.5
    """Of the requests that go to the hottest model; half of the rest to the next one, and so on."""
    move_s: float = 60.0
    """How often the heat moves to other models."""
    entries: tuple[str, ...] = ()
    """Where they come in; empty for anywhere."""


class SimRequests:
    """All requests of one mesh."""

    def __init__(self, mesh: SimMesh, seed: int, load_wait_s: float = LOAD_WAIT_S) -> None:
        """Begin with none."""
        self.mesh = mesh
        self.rng = random.Random(seed ^ 0xA5C)
        self.open: set[SimRequest] = set()
        self.ends: Counter[str] = Counter()
        self.accepted = 0
        self.waits_s: list[float] = []
        """Of those that had to wait for a model: until the first byte."""
        self.observers: list[Callable[[SimRequest], None]] = []
        """Told of every end."""
        self._load_wait_s = load_wait_s
        self._parked: dict[NodeId, dict[str, list[SimRequest]]] = {}
        self._asked: dict[tuple[NodeId, ModelId], int] = {}
        """The epoch in which a node last heard that a model is wanted."""
        self._seen: dict[NodeId, int] = {}
        self._elsewhere: dict[NodeId, Counter[ModelId]] = {}
        self._at: Counter[tuple[NodeId, ModelId, NodeId]] = Counter()
        """Requests by (host, model, entry)."""
        self._pattern: Pattern | None = None
        self._hot: list[str] = []
        mesh.observers.append(self._look)
        mesh.endings.append(self._forget)
        mesh.later(REPORT_S, self._report)

    # -- arrivals --------------------------------------------------------------------------------------

    def follow(self, pattern: Pattern | None) -> None:
        """Let requests arrive like this from here on; None for no more."""
        began, self._pattern = self._pattern is None, pattern
        if pattern is not None:
            self._move(pattern)
            if began:
                self._next(pattern)

    @property
    def is_following(self) -> bool:
        """Tell whether requests arrive by themselves."""
        return self._pattern is not None

    def _move(self, pattern: Pattern) -> None:
        """Choose which models are hot."""
        if self._pattern is pattern:
            self._hot = list(pattern.models)
            self.rng.shuffle(self._hot)
            self.mesh.later(pattern.move_s, partial(self._move, pattern))

    def _next(self, pattern: Pattern) -> None:
        self.mesh.later(self.rng.expovariate(pattern.per_s), self._arrive)

    def _arrive(self) -> None:
        pattern = self._pattern
        if pattern is None:
            return
        place = 0
        while place < len(self._hot) - 1 and self.rng.random() > pattern.hot_share:
            place += 1
        entries = [node for node in self.mesh.running() if not pattern.entries or node.node in pattern.entries]
        if entries:
            self.ask(self._hot[place], self.rng.choice(entries).node, self.rng.expovariate(1 / pattern.work_s))
        self._next(pattern)

    def ask(self, model: str, entry: str, work_s: float = 1.0) -> SimRequest:
        """Send a request to a node."""
        node = self.mesh.nodes[NodeId(entry)]
        self.accepted += 1
        request = SimRequest(self.accepted, model, node.node, node.life, self.mesh.now_s, work_s)
        self.open.add(request)
        self._pursue(request)
        return request

    def waiting(self) -> set[str]:
        """Return the names of models that requests wait for."""
        return {name for parked in self._parked.values() for name, requests in parked.items() if requests}

    # -- the way of one request --------------------------------------------------------------------------

    def _pursue(self, request: SimRequest) -> None:
        """Find the next way of a request, as the front door does."""
        if request.begun_s is not None:
            raise AssertionError(f"I6: request {request.number} for {request.model} goes on after its first byte")
        node = self._entry(request)
        if node is None:
            self._end(request, GONE)
            return
        found = plan_routes(node.core.view, RouteRequest(model=request.model))
        if isinstance(found, Refusal):
            self._end(request, found.code.value)
        elif isinstance(found, Wait):
            self._park(request, node)
            self._want(node, found)
        else:
            self._choose(request, node, found)

    def _entry(self, request: SimRequest) -> SimNode | None:
        """Return the node that a request came in at, unless its process has ended."""
        node = self.mesh.nodes[request.entry]
        return node if node.is_up and node.life == request.life else None

    def _choose(self, request: SimRequest, node: SimNode, found: Routes) -> None:
        routes = {route.node: route for route in found.routes}
        ordered = sorted(found.routes, key=partial(self._crowding, node))
        way = choose([self._way(node, route) for route in ordered], request.trail)
        if way is None:
            self._wait_for_room(request, node, found)
            return
        route = routes[way.node]
        request.hosts.append(route.node)
        if isinstance(route.target, Local):
            self._work(request, node, route)
        else:
            self._open(request, node, route)

    def _wait_for_room(self, request: SimRequest, node: SimNode, found: Routes) -> None:
        """Have a request ask again soon that could only go to this node's own full engine; refuse all others."""
        is_here = any(route.node == node.node for route in found.routes) and node.node not in request.trail.setbacks
        if is_here and self.mesh.now_s - request.asked_s < self._load_wait_s:
            self.mesh.later(_AGAIN_S, partial(self._pursue, request))
        else:
            self._end(request, verdict(request.trail).value if request.trail.setbacks else Setback.BUSY.value)

    def _crowding(self, node: SimNode, route: Route) -> tuple[int, float]:
        """Return what orders ways: a free slot anywhere, then the own queue, then the shortest of others."""
        in_flight, slots = self._way(node, route).in_flight, max(route.target.slots, 1)
        if in_flight < slots:
            return 0, 0.0
        return (1, 0.0) if isinstance(route.target, Local) else (2, in_flight / slots)

    def _way(self, node: SimNode, route: Route) -> Way:
        engine = node.rig.engines.get(route.model) if node.rig is not None else None
        if isinstance(route.target, Remote):
            in_flight = max(route.target.in_flight, self._at[route.node, route.model, node.node])
            admitted = 0
        else:
            in_flight, admitted = (engine.in_flight, engine.admitted) if engine is not None else (0, 0)
        return Way(
            node=route.node, is_here=isinstance(route.target, Local), in_flight=in_flight, admitted=admitted,
            context_tokens=route.target.context_tokens,
        )  # fmt: skip

    def _open(self, request: SimRequest, node: SimNode, route: Route) -> None:
        """Open a tunnel; the far end admits it or not."""
        mesh, host = self.mesh, route.node
        if mesh.network.is_cut(node.node, host) or not mesh.hears(host):
            refuses = mesh.refuses(host) and not mesh.network.is_cut(node.node, host)
            after_s = REFUSED_S if refuses else TUNNEL_OPEN_TIMEOUT_S
            mesh.later(after_s, partial(self._failed, request, host, Setback.UNREACHABLE))
            return
        delay_s = mesh.network.arrives_after_s(node.node, host)
        mesh.later(delay_s if delay_s is not None else _RESEND_S, partial(self._knock, request, route))

    def _knock(self, request: SimRequest, route: Route) -> None:
        host = self.mesh.nodes[route.node]
        if not host.is_running:
            self._failed(request, route.node, Setback.UNREACHABLE)
            return
        digest = route.target.digest if isinstance(route.target, Remote) else ""
        engine = host.rig.engines.get(route.model) if host.rig is not None else None
        crowd = Crowd(
            in_flight=engine.in_flight if engine is not None else 0,
            admitted=engine.admitted if engine is not None else 0,
            of_peer=self._at[route.node, route.model, request.entry],
        )
        asked = TunnelAsked(rights=OWN_MACHINE, model=route.model, digest=digest)
        denial = admit_tunnel(host.core.view, asked, crowd)
        if denial is not None:
            self._set_back(request, route.node, _SETBACKS[denial.code])
        else:
            self._work(request, host, route)

    def _work(self, request: SimRequest, host: SimNode, route: Route) -> None:
        """Give an engine the request."""
        place = (host.node, route.model, request.entry)
        job = Job(
            work_s=request.work_s, silent_s=request.work_s * SILENT_SHARE, is_from_peer=host.node != request.entry,
            on_first_byte=partial(self._begun, request), on_end=partial(self._worked, request, place),
        )  # fmt: skip
        if host.rig is not None and host.rig.take(route.model, job):
            self._at[place] += 1
        else:
            self._set_back(request, host.node, Setback.ENGINE_LOST)

    def _begun(self, request: SimRequest) -> None:
        if request.begun_s is None:
            request.begun_s = self.mesh.now_s
            if request.has_waited:
                self.waits_s.append(self.mesh.now_s - request.asked_s)

    def _worked(self, request: SimRequest, place: tuple[NodeId, ModelId, NodeId], is_complete: bool) -> None:  # noqa: FBT001 - a callback
        """An engine is done with a request, or was lost with it."""
        host, model, entry = place
        self._at[place] -= 1
        if is_complete and self._entry(request) is None:
            self._end(request, GONE)
        elif is_complete and not self.mesh.network.is_cut(host, entry):
            if host != entry:
                self._elsewhere.setdefault(entry, Counter())[model] += 1
            self._end(request, COMPLETE)
        else:
            is_known = self.mesh.hears(host) or self.mesh.refuses(host)
            setback = Setback.ENGINE_LOST if self.mesh.hears(host) else Setback.LOST
            after_s = REFUSED_S if is_known else TUNNEL_SILENCE_S
            self.mesh.later(after_s, partial(self._failed, request, host, setback))

    def _failed(self, request: SimRequest, host: NodeId, setback: Setback) -> None:
        """A way is known to have failed; membership is asked to look after the host."""
        node = self._entry(request)
        if node is not None and host != node.node and setback is not Setback.ENGINE_LOST:
            self.mesh.post(node.node, ev.PathFailed(peer=host, reason=setback.value))
        if request.begun_s is not None:
            self._end(request, BROKEN if node is not None else GONE)
        else:
            self._set_back(request, host, setback)

    def _set_back(self, request: SimRequest, host: NodeId, setback: Setback) -> None:
        request.trail.note(host, setback, 0)
        self.mesh.later(_AGAIN_S if setback is Setback.ENGINE_LOST else 0.0, partial(self._pursue, request))

    def _end(self, request: SimRequest, how: str) -> None:
        if request.end:
            raise AssertionError(f"I5: request {request.number} ends twice: {request.end}, {how}")
        request.end, request.ended_s = how, self.mesh.now_s
        self.open.discard(request)
        self.ends[how] += 1
        for observer in self.observers:
            observer(request)

    # -- waiting ---------------------------------------------------------------------------------------

    def _park(self, request: SimRequest, node: SimNode) -> None:
        if not request.has_waited:
            request.has_waited = True
            self.mesh.later(self._load_wait_s, partial(self._give_up, request))
        self._parked.setdefault(node.node, {}).setdefault(request.model, []).append(request)
        self._seen[node.node] = node.core.view.epoch

    def _give_up(self, request: SimRequest) -> None:
        parked = self._parked.get(request.entry, {}).get(request.model, [])
        if request in parked:
            parked.remove(request)
            self._end(request, TIMED_OUT)

    def _want(self, node: SimNode, wait: Wait) -> None:
        """Tell a core that a model is wanted: once in each epoch, however many requests wait."""
        key, epoch = (node.node, wait.model), node.core.view.epoch
        if wait.is_asleep and self._asked.get(key) != epoch:
            self._asked[key] = epoch
            self.mesh.later(0.0, partial(self.mesh.post, node.node, ev.ModelWanted(model=wait.model)))

    def _look(self, node: SimNode, event: Event, effects: tuple[Effect, ...]) -> None:
        """Ask again for those that wait at a node whose view has changed."""
        del event, effects
        if node.node in self._parked and self._seen.get(node.node) != node.core.view.epoch:
            self._seen[node.node] = node.core.view.epoch
            self.mesh.later(0.0, partial(self._again, node))

    def _again(self, node: SimNode) -> None:
        for model, requests in list(self._parked.get(node.node, {}).items()):
            if not requests:
                del self._parked[node.node][model]
                continue
            if node.is_up and node.life == requests[0].life:
                found = plan_routes(node.core.view, RouteRequest(model=model))
                if isinstance(found, Wait):
                    self._want(node, found)
                    continue
            del self._parked[node.node][model]
            for request in requests:
                self._pursue(request)
        if not self._parked.get(node.node):
            self._parked.pop(node.node, None)

    def _forget(self, node: NodeId) -> None:
        """A node's process has ended: the clients that waited there are gone."""
        for requests in self._parked.pop(node, {}).values():
            for request in requests:
                self._end(request, GONE)

    # -- what cores hear of it ---------------------------------------------------------------------------

    def _report(self) -> None:
        """Have every front door tell its core what ended since the last time."""
        for node in self.mesh.running():
            rig = node.rig
            elsewhere = self._elsewhere.pop(node.node, Counter())
            if rig is not None:
                traffic = rig.traffic(elsewhere)
            else:
                traffic = ev.TrafficMeasured(finished=(), elsewhere=tuple(elsewhere.items())) if elsewhere else None
            if traffic is not None:
                self.mesh.post(node.node, traffic)
        self.mesh.later(REPORT_S, self._report)
