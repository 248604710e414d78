"""The management app: which path is answered by which handler, and the socket it listens on.

Owns `ROUTES`, the table that documentation and tests read. Decides nothing else. Listens on a Unix socket in
the runtime folder only: the front door checks Host, Origin, key and limits, and forwards what is not inference.
"""

from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from meshllm import __version__
from meshllm.api.answers import Handler, errors_as_json
from meshllm.api.audit import audited
from meshllm.api.background import Background
from meshllm.api.cache import Caches
from meshllm.api.console_files import ConsoleFiles
from meshllm.api.defaults import Defaults
from meshllm.api.deps import ManagementDeps
from meshllm.api.details import Details
from meshllm.api.diagnostics import Diagnostics
from meshllm.api.files import Files
from meshllm.api.gate import gated
from meshllm.api.generate import Generate
from meshllm.api.health import Health
from meshllm.api.lifecycle import Lifecycle
from meshllm.api.metrics import Metrics
from meshllm.api.model_health import ModelHealth
from meshllm.api.quotas import Quotas
from meshllm.api.registry import Registry
from meshllm.api.routing import Routing
from meshllm.api.settings import Settings
from meshllm.api.stream import StatusStream
from meshllm.api.trust import Trust
from meshllm.core.limits import MANAGEMENT_BODY_BYTES

SHUTDOWN_S = 2.0


@dataclass(frozen=True, slots=True)
class Route:
    """One path of the management API. A `GET` answers `HEAD` too, except for streams."""

    method: str
    path: str
    summary: str
    handler: str
    """Key of the handler in `_handlers`."""


ROUTES = (
    Route("GET", "/", "The web console; its files lie beside it.", "index"),
    Route("GET", "/api/status", "Everything that is known of this node, as one JSON document.", "status"),
    Route(
        "GET", "/api/events", "The same document as an event `status`, then what changes as events `changes`; "
        "`Last-Event-ID` goes on.", "events",
    ),
    Route(
        "POST", "/v1/models/unload", "Take a model out of memory: `model_id`, `scope`, `hold`, `force`, `wait`.",
        "unload",
    ),
    Route("POST", "/v1/models/reload", "Bring a model into memory: `model_id`, `scope`, `wait`.", "reload"),
    Route("POST", "/v1/models/pin", "Keep a model in a node's memory, or not: `model_id`, `pinned`, `scope`.", "pin"),
    Route("POST", "/v1/models/status", "Say where a model is, node by node: `model_id`.", "model_status"),
    Route("POST", "/v1/models/default", "Choose what answers where no model is named: `model_id`, `scope`.", "default"),
    Route("POST", "/v1/models/rescan", "Look at the model folders.", "rescan"),
    Route("POST", "/v1/models/register", "Register a version: `id`, `version`, `path`, `alias`, `digest`.", "register"),
    Route("GET", "/v1/models/{model:.+}/versions", "The versions of a model in the mesh, newest first.", "versions"),
    Route("DELETE", "/v1/models/{model:.+}/versions/{version}", "Take back a version registered here.", "unregister"),
    Route("GET", "/v1/models/{model:.+}/health", "How a model is, node by node.", "model_health"),
    Route(
        "POST", "/mesh/drop", "Withdraw a model from this node: `model`, `everywhere`, `keep_running`, `force`.",
        "drop",
    ),
    Route(
        "POST", "/v1/generate",
        "Complete a `prompt`; `max_new_tokens`, `temperature`, `top_p`, `top_k`, `stop`.", "generate",
    ),
    Route("POST", "/v1/generate/batch", "Complete several `prompts` side by side, in their order.", "generate_batch"),
    Route("POST", "/v1/stream", "Complete a `prompt` piece by piece, as server-sent events.", "generate_stream"),
    Route("POST", "/api/pull", "Download a model: `model`. Progress as one JSON object a line.", "pull"),
    Route("GET", "/api/models/{model}", "One model, its files and the memory that it takes.", "details"),
    Route("DELETE", "/api/models/{model}", "Unload a model and delete its files.", "remove"),
    Route("GET", "/api/nodes", "The mesh and its members: state, round trip, models.", "nodes"),
    Route("POST", "/api/nodes/{node}/revoke", "Expel a node for good: `reason`.", "expel"),
    Route("GET", "/api/tokens", "The tokens by which others can join; never their secrets.", "tokens"),
    Route("POST", "/api/tokens", "Make a token to join by: `rights`, `ttl_s`, `uses`. Shown this once.", "make_token"),
    Route("POST", "/api/tokens/rotate", "Let nobody join by any token made so far.", "rotate_tokens"),
    Route("DELETE", "/api/tokens/{token}", "Let nobody join by a token any more.", "revoke_token"),
    Route("GET", "/api/logs", "Log lines as text: `?model=`, `?tail=`, `?follow=1`.", "logs"),
    Route("GET", "/api/journal", "The newest events and what followed from each: `?count=`.", "journal"),
    Route("GET", "/api/settings", "The settings in force, without secrets; how often `/metrics` was read.", "settings"),
    Route("GET", "/api/limits", "Every written limit by name.", "limits"),
    Route("GET", "/routing/config", "How requests are routed here, and whether node or mesh says so.", "routing"),
    Route(
        "POST", "/routing/config", "Change some of it: any of the keys, `scope` (`mesh`, `node`), `version`.",
        "change_routing",
    ),
    Route("GET", "/routing/stats", "How many requests were routed, and how: `?detailed=true`.", "routing_stats"),
    Route(
        "GET", "/api/explain", "Where a request for `?model=` would go now and why (`?tokens=`), and where the newest "
        "went; or one `?request=` by its id.", "explain",
    ),
    Route(
        "GET", "/quotas/{model:.+}/report", "How much of a model's quotas is used, and which one binds.", "quota_report"
    ),
    Route("GET", "/quotas/{model:.+}", "What a model may be used for.", "quotas"),
    Route(
        "POST", "/quotas/{model:.+}", "Change some of it, for the whole mesh: any limit, alone or below `quotas`; "
        "`on_limit`, `soft_limits`, `emergency`, `version`.", "change_quotas",
    ),
    Route("GET", "/cache/allocation", "How this node's prompt cache is shared out among its models.", "cache"),
    Route(
        "POST", "/cache/allocation", "Change some of it: any key of `[cache]`, or `models` with `allocated_mb` and "
        "`priority`.", "change_cache",
    ),
    Route("GET", "/cache/stats", "What engines found in their prompt caches: `?detailed=true`.", "cache_stats"),
    Route("GET", "/health", "How the node is: 200 healthy or degraded, 503 unhealthy.", "health"),
    Route("GET", "/health/model/{model:.+}", "How a model is, node by node.", "model_health"),
    Route("POST", "/health/check", "Look at models now: `model_id`, or all of them.", "health_check"),
    Route("GET", "/healthz", "200 while the process lives.", "live"),
    Route("GET", "/readyz", "200 when a request would be answered now.", "ready"),
    Route(
        "GET", "/metrics", "Prometheus text; `?scope=mesh` of all members, `?detailed=true` in detail under "
        "`--profile`.", "metrics",
    ),
    Route("GET", "/metrics/quotas", "The reports of all models with quotas: `?detailed=true`.", "all_quotas"),
    Route("GET", "/metrics/cache", "The same as `/cache/stats`.", "cache_stats"),
    Route("GET", "/metrics/routing", "The same as `/routing/stats`.", "routing_stats"),
)  # fmt: skip
"""Every route, in the order in which they are matched."""
STREAMS = frozenset({"/api/events", "/api/logs"})
"""Answers without an end, which `HEAD` has no use for."""


