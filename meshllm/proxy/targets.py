"""From what a request asks for to where it goes: routing's answer with everything prepared around it.

Owns the connection pools and the routes that are remembered as long as the view is the same. Decides
nothing: `plan_routes` does. Doesn't know clients.
"""

from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from meshllm.core import limits
from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.serving.routing import (
    FALLBACK,
    Capability,
    Local,
    Refusal,
    RefusalCode,
    Route,
    RouteRequest,
    Routes,
    Wait,
    plan_routes,
)
from meshllm.core.view import MeshView
from meshllm.proxy.forward import Target
from meshllm.proxy.paths import InferenceDoor
from meshllm.proxy.pool import EnginePool
from meshllm.proxy.traffic import ModelTraffic, Traffic, admitted

_REMEMBERED = 1024
_MANAGEMENT_CONNECTIONS = 64
_ANY_BYTES = 1 << 62


class Views(Protocol):
    """Who holds the newest view."""

    @property
    def newest(self) -> MeshView:
        """Return the newest view."""

    async def changed(self, epoch: int) -> MeshView:
        """Return the newest view as soon as its epoch differs from the given one."""


class Targets:
    """Where requests go, by question. Forgets everything when the view changes."""

    def __init__(self, views: Views, traffic: Traffic, node: NodeId, management: Path, *, falls_back: bool) -> None:
        """Read routes from `views`; `management` is the socket of the management app."""
        self.views = views
        self._traffic = traffic
        self._node = node
        self._falls_back = falls_back
        self.view: MeshView | None = None
        self.known: dict[tuple[str | None, bytes], Target] = {}
        self._pools: dict[EngineEndpoint, EnginePool] = {}
        endpoint = EngineEndpoint(socket_path=str(management))
        management_traffic = ModelTraffic(ModelId("management"))
        self._management_pool = EnginePool(endpoint, _MANAGEMENT_CONNECTIONS, management_traffic)
        node_line = b"X-Mesh-Node: %b\r\n" % _visible(node)
        self.management = Target(
            model=ModelId("management"), pool=self._management_pool, traffic=management_traffic,
            admitted=1 << 30, context_tokens=0, unasked_bytes=_ANY_BYTES, engine_lines=b"X-Request-ID: ",
            client_lines=node_line, answer_lines=b"\r\n%bX-Mesh-Attempts: 1\r\n" % node_line,
        )  # fmt: skip

    def find(self, model: str | None, door: InferenceDoor) -> Target | Wait | Refusal:
        """Return where a request goes now."""
        view = self.views.newest
        if view is not self.view:
            self._renew(view)
        known = self.known.get((model, door.path))
        if known is not None:
            return known
        planned = plan_routes(view, RouteRequest(model=model, needs=door.needs, falls_back=self._falls_back))
        if not isinstance(planned, Routes):
            return planned
        target = self._prepare(planned.routes[0])
        if len(self.known) < _REMEMBERED:
            self.known[model, door.path] = target
        return target

    def lacking(self, model: str | None, needs: Capability) -> Refusal | None:
        """Return why a model cannot do what one request needs beyond its path; None where it can or is not known."""
        planned = plan_routes(self.views.newest, RouteRequest(model=model, needs=needs, falls_back=self._falls_back))
        if isinstance(planned, Refusal) and planned.code is RefusalCode.CAPABILITY_NOT_SUPPORTED:
            return planned
        return None

    def close(self) -> None:
        """Hang up on every engine."""
        for pool in (*self._pools.values(), self._management_pool):
            pool.close()

    def _prepare(self, route: Route) -> Target:
        assert isinstance(route.target, Local)  # noqa: S101 - until there are tunnels, views hold no replicas
        endpoint = route.target.endpoint
        pool, traffic, context_tokens = (
            self._pools.get(endpoint),
            self._traffic.of(route.model),
            route.target.context_tokens,
        )
        if pool is None:
            pool = self._pools[endpoint] = EnginePool(endpoint, route.target.slots, traffic)
        lines = b"X-Mesh-Node: %b\r\nX-Mesh-Model: %b\r\nX-Mesh-Route-Reason: %b\r\n" % (
            _visible(route.node), _visible(route.model), _visible(route.reason),
        )  # fmt: skip
        if route.reason == FALLBACK:
            lines += b"X-Mesh-Fallback: unknown_model\r\n"
        return Target(
            model=route.model, pool=pool, traffic=traffic, admitted=admitted(route.target.slots),
            context_tokens=context_tokens,
            unasked_bytes=context_tokens * limits.PROMPT_BYTES_PER_TOKEN or _ANY_BYTES, client_lines=lines,
            engine_lines=(b"Authorization: Bearer %b\r\n" % endpoint.key.encode() if endpoint.key else b"")
            + b"X-Request-ID: ",
            answer_lines=b"\r\n%bX-Mesh-Attempts: 1\r\n" % lines,
        )  # fmt: skip

    def _renew(self, view: MeshView) -> None:
        """Forget the routes of the last view and the pools of engines that are gone."""
        self.view = view
        self.known.clear()
        present = {model.endpoint for model in view.local.values()}
        for endpoint in [endpoint for endpoint in self._pools if endpoint not in present]:
            self._pools.pop(endpoint).retire()


def _visible(text: str) -> bytes:
    """Return text for a header: what is not visible ASCII is percent-escaped, so that nothing splits the answer."""
    return quote(text, safe="!#$&'()*+,/:;=?@[]^`{|}~ ").encode()
