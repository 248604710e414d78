"""Every route of the management API: its path, who handles it, and what goes in and comes out, as types.

Owns `ROUTES`, the one table from which routes are registered and the reference is made: there is no route without its
types. Decides nothing. Doesn't know handlers, only what they are called.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from meshllm.api.schemas import Change
from meshllm.api.shapes import models, node, traffic

_PARAMETER = re.compile(r"{(\w+)(?::[^}]*)?}")


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not one JSON document."""

    media_type: str
    lines: type | None = None
    """What each line of it is, where lines are JSON documents."""


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter after the question mark."""

    name: str
    kind: object
    meaning: str


@dataclass(frozen=True, slots=True)
class Route:
    """One path of the management API. A `GET` answers `HEAD` too, except for streams."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    handler: str
    """Key of the handler in the app."""
    takes: type | Change | None
    """The body; None where none is read."""
    answers: object
    """The type of the document that comes back, or a `Text`."""
    query: tuple[Query, ...] = ()
    status: int = 200
    """Of the answer where all is well."""
    also: tuple[tuple[int, object], ...] = ()
    """What other statuses answer with; those that are not here answer with the envelope of errors."""
    is_body_optional: bool = False
    topic: str = ""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Return the names of the parts of the path that are not fixed."""
        return tuple(_PARAMETER.findall(self.path))

    @property
    def template(self) -> str:
        """Return the path with its parameters by their names alone."""
        return _PARAMETER.sub(r"{\1}", self.path)


HTML, LINES, EVENTS = Text("text/html"), Text("text/plain"), Text("text/event-stream")
PROGRESS = Text("application/x-ndjson", models.PullLine)
DETAILED = Query("detailed", bool, "`true` for more.")
_LIFE = (
    (202, models.LifeAnswer), (404, models.LifeAnswer),
    *((status, models.LifeAnswer | models.ErrorAnswer) for status in (409, 500, 503)),
)  # fmt: skip


def _about(topic: str, *routes: Route) -> tuple[Route, ...]:
    return tuple(replace(route, topic=topic) for route in routes)


_NODE = _about(
    "node",
    Route("GET", "/", "The web console; its files lie beside it.", "index", None, HTML),
    Route(
        "GET", "/api/status", "Everything that is known of this node, as one JSON document.", "status", None,
        node.StatusDocument,
    ),
    Route(
        "GET", "/api/events", "The same document as an event `status`, then what changes as events `changes`; "
        "`Last-Event-ID` goes on.", "events", None, EVENTS,
    ),
)  # fmt: skip
_LIFECYCLE = _about(
    "models",
    Route(
        "POST", "/v1/models/unload", "Take a model out of memory: `model_id`, `scope`, `hold`, `force`, `wait`.",
        "unload", models.UnloadOrder, models.LifeAnswer, also=_LIFE,
    ),
    Route(
        "POST", "/v1/models/reload", "Bring a model into memory: `model_id`, `scope`, `wait`.", "reload",
        models.LoadOrder, models.LifeAnswer, also=_LIFE,
    ),
    Route(
        "POST", "/v1/models/pin", "Keep a model in a node's memory, or not: `model_id`, `pinned`, `scope`.", "pin",
        models.PinOrder, models.PinAnswer,
    ),
    Route(
        "POST", "/v1/models/status", "Say where a model is, node by node: `model_id`.", "model_status",
        models.ModelQuestion, models.ModelStatusAnswer, also=((404, models.ModelStatusAnswer),),
    ),
    Route(
        "POST", "/v1/models/default", "Choose what answers where no model is named: `model_id`, `scope`.", "default",
        models.DefaultOrder, models.DefaultAnswer,
    ),
    Route("POST", "/v1/models/rescan", "Look at the model folders.", "rescan", None, models.RescanAnswer, status=202),
    Route(
        "POST", "/v1/models/register", "Register a version: `id`, `version`, `path`, `alias`, `digest`.", "register",
        models.RegisterOrder, models.RegisteredAnswer, status=201,
    ),
    Route(
        "GET", "/v1/models/{model:.+}/versions", "The versions of a model in the mesh, newest first.", "versions", None,
        models.VersionsAnswer,
    ),
    Route(
        "DELETE", "/v1/models/{model:.+}/versions/{version}", "Take back a version registered here.", "unregister",
        None, models.UnregisteredAnswer,
    ),
    Route(
        "GET", "/v1/models/{model:.+}/health", "How a model is, node by node.", "model_health", None,
        models.ModelHealthAnswer,
    ),
    Route(
        "POST", "/mesh/drop", "Withdraw a model from this node: `model`, `everywhere`, `keep_running`, `force`.",
        "drop", models.DropOrder, models.DropAnswer,
    ),
)  # fmt: skip
_PROMPTS = _about(
    "inference",
    Route(
        "POST", "/v1/generate",
        "Complete a `prompt`; `max_new_tokens`, `temperature`, `top_p`, `top_k`, `stop`.", "generate",
        models.GenerateOrder, models.GenerateAnswer,
    ),
    Route(
        "POST", "/v1/generate/batch", "Complete several `prompts` side by side, in their order.", "generate_batch",
        models.GenerateBatchOrder, models.GenerateBatchAnswer,
    ),
    Route(
        "POST", "/v1/stream", "Complete a `prompt` piece by piece, as server-sent events.", "generate_stream",
        models.GenerateOrder, EVENTS,
    ),
)  # fmt: skip
_FILES = _about(
    "models",
    Route(
        "POST", "/api/pull", "Download a model: `model`. Progress as one JSON object a line.", "pull",
        models.PullOrder, PROGRESS,
    ),
    Route(
        "GET", "/api/models/{model}", "One model, its files and the memory that it takes.", "details", None,
        models.ModelDetailAnswer,
    ),
    Route(
        "DELETE", "/api/models/{model}", "Unload a model and delete its files.", "remove", None, models.RemovedAnswer
    ),
)  # fmt: skip
_MESH = _about(
    "mesh",
    Route(
        "GET", "/api/nodes", "The mesh and its members: state, round trip, lines, models.", "nodes", None,
        node.NodesAnswer,
    ),
    Route(
        "POST", "/api/nodes/{node}/revoke", "Expel a node for good: `reason`.", "expel", node.ExpelOrder,
        node.ExpelAnswer,
    ),
    Route(
        "GET", "/api/tokens", "The tokens by which others can join; never their secrets.", "tokens", None,
        node.TokensAnswer,
    ),
    Route(
        "POST", "/api/tokens", "Make a token to join by: `rights`, `ttl_s`, `uses`. Shown this once.", "make_token",
        node.TokenOrder, node.TokenAnswer, status=201,
    ),
    Route(
        "POST", "/api/tokens/rotate", "Let nobody join by any token made so far.", "rotate_tokens", None,
        node.TokensGoneAnswer,
    ),
    Route(
        "DELETE", "/api/tokens/{token}", "Let nobody join by a token any more.", "revoke_token", None,
        node.TokenGoneAnswer,
    ),
)  # fmt: skip
_DIAGNOSTICS = _about(
    "diagnostics",
    Route(
        "GET", "/api/logs", "Log lines as text: `?model=`, `?tail=`, `?follow=1`.", "logs", None, LINES,
        query=(
            Query("model", str, "Of its engine; of the node where none is named."),
            Query("tail", int, "The last so many."), Query("follow", bool, "Go on with what is written."),
        ),
    ),
    Route(
        "GET", "/api/journal", "The newest events and what followed from each: `?count=`.", "journal", None,
        node.JournalAnswer, query=(Query("count", int, "How many events."),),
    ),
    Route(
        "GET", "/api/settings", "The settings in force, without secrets; how often `/metrics` was read.", "settings",
        None, node.SettingsAnswer,
    ),
    Route("GET", "/api/limits", "Every written limit by name.", "limits", None, dict[str, float]),
)  # fmt: skip
_ROUTING = _about(
    "routing",
    Route(
        "GET", "/routing/config", "How requests are routed here, and whether node or mesh says so.", "routing", None,
        traffic.RoutingDocument,
    ),
    Route(
        "POST", "/routing/config", "Change some of it: any of the keys, `scope` (`mesh`, `node`), `version`.",
        "change_routing", Change(traffic.RoutingDocument, traffic.RoutingChange), traffic.RoutingDocument,
    ),
    Route(
        "GET", "/routing/stats", "How many requests were routed, and how: `?detailed=true`.", "routing_stats", None,
        traffic.RoutingStatsAnswer, query=(DETAILED,),
    ),
    Route(
        "GET", "/api/explain", "Where a request for `?model=` would go now and why (`?tokens=`), and where the newest "
        "went; or one `?request=` by its id.", "explain", None, traffic.ExplainAnswer,
        query=(
            Query("model", str, "Any name of a model."), Query("tokens", int, "What the request needs of a context."),
            Query("count", int, "How many of the newest."), Query("request", str, "The id of one request."),
        ),
    ),
)  # fmt: skip
_QUOTAS = _about(
    "quotas",
    Route(
        "GET", "/quotas/{model:.+}/report", "How much of a model's quotas is used, and which one binds.",
        "quota_report", None, traffic.QuotaReport,
    ),
    Route("GET", "/quotas/{model:.+}", "What a model may be used for.", "quotas", None, traffic.QuotaDocument),
    Route(
        "POST", "/quotas/{model:.+}", "Change some of it, for the whole mesh: any limit, alone or below `quotas`; "
        "`on_limit`, `soft_limits`, `emergency`, `version`.", "change_quotas",
        Change(traffic.QuotaDocument, traffic.QuotaChange), traffic.QuotaDocument,
    ),
)  # fmt: skip
_CACHES = _about(
    "caches",
    Route(
        "GET", "/cache/allocation", "How this node's prompt cache is shared out among its models.", "cache", None,
        traffic.CacheDocument,
    ),
    Route(
        "POST", "/cache/allocation", "Change some of it: any key of `[cache]`, or `models` with `allocated_mb` and "
        "`priority`.", "change_cache", Change(traffic.CacheDocument, traffic.CacheChange), traffic.CacheDocument,
    ),
    Route(
        "GET", "/cache/stats", "What engines found in their prompt caches: `?detailed=true`.", "cache_stats", None,
        traffic.CacheStatsAnswer, query=(DETAILED,),
    ),
)  # fmt: skip
_WATCHING = _about(
    "health and metrics",
    Route(
        "GET", "/health", "How the node is: 200 healthy or degraded, 503 unhealthy.", "health", None,
        node.HealthAnswer, also=((503, node.HealthAnswer),),
    ),
    Route(
        "GET", "/health/model/{model:.+}", "How a model is, node by node.", "model_health", None,
        models.ModelHealthAnswer,
    ),
    Route(
        "POST", "/health/check", "Look at models now: `model_id`, or all of them.", "health_check",
        models.HealthCheckOrder, models.HealthCheckAnswer, is_body_optional=True,
    ),
    Route("GET", "/healthz", "200 while the process lives.", "live", None, node.LiveAnswer),
    Route(
        "GET", "/readyz", "200 when a request would be answered now.", "ready", None, node.ReadyAnswer,
        also=((503, node.ReadyAnswer),),
    ),
    Route(
        "GET", "/metrics", "Prometheus text; `?scope=mesh` of all members, `?detailed=true` in detail under "
        "`--profile`.", "metrics", None, LINES,
        query=(Query("scope", Literal["node", "mesh"], "Whose figures."), DETAILED),
    ),
    Route(
        "GET", "/metrics/quotas", "The reports of all models with quotas: `?detailed=true`.", "all_quotas", None,
        traffic.QuotaReports, query=(DETAILED,),
    ),
    Route(
        "GET", "/metrics/cache", "The same as `/cache/stats`.", "cache_stats", None, traffic.CacheStatsAnswer,
        query=(DETAILED,),
    ),
    Route(
        "GET", "/metrics/routing", "The same as `/routing/stats`.", "routing_stats", None, traffic.RoutingStatsAnswer,
        query=(DETAILED,),
    ),
)  # fmt: skip
_REFERENCE = _about(
    "reference",
    Route(
        "GET", "/openapi.json", "This reference, as OpenAPI 3.1.", "openapi", None, dict[str, object]
    ),
    Route("GET", "/docs", "This reference, as a page.", "docs", None, HTML),
)  # fmt: skip

ROUTES = (
    *_NODE, *_LIFECYCLE, *_PROMPTS, *_FILES, *_MESH, *_DIAGNOSTICS, *_ROUTING, *_QUOTAS, *_CACHES, *_WATCHING,
    *_REFERENCE,
)  # fmt: skip
"""Every route, in the order in which they are matched."""
STREAMS = frozenset({"/api/events", "/api/logs"})
"""Answers without an end, which `HEAD` has no use for."""
