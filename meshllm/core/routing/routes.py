"""What routing is asked, and what it answers: routes, a reason to wait, or a refusal.

Owns the shapes alone. Decides nothing: `routing`, `meaning` and `asleep` do. Doesn't know HTTP: the
front door turns refusals into status codes.
"""

from dataclasses import dataclass
from enum import StrEnum

from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.view import LoadProgress

FALLBACK = "fallback"
"""The reason of a route to another model than the one that was asked for."""


class Capability(StrEnum):
    """What a request needs a model to be able to do."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    VISION = "vision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a request says of the model that it wants, besides its name. All of it sorted, so that equals are equal."""

    capabilities: tuple[str, ...] = ()
    """What it has to be able to do: words of `Capability`, `chat`, `tools`, or tags that people gave it."""
    preferred: tuple[str, ...] = ()
    """What it had better be able to do, where there is a choice."""
    min_context: int = 0
    """Tokens that the engine has to take; 0 for any number."""
    has_images: bool = False
    """The request holds images: the model has to see, though nobody said so."""


NO_WISHES = Wishes()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequest:
    """The few facts of a request that routing depends on."""

    model: str | None
    """As the client wrote it; None where it wrote none."""
    needs: Capability | None = None
    wishes: Wishes = NO_WISHES
    is_forwarded: bool = False
    """Another node sent it here: it is served here or refused, never sent on; its model is named by its id."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """Return everything that the model has to be able to do."""
        if self.wishes is NO_WISHES:
            return () if self.needs is None else (self.needs,)
        needs = () if self.needs is None else (self.needs,)
        sight = (Capability.VISION,) if self.wishes.has_images else ()
        return tuple(dict.fromkeys((*needs, *sight, *self.wishes.capabilities)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """This node's own engine."""

    endpoint: EngineEndpoint
    slots: int
    context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Another node's engine, through a tunnel."""

    digest: str
    """Of the file that the route was chosen for; the far end refuses any other. Empty when not known."""
    slots: int
    context_tokens: int
    in_flight: int = 0
    """Requests at the engine when its node last said so: computed and queued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to an answer, with the reason that `X-Mesh-Route-Reason` shows."""

    model: ModelId
    node: NodeId
    target: Local | Remote
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """The ways to an answer, best first; never empty."""

    model: ModelId
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The model is known and not ready: hold the request and ask again when the view changes."""

    model: ModelId
    message: str
    is_asleep: bool
    """Nobody is loading it yet: the request itself has to ask for it (`ModelWanted`)."""
    progress: LoadProgress | None = None
    is_fallback: bool = False
    """It stands in for a name that nothing has."""


class RefusalCode(StrEnum):
    """Why a request has no route. The front door knows the HTTP status of each."""

    MODEL_NOT_FOUND = "model_not_found"
    AMBIGUOUS_MODEL = "ambiguous_model"
    NO_DEFAULT_MODEL = "no_default_model"
    CAPABILITY_NOT_SUPPORTED = "capability_not_supported"
    NO_CAPABLE_MODEL = "no_capable_model"
    CONTEXT_TOO_LONG = "context_length_exceeded"
    NO_CAPACITY = "no_capacity"
    MODEL_HELD = "model_held"
    MODEL_DISABLED = "model_disabled"
    MODEL_NOT_LOADED = "model_not_loaded"
    MODEL_UNLOADED = "model_unloaded"
    MODEL_FAILED = "model_failed"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """There is no route, and waiting would not help."""

    code: RefusalCode
    message: str
    model: str = ""
    is_unknown: bool = False
    """Nothing anywhere has the name: the one refusal that another model may stand in for."""
    param: str = ""
    """The field of the request that is at fault, where that is not its model's name."""
