"""What is said to and of single models over HTTP: their life, health, versions, files, and plain prompts to them.

Owns the types of these bodies and answers, of which the reference is made. Decides nothing: handlers read and answer,
and tests hold what they answer against these types.
"""

from typing import Annotated, Literal, NotRequired, TypedDict

Status = Literal["loaded", "unloaded", "reloading", "not_found", "no_loader_config", "internal_error"]
"""The closed vocabulary that clients of the lifecycle routes know."""
Known = Literal["loaded", "unloaded", "reloading"]
HealthWord = Literal["unknown", "healthy", "degraded", "unhealthy", "loading"]
ModelName = Annotated[str, "Any name of the model: id, alias, or the name of a hub."]
OtherName = Annotated[str, "The same by another name of the field."]
Scope = Annotated[str, "`node`, `mesh`, or the id of another node; the mesh where this node may order that."]


class ErrorFacts(TypedDict):
    """What went wrong: `code` for programs, `message` for people."""

    message: str
    type: str
    param: Annotated[str | None, "The part of the request that is at fault."]
    code: str | None


class ErrorAnswer(TypedDict):
    """Every error."""

    error: ErrorFacts


class LoadOrder(TypedDict):
    """Bring a model into memory."""

    model_id: ModelName
    model: NotRequired[OtherName]
    scope: NotRequired[Scope]
    wait: NotRequired[Annotated[bool, "False: 202 at once."]]


class UnloadOrder(LoadOrder):
    """Take a model out of memory; it stays known, and a request for it brings it back."""

    hold: NotRequired[Annotated[bool, "No request brings it back, only an order."]]
    force: NotRequired[Annotated[bool, "Requests that are running are broken off."]]


class PinOrder(TypedDict):
    """Keep a model in memory once it is there, or no longer."""

    model_id: ModelName
    model: NotRequired[OtherName]
    pinned: NotRequired[Annotated[bool, "True where nothing is said."]]
    scope: NotRequired[Annotated[str, "`node` where nothing is said."]]


class ModelQuestion(TypedDict):
    """Which model is meant."""

    model_id: ModelName
    model: NotRequired[OtherName]


class DefaultOrder(TypedDict):
    """Choose what answers where no model is named; null for a node ends its own choice."""

    model_id: Annotated[str | None, "Any name of the model."]
    model: NotRequired[OtherName]
    scope: NotRequired[Scope]


class DropOrder(TypedDict):
    """Withdraw a model; a node whose only one it was leaves."""

    model: ModelName
    model_id: NotRequired[OtherName]
    everywhere: NotRequired[Annotated[bool, "At all nodes of the mesh."]]
    keep_running: NotRequired[Annotated[bool, "The node stays in any case."]]
    force: NotRequired[Annotated[bool, "Requests that are running are broken off."]]


class LifeAnswer(TypedDict):
    """What became of an order; with a status of 202 it goes on."""

    model_id: str
    status: Status
    error: NotRequired[str]


class PinAnswer(TypedDict):
    """Whether a model is kept."""

    model_id: str
    pinned: bool


class DefaultAnswer(TypedDict):
    """What answers where no model is named, and what did before."""

    default_model_id: str | None
    previous: str | None
    scope: str


class DropAnswer(TypedDict):
    """What was withdrawn."""

    dropped: str


class RescanAnswer(TypedDict):
    """It goes on; the list of models shows what is found."""

    status: Literal["rescanning"]


class ModelAtNode(TypedDict):
    """One node's word about a model."""

    node_id: str
    name: str
    status: Status
    phase: str
    error: NotRequired[str]


class ModelStatusAnswer(TypedDict):
    """Where a model is, node by node."""

    model_id: str
    status: Status
    mesh_status: NotRequired[Status]
    phase: NotRequired[str]
    error: NotRequired[str]
    nodes: NotRequired[list[ModelAtNode]]


# -- health ------------------------------------------------------------------------------------------------------


class HealthChecks(TypedDict):
    """What was measured of a model; null for what was not."""

    file_integrity: str
    memory: str
    response_time_s: float | None
    error_rate: float | None


class HostFacts(TypedDict):
    """A node that serves a model, or has its file."""

    node_id: str
    name: str
    status: Known
    digest: str | None
    slots: int
    context_length: int
    health_status: HealthWord


class HostHealth(HostFacts):
    """How a model is at one node."""

    measured_by: str
    last_check: str | None
    checks: HealthChecks
    reason: NotRequired[str]


class ModelHealthAnswer(TypedDict):
    """How a model is: as well as at its best host."""

    model_id: str
    health_status: HealthWord
    status: Known
    last_check: Annotated[str | None, "A moment as `2026-01-19T08:00:00Z`."]
    checks: HealthChecks
    nodes: list[HostHealth]


class HealthCheckOrder(TypedDict, total=False):
    """Look at one model now, or without a name at all of them."""

    model_id: ModelName
    model: OtherName


