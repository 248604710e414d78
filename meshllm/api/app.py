"""The management app: which path is answered by which handler, and the socket it listens on.

Owns the handlers of `ROUTES`, all of which it registers and nothing else. Decides nothing. Listens on a Unix socket in
the runtime folder only: the front door checks Host, Origin, key and limits, and forwards what is not inference.
"""

from collections.abc import Callable
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
from meshllm.api.reference import Part, Reference
from meshllm.api.registry import Registry
from meshllm.api.routes import ROUTES, STREAMS
from meshllm.api.routing import Routing
from meshllm.api.settings import Settings
from meshllm.api.stream import StatusStream
from meshllm.api.trust import Trust
from meshllm.core.limits import MANAGEMENT_BODY_BYTES

SHUTDOWN_S = 2.0


def make_app(
    deps: ManagementDeps, console: ConsoleFiles | None = None, inference: Callable[[], Part] = lambda: ({}, {})
) -> web.Application:
    """Return the management app for a daemon; `inference` describes the routes that the front door answers itself."""
    background, console, generate = Background(), console or ConsoleFiles(), Generate(deps)
    reference = Reference(__version__, inference)
    handlers = _handlers(deps, background, console) | {
        "generate": generate.one, "generate_batch": generate.batch, "generate_stream": generate.stream,
        "openapi": reference.openapi, "docs": reference.docs,
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

    def __init__(self, deps: ManagementDeps, socket: Path, inference: Callable[[], Part] = lambda: ({}, {})) -> None:
        """Serve `deps` at `socket`; nothing runs yet. `inference` describes what the front door answers itself."""
        self._socket = socket
        # A request whose client went away stops at once: it only watches.
        self._runner = web.AppRunner(
            make_app(deps, inference=inference), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S
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
