"""What is said of this node and of the others over HTTP: the status document, members, tokens, health, diagnostics.

Owns the types of these bodies and answers, of which the reference is made. Decides nothing: handlers read and answer,
and tests hold what they answer against these types.
"""

from typing import Annotated, Literal, NotRequired, TypedDict

from meshllm.api.shapes.models import Fault, ModelDocument


class GpuDocument(TypedDict):
    """One GPU."""

    name: str
    total_bytes: int
    free_bytes: int


class MachineDocument(TypedDict):
    """What was measured of the machine; zeros before that."""

    cores: int
    memory_total_bytes: int
    memory_free_bytes: int
    gpus: list[GpuDocument]
    gpu_problem: str | None


class NodeDocument(TypedDict):
    """This node."""

    id: str
    name: str
    version: str
    uptime_s: float
    address: str


class MeshDocument(TypedDict):
    """The mesh, and what this node may do in it."""

    id: str
    name: str
    is_founder: bool
    rights: list[str]


class EngineDocument(TypedDict):
    """The engine that runs here."""

    kind: str
    version: str
    uses_gpu: bool


class ProblemDocument(TypedDict):
    """A file that looks like a model and is none."""

    path: str
    code: str
    message: str


class UnresolvedDocument(TypedDict):
    """A name that was asked for and means nothing."""

    name: str
    message: str


class ServerDocument(TypedDict):
    """A server elsewhere that answers for models of this node."""

    name: str
    url: str
    is_up: bool
    models: int
    left_out: int
    message: str


class ShareDocument(TypedDict):
    """The part that one node holds of a shared model."""

    node: str
    layers: int
    memory_bytes: int


class SplitDocument(TypedDict):
    """Who holds which part of a shared model."""

    epoch: int
    shares: list[ShareDocument]


class ServedDocument(TypedDict):
    """A model that a member serves."""

    id: str
    digest: str
    state: str
    slots: int
    busy: int
    queued: int
    context_tokens: int
    split: SplitDocument | None


class LentDocument(TypedDict):
    """Memory that a member lends for a shared model."""

    model: str
    host: str
    memory_bytes: int


class MemoryDocument(TypedDict):
    """What a member has for models."""

    total_bytes: int
    free_bytes: int
    gpu_total_bytes: int
    gpu_free_bytes: int
    gpus: int


class HardwareDocument(TypedDict):
    """What a member computes with."""

    cores: int
    gpus: list[str]


class MemberDocument(TypedDict):
    """One node of the mesh, as it says of itself and as this node sees it."""

    id: str
    short: str
    name: str
    is_me: bool
    state: Literal["alive", "suspect", "dead", "left"]
    for_s: float
    role: str
    rights: list[str]
    connected: bool
    rtt_ms: float | None
    lines: Annotated[int, "Warm connections with it on which tunnels go, whoever dialled them; 0 of this node."]
    heard_s: float | None
    vouched_by: str | None
    why: str
    addresses: list[str]
    load: float
    memory: MemoryDocument
    hardware: HardwareDocument
    engine_build: str
    protocol: int
    models: list[ServedDocument]
    lends: list[LentDocument]


class PhaseAtNode(TypedDict):
    """How far a model is at a node."""

    id: str
    phase: str


class MeshModelDocument(TypedDict):
    """A model of the mesh: as warm as at the node where it is warmest."""

    id: str
    warmth: Literal["warm", "loading", "cold"]
    held: bool
    demand_per_min: float
    size_bytes: int
    capabilities: list[str]
    nodes: list[PhaseAtNode]
    lack: str


class StatusDocument(TypedDict):
    """Everything that is known of this node. Times are seconds, sizes bytes."""

    node: NodeDocument
    mesh: MeshDocument | None
    machine: MachineDocument
    engine: EngineDocument | None
    engine_failure: Fault | None
    default_model: str | None
    problems: list[ProblemDocument]
    unresolved: list[UnresolvedDocument]
    requested: list[str]
    servers: list[ServerDocument]
    leaving: bool
    epoch: int
    members: list[MemberDocument]
    models: list[ModelDocument]
    mesh_models: list[MeshModelDocument]


class NodesAnswer(TypedDict):
    """The mesh and all its members, this node first."""

    mesh: MeshDocument | None
    nodes: list[MemberDocument]


class ExpelOrder(TypedDict, total=False):
    """Why a node is expelled."""

    reason: str


class ExpelAnswer(TypedDict):
    """Which node was expelled."""

    revoked: str


# -- tokens ------------------------------------------------------------------------------------------------------


class TokenOrder(TypedDict, total=False):
    """What a token is to be good for."""

    rights: Annotated[list[str] | str, "Names of rights, or one of `own`, `guest`, `client`."]
    ttl_s: float
    uses: Annotated[int, "How many nodes may join by it; any number where nothing is said."]


class TokenAnswer(TypedDict):
    """The token itself, which is shown this once."""

    token: str
    rights: list[str]
    meaning: str
    ttl_s: float
    uses: int | None


class TokenDocument(TypedDict):
    """What is known of a token; never its secret."""

    id: str
    rights: list[str]
    meaning: str
    expires_unix_s: float
    expires_in_s: float
    uses_left: int | None
    made_by: str


class TokensAnswer(TypedDict):
    """The tokens by which somebody can join now."""

    tokens: list[TokenDocument]


class TokenGoneAnswer(TypedDict):
    """Which token is good no more."""

    revoked: str


class TokensGoneAnswer(TypedDict):
    """How many tokens are good no more."""

    revoked: int


# -- health and diagnostics --------------------------------------------------------------------------------------


class HealthAnswer(TypedDict):
    """How the node is; with 503, unhealthy."""

    status: Literal["healthy", "degraded", "unhealthy"]
    node_id: str
    models: Annotated[dict[str, int], "How many there are, by phase and in `total`."]
    peers: int
    uptime_s: float


class LiveAnswer(TypedDict):
    """The process lives."""

    status: Literal["ok"]


class ReadyAnswer(TypedDict):
    """Whether a request would be answered now; with 503, why not."""

    status: Literal["ready", "not_ready"]
    reason: NotRequired[str]


class JournalEntryDocument(TypedDict):
    """One event, and what followed from it."""

    id: str
    at_s: float
    event: str
    detail: str
    effects: list[str]


class SettingsAnswer(TypedDict):
    """The settings of a node."""

    settings: dict[str, object]
    """By name; of a secret only whether there is one."""
    metrics_read: int
    """How often `/metrics` was read since the start."""


class JournalAnswer(TypedDict):
    """The newest events, oldest first."""

    entries: list[JournalEntryDocument]