def make_app(deps: ManagementDeps, console: ConsoleFiles | None = None) -> web.Application:
    """Return the management app for a daemon."""
    background, console, generate = Background(), console or ConsoleFiles(), Generate(deps)
    handlers = _handlers(deps, background, console) | {
        "generate": generate.one, "generate_batch": generate.batch, "generate_stream": generate.stream,
    }  # fmt: skip
    app = web.Application(middlewares=[errors_as_json], client_max_size=MANAGEMENT_BODY_BYTES)
    for route in ROUTES:
        handler = gated(route.handler, handlers[route.handler])
        app.router.add_route(route.method, route.path, audited(deps, route.handler, handler))
        if route.method == "GET" and route.path not in STREAMS:
            app.router.add_route("HEAD", route.path, handlers[route.handler])
    console.add_to(app.router)
    app.on_shutdown.append(background.close)
    app.on_cleanup.append(generate.door.close)
    return app


def _handlers(deps: ManagementDeps, background: Background, console: ConsoleFiles) -> dict[str, Handler]:
    stream = StatusStream(deps, background, __version__)
    lifecycle, files = Lifecycle(deps, background), Files(deps, background)
    diagnostics, health, trust = Diagnostics(deps, background), Health(deps), Trust(deps)
    registry, model_health, routing, quotas = Registry(deps), ModelHealth(deps), Routing(deps), Quotas(deps)
    caches, metrics = Caches(deps), Metrics(deps, __version__)
    return {
        "index": console.index, "status": stream.status, "events": stream.events,
        "unload": lifecycle.unload, "reload": lifecycle.reload, "model_status": lifecycle.status,
        "rescan": lifecycle.rescan, "pin": lifecycle.pin, "drop": lifecycle.drop, "pull": files.pull,
        "remove": files.remove, "details": Details(deps).details, "default": Defaults(deps).choose,
        "register": registry.register, "versions": registry.versions, "unregister": registry.unregister,
        "model_health": model_health.model, "health_check": model_health.check,
        "nodes": trust.nodes, "expel": trust.expel, "tokens": trust.tokens, "make_token": trust.make,
        "rotate_tokens": trust.rotate, "revoke_token": trust.revoke,
        "routing": routing.config, "change_routing": routing.change, "routing_stats": routing.stats,
        "explain": routing.explain, "quotas": quotas.quotas, "change_quotas": quotas.change,
        "quota_report": quotas.report, "all_quotas": quotas.all,
        "cache": caches.allocation, "change_cache": caches.change, "cache_stats": caches.stats,
        "logs": diagnostics.logs, "journal": diagnostics.journal, "limits": diagnostics.limits,
        "health": health.health, "live": health.live, "ready": health.ready,
        "metrics": metrics.metrics, "settings": Settings(deps, lambda: metrics.read).settings,
    }  # fmt: skip


class ManagementServer:
    """Runs the app on a Unix socket."""

    def __init__(self, deps: ManagementDeps, socket: Path) -> None:
        """Serve `deps` at `socket`; nothing runs yet."""
        self._socket = socket
        # A request whose client went away stops at once: it only watches.
        self._runner = web.AppRunner(
            make_app(deps), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S
        )

    async def open(self) -> None:
        """Listen. Raises OSError."""
        await self._runner.setup()
        self._socket.unlink(missing_ok=True)  # of a daemon that was killed; the state folder's lock is ours
        await web.UnixSite(self._runner, str(self._socket)).start()
        self._socket.chmod(0o600)

    async def close(self) -> None:
        """End streams, let short requests finish, stop listening."""
        await self._runner.cleanup()
        self._socket.unlink(missing_ok=True)
