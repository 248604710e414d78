"""From what a request asks for to where it goes: routing's answer with everything prepared around it.

Owns the connection pools and the routes that are remembered as long as the view is the same. Decides
nothing: `plan_routes` does. Doesn't know clients.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from meshllm.core import limits
from meshllm.core.caches.completions import recipe_of
from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.candidates import candidate_of
from meshllm.core.routing.plan_routes import plan_routes
from meshllm.core.routing.priorities import Priority
from meshllm.core.routing.routes import (
    FALLBACK,
    NO_WISHES,
    Local,
    Refusal,
    Remote,
    Route,
    RouteRequest,
    Routes,
    Wait,
    Wishes,
)
from meshllm.core.view import MeshView
from meshllm.proxy.adopted_pool import AdoptedPool
from meshllm.proxy.paths import InferenceDoor
from meshllm.proxy.pool import EnginePool, Pool, TunnelEnd
from meshllm.proxy.resumable import CHAT
from meshllm.proxy.target import Target
from meshllm.proxy.traffic import ModelTraffic, Traffic, admitted
from meshllm.proxy.tunnel_pool import PathReports, TunnelOpener, TunnelPool

_REMEMBERED = 1024
_MANAGEMENT_CONNECTIONS = 64
_ANY_BYTES = 1 << 62
_ANY_NUMBER = 1 << 30


class Views(Protocol):
    """Who holds the newest view."""

    @property
    def newest(self) -> MeshView:
        """Return the newest view."""

    async def changed(self, epoch: int) -> MeshView:
        """Return the newest view as soon as its epoch differs from the given one."""


class Reports(PathReports, Protocol):
    """Who is told how it goes between here and other nodes, and adopted servers."""

    def doubted(self, model: ModelId) -> None:
        """The adopted server of a model could not be reached, or broke off."""


@dataclass(frozen=True, slots=True)
class Tunnels:
    """The way to other nodes."""

    opener: TunnelOpener
    reports: Reports


class Targets:
    """Where requests go, by question. Forgets everything when the view changes."""

    def __init__(self, views: Views, traffic: Traffic, node: NodeId, management: Path, tunnels: Tunnels) -> None:
        """Read routes from `views`; `management` is the socket of the management app."""
        self.views = views
        self._traffic = traffic
        self._node = node
        self.view: MeshView | None = None
        self.is_watched = False
        """Somebody hears of each request: none takes the straight lane."""
        self.known: dict[Hashable, Target] = {}
        """Those of requests that want nothing but a model."""
        self.chats: dict[str | None, Target] = {}
        """Those of them that the straight lane may take: chats with a model under its own name."""
        self._wished: dict[Hashable, Target] = {}
        """Those of requests that say what their model has to be like."""
        self._off_lane: dict[Hashable, Target] = {}
        """Those of which each request is looked at: for a word to be changed, quotas, copies, kept answers."""
        self._known_here: dict[Hashable, Target] = {}
        """The same for requests that other nodes sent here."""
        self._shadowed: set[object] = set()
        """Models of whose requests some are copied."""
        self._keeps_answers = False
        self._tunnels = tunnels
        self._pools: dict[EngineEndpoint | TunnelEnd, Pool] = {}
        endpoint = EngineEndpoint(socket_path=str(management))
        management_traffic = ModelTraffic(ModelId("management"))
        self._management_pool = EnginePool(endpoint, _MANAGEMENT_CONNECTIONS, management_traffic)
        node_line = b"X-Mesh-Node: %b\r\n" % visible(node)
        self.management = Target(
            model=ModelId("management"), node=node, pool=self._management_pool, traffic=management_traffic,
            admitted=_ANY_NUMBER, at_once=_ANY_NUMBER, context_tokens=0, unasked_bytes=_ANY_BYTES,
            engine_lines=b"X-Request-ID: ", client_lines=node_line,
            answer_lines=b"\r\n%bX-Mesh-Attempts: 1\r\n" % node_line,
        )  # fmt: skip

    def find(self, model: str | None, door: InferenceDoor, wishes: Wishes = NO_WISHES) -> Target | Wait | Refusal:
        """Return where a request goes now; the target of the best route has those of the others with it."""
        request = RouteRequest(model=model, needs=door.needs, wishes=wishes)
        return self._find(self.known if wishes is NO_WISHES else self._wished, door.path, request)

    def find_here(self, model: str, door: InferenceDoor) -> Target | Wait | Refusal:
        """Return where a request goes that another node sent here: to this node's engine or nowhere."""
        return self._find(self._known_here, door.path, RouteRequest(model=model, needs=door.needs, is_forwarded=True))

    def _find(self, known: dict[Hashable, Target], path: bytes, request: RouteRequest) -> Target | Wait | Refusal:
        view = self.views.newest
        if view is not self.view:
            self._renew(view)
        wishes = request.wishes
        key = (request.model, path) if wishes is NO_WISHES else (request.model, path, wishes)
        target = known.get(key)
        if target is None and not request.is_forwarded:
            target = self._off_lane.get(key)
            if target is not None and not self._is_looked_at(target):
                self._keep(known, key, self._off_lane.pop(key))  # priorities are not minded any more
        if target is not None:
            return target
        planned = plan_routes(view, request)
        if not isinstance(planned, Routes):
            return planned
        first, *others = planned.routes
        target = self._prepare(first, view, tuple(self._prepare(route, view) for route in others))
        if self._is_looked_at(target) and not request.is_forwarded:
            known = self._off_lane
        if len(known) < _REMEMBERED:
            self._keep(known, key, target)
        return target

    def _keep(self, known: dict[Hashable, Target], key: tuple[Hashable, ...], target: Target) -> None:
        known[key] = target
        if known is self.known and key == (target.model, CHAT):
            self.chats[target.model] = target

    def _is_looked_at(self, target: Target) -> bool:
        """Tell whether each request is looked at, so that none may take the straight lane."""
        is_odd = isinstance(target.pool, AdoptedPool) or target.is_metered or target.is_shadowed or self._keeps_answers
        return is_odd or self.is_watched or target.traffic.is_minding

    def most(self, target: Target, priority: Priority) -> int:
        """Return how many requests may be in flight for one of a priority to go at once.

        Where priorities meet at a busy engine they are minded from then on, and its requests leave the straight lane.
        """
        traffic = target.traffic
        if priority is not Priority.NORMAL and target.peer is None and traffic.in_flight >= target.slots:
            traffic.mind(priority)
            for key in [key for key, known in self.known.items() if known.traffic is traffic]:
                self._off_lane[key] = self.known.pop(key)
            for model in [model for model, known in self.chats.items() if known.traffic is traffic]:
                del self.chats[model]
        return min(target.at_once, target.engine_room(priority))

    def time_next(self) -> None:
        """Let the next request of each kind take the general path, where it is timed."""
        self.known.clear()
        self.chats.clear()

    def close(self) -> None:
        """Hang up on every engine."""
        for pool in (*self._pools.values(), self._management_pool):
            pool.close()

    def _prepare(self, route: Route, view: MeshView, others: tuple[Target, ...] = ()) -> Target:
        to = route.target
        is_here = isinstance(to, Local)
        pool = self._pool_of(route)
        reason_line = b"X-Mesh-Route-Reason: %b\r\n" % visible(route.reason)
        lines = b"X-Mesh-Node: %b\r\nX-Mesh-Model: %b\r\n" % (visible(route.node), visible(route.model)) + reason_line
        is_fallback = route.reason == FALLBACK
        if is_fallback:
            lines += b"X-Mesh-Fallback: unknown_model\r\n"
        room = admitted(to.slots) if is_here else _ANY_NUMBER
        key = to.endpoint.key if isinstance(to, Local) else ""
        return Target(
            model=route.model, node=route.node, pool=pool, traffic=pool.traffic, admitted=room,
            at_once=0 if others else room, context_tokens=to.context_tokens,
            unasked_bytes=min(_unasked_bytes(to), *(other.unasked_bytes for other in others), _ANY_BYTES),
            client_lines=lines,
            engine_lines=(b"Authorization: Bearer %b\r\n" % key.encode() if key else b"") + b"X-Request-ID: ",
            answer_lines=b"\r\n%bX-Mesh-Attempts: 1\r\n" % lines, slots=to.slots, others=others,
            peer=None if is_here else route.node, word=_word_of(view, route.node), is_fallback=is_fallback,
            candidate=candidate_of(view, route), reason_line=reason_line,
            is_shadowed=route.model in self._shadowed,
            is_metered=view.quotas.is_limiting and view.quotas.of(route.model).is_limiting,
            recipe=_recipe(view, route) if view.caches.config.completions else "",
        )  # fmt: skip

    def _pool_of(self, route: Route) -> Pool:
        to, model = route.target, route.model
        end = to.endpoint if isinstance(to, Local) else TunnelEnd(node=route.node, model=model, digest=to.digest)
        pool = self._pools.get(end)
        if pool is None:
            if isinstance(end, TunnelEnd):
                opener, reports = self._tunnels.opener, self._tunnels.reports
                pool = TunnelPool(end, opener, reports, self._traffic.through(end, model))
            elif end.is_adopted:
                pool = AdoptedPool(end, to.slots, self._traffic.of(model), self._tunnels.reports.doubted)
            else:
                pool = EnginePool(end, to.slots, self._traffic.of(model))
            self._pools[end] = pool
        return pool

    def _renew(self, view: MeshView) -> None:
        """Forget the routes of the last view and the pools of engines that are gone."""
        self.view = view
        self._keeps_answers = bool(view.caches.config.completions)
        self._shadowed = {view.names.resolve(one.of) for one in view.routing.effective.shadow if one.sample}
        self.known.clear()
        self.chats.clear()
        self._off_lane.clear()
        self._wished.clear()
        self._known_here.clear()
        present: set[EngineEndpoint | TunnelEnd | None] = {model.endpoint for model in view.local.values()}
        present |= {
            TunnelEnd(node=replica.node, model=model, digest=replica.served.digest)
            for model, replicas in view.replicas.items()
            for replica in replicas
        }
        for endpoint in [endpoint for endpoint in self._pools if endpoint not in present]:
            self._pools.pop(endpoint).retire()
        self._traffic.keep_tunnels(present)
        self._tunnels.reports.keep({end.node for end in present if isinstance(end, TunnelEnd)})


def _unasked_bytes(to: Local | Remote) -> int:
    """Return up to which size a body certainly fits there, or nobody knows."""
    return to.context_tokens * limits.PROMPT_BYTES_PER_TOKEN or _ANY_BYTES


def _recipe(view: MeshView, route: Route) -> str:
    """Return what answers of an engine depend on beside the request; empty where that is not known."""
    if isinstance(route.target, Local):
        model = view.local.get(route.model)
        return recipe_of(model, view.engine_build) if model is not None else ""
    replicas = view.replicas.get(route.model, ())
    return next((one.served.recipe for one in replicas if one.node == route.node), "")


def _word_of(view: MeshView, node: NodeId) -> object:
    """Return what changes whenever a node says something."""
    member = view.members.get(node)
    if member is None:
        return view.epoch
    return (member.announcement.incarnation, member.announcement.version)


def visible(text: str) -> bytes:
    """Return text for a header: what is not visible ASCII is percent-escaped, so that nothing splits the answer."""
    return quote(text, safe="!#$&'()*+,/:;=?@[]^`{|}~ ").encode()