class HealthCheckAnswer(TypedDict):
    """What was found."""

    results: list[ModelHealthAnswer]
    duration_ms: int


# -- versions ----------------------------------------------------------------------------------------------------


class Notes(TypedDict, total=False):
    """What was written down beside a version."""

    tags: list[str]
    source: str
    license: str
    format: str
    quantization: str
    temperature: float
    max_workers: int
    max_tokens: int
    context_length: int


class RegisterOrder(Notes):
    """Register a file as a version of a name."""

    id: Annotated[str, "The name."]
    model_id: NotRequired[OtherName]
    version: NotRequired[Annotated[str, "`major.minor.patch`; `1.0.0` where nothing is said."]]
    path: Annotated[str, "A file, or the folder of one model, below a model folder."]
    alias: NotRequired[str]
    digest: NotRequired[Annotated[str, "What the file has to be."]]
    capabilities: NotRequired[Annotated[list[str], "More tags."]]


class VersionDocument(Notes):
    """One version of a model."""

    version: str
    model: str
    digest: str | None
    path: str | None
    size_bytes: int
    registered_at: str | None
    nodes: list[str]
    aliases: list[str]


class RegisteredAnswer(Notes):
    """The version that was registered."""

    id: str
    object: Literal["model.version"]
    version: str
    model: str
    digest: str
    path: str
    size_bytes: int
    registered_at: str
    aliases: list[str]
    nodes: list[str]


class VersionsAnswer(TypedDict):
    """The versions of a name, the newest first."""

    model_id: str
    versions: list[VersionDocument]


class UnregisteredAnswer(TypedDict):
    """The version that was taken back; its file stays."""

    id: str
    version: str
    deleted: bool


# -- one model in detail, and its files --------------------------------------------------------------------------


class Progress(TypedDict):
    """How far a load or a download is."""

    stage: str
    share: float
    done_bytes: int
    total_bytes: int


class Fault(TypedDict):
    """What kept an engine from running."""

    fault: str
    message: str


class ModelDocument(TypedDict):
    """A model of this node."""

    id: str
    state: str
    phase: str
    kind: Literal["engine", "adopted"]
    server: str
    wanted: bool
    held: bool
    dropped: bool
    pinned: bool
    progress: Progress | None
    failure: Fault | None
    waiting: str
    reason: str | None
    why: str
    size_bytes: int
    quantization: str
    parameters: int
    architecture: str
    train_context_tokens: int
    digest: str
    capabilities: list[str]
    context_tokens: int
    slots: int
    memory_bytes: int
    requests: int
    in_flight: int
    pid: int | None
    aliases: list[str]
    versions: list[str]
    health_status: HealthWord
    ready_for_s: float | None
    load_s: float
    restarts: int
    retry_in_s: float | None


class ModelElsewhere(TypedDict):
    """A model that this node does not have."""

    id: str
    phase: str
    aliases: list[str]
    size_bytes: int
    digest: str
    quantization: str
    parameters: int
    architecture: str
    capabilities: list[str]
    context_tokens: int
    slots: int


class ModelDetailAnswer(TypedDict):
    """One model, its files, the memory that it takes, and every node that has it."""

    model: ModelDocument | ModelElsewhere
    files: list[str]
    memory: Annotated[dict[str, str], "The arithmetic of memory, line by line."]
    nodes: list[HostFacts]
    versions: list[VersionDocument]
    health_status: HealthWord


class PullOrder(TypedDict):
    """Download a model."""

    model: ModelName
    name: NotRequired[OtherName]
    model_id: NotRequired[OtherName]


PullLine = TypedDict("PullLine", {
    "status": Literal["downloading", "success"], "share": NotRequired[float], "done_bytes": NotRequired[int],
    "total_bytes": NotRequired[int], "from": NotRequired[list[str]], "model": NotRequired[str],
    "message": NotRequired[str],
})  # fmt: skip
PullLine.__doc__ = "One line of a download: how far it is and from whom, or at last that it is there."


class RemovedAnswer(TypedDict):
    """What was deleted."""

    removed: str
    files: list[str]


# -- plain prompts -----------------------------------------------------------------------------------------------


class GenerateSettings(TypedDict, total=False):
    """How a prompt is completed."""

    model: Annotated[str, "Any name; without one, the default model."]
    max_new_tokens: int
    max_tokens: Annotated[int, "The same by another name of the field."]
    temperature: float
    top_p: float
    top_k: int
    seed: float
    stop: str | list[str]


class GenerateOrder(GenerateSettings):
    """Complete a prompt."""

    prompt: str


class GenerateBatchOrder(GenerateSettings):
    """Complete several prompts."""

    prompts: list[str]


class Generated(TypedDict):
    """One completion."""

    output: str
    cached: bool
    prompt_tokens: int | None
    completion_tokens: int | None


class GenerateAnswer(Generated):
    """One completion, and who made it."""

    model: str


class GenerateBatchAnswer(TypedDict):
    """The completions in the order of their prompts."""

    model: str
    results: list[Generated]
