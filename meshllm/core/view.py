"""The immutable snapshot that travels sideways: what is known of the mesh at one epoch.

`MeshCore` makes a new one with every change; everybody else only reads. A view is never wrong about
its own epoch and always a little old: reads that inform are fine, decisions belong to the core.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from meshllm.core.announcement import Announcement, DefaultChoice, ModelOrder, ServedModel, SharedModel
from meshllm.core.cache_use import NO_CACHES, CachePicture
from meshllm.core.catalog import ModelProblem, ModelSpec
from meshllm.core.credentials import Revocation, TokenRecord
from meshllm.core.engines import EngineBuild, EngineEndpoint, EngineFailure, EnginePlan, EngineState
from meshllm.core.health import HealthChecks
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.names import NameIndex
from meshllm.core.policy import ModelPolicy
from meshllm.core.quota_config import NO_QUOTAS, QuotaRegister
from meshllm.core.registration import Registration
from meshllm.core.remotes import RemoteState
from meshllm.core.resources import Resources
from meshllm.core.routing_config import NOTHING_CHOSEN, RoutingRegister
from meshllm.core.standing import MemberState


class Reason(StrEnum):
    """Why a node serves a model."""

    EXPLICIT = "explicit"
    """It was named at the start, or somebody ordered it."""
    REQUESTED_BY_REQUEST = "request"
    """A request needed it."""
    UNSERVED_ON_DISK = "unserved_on_disk"
    UNSERVED_DOWNLOAD = "unserved_download"
    LEAST_SERVED_ON_DISK = "least_served_on_disk"
    LEAST_SERVED = "least_served"
    HOT = "hot"
    """The hosts that there are have more to do than they can."""
    WARM = "warm"
    """`min_warm` asks for another host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node as membership sees it, `me` included. Dead and left ones stay for a day."""

    announcement: Announcement
    state: MemberState
    since_s: float
    """When the state began."""
    connected: bool = False
    rtt_s: float | None = None
    """Smoothed round trip of the connection to it; None without one."""
    vouched_by: NodeId | None = None
    """Who told of it or reached it last; None when it speaks to this node itself."""
    last_heard_s: float | None = None
    """When it last spoke to this node, as of the last change of anything else here."""
    why: str = ""
    """Why this node does not reach it, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The members that serve one file: the same digest, whatever they call it."""

    model: ModelId
    """What most of its members call it."""
    members: tuple[NodeId, ...]
    """Those where it is ready, sorted."""
    host: NodeId
    digest: str = ""
    """Empty while a member is still hashing its file: then the group is that member alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A model at another member, as requests may use it."""

    node: NodeId
    name: str
    served: ServedModel
    is_suspect: bool = False
    """Its node did not answer lately: asked last."""
    rtt_s: float | None = None
    """None while unmeasured: not the same as near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgress:
    """How far a model is on its way into memory. `done` and `total` are bytes in a download."""

    stage: str
    """`downloading` or `loading`."""
    share: float
    done_bytes: int = 0
    total_bytes: int = 0
    peers: tuple[str, ...] = ()
    """Names of the members that a download comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model as this node has it: on disk, on its way, in memory, or failed."""

    id: ModelId
    spec: ModelSpec | None
    """What is in memory, else what is on disk. An engine keeps its file, also when that is replaced or deleted."""
    state: EngineState
    wanted: bool
    """Someone asked for it to be in memory."""
    held: bool = False
    """Unloaded with `hold`: requests do not bring it back."""
    dropped: bool = False
    """Withdrawn from this node: only `load` brings it back."""
    pin: bool | None = None
    """Whether somebody ordered that it stays in memory; None: as the configuration says."""
    waiting: str = ""
    """What it waits for, in words: `capacity: needs 9.1 GB, 3.2 GB are free`; or empty."""
    progress: LoadProgress | None = None
    endpoint: EngineEndpoint | None = None
    """Set if and only if the state is ready or draining."""
    plan: EnginePlan | None = None
    failure: EngineFailure | None = None
    """The last failure; stays until the model is ready again."""
    reason: Reason | None = None
    """Why it is wanted here."""
    why: str = ""
    """The same in words, where the node gave it to itself."""
    retry_at_s: float | None = None
    pid: int | None = None
    context_tokens: int = 0
    slots: int = 0
    load_s: float = 0.0
    ready_since_s: float | None = None
    restarts: int = 0
    requests: int = 0
    """Requests finished since the daemon started."""
    last_used_s: float | None = None
    on_disk: ModelSpec | None = None
    """What the next load takes; None while its file is not complete on disk."""
    adopted_from: str = ""
    """The name of the server that has it, where that is an adopted one: nobody here loads or unloads it."""
    adopted_digest: str = ""
    """What tells an adopted model from others of its name: of the server and what that calls it, not of a file."""
    checks: HealthChecks | None = None
    """What was measured of it; None before anything was."""
    shared: SharedModel | None = None
    """With whom it is shared, or is about to be; None where this node holds all of it."""

    @property
    def digest(self) -> str:
        """Return by what it is the same as another one, whatever it is called; empty while that is not known."""
        return self.spec.digest if self.spec is not None else self.adopted_digest

    @property
    def is_ready(self) -> bool:
        """Tell whether it takes new requests: its engine runs, and its answers can be relied on."""
        return self.state is EngineState.READY and (self.checks is None or not self.checks.is_broken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The decision that a node should serve a model."""

    node: NodeId
    model: ModelId
    reason: Reason
    message: str
    """For people: why this model, why here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdModel:
    """A model that the mesh knows and that nobody serves now."""

    model: ModelId
    nodes: tuple[NodeId, ...] = ()
    """Live members that have its file, sorted."""
    digest: str = ""
    size_bytes: int = 0
    order: ModelOrder | None = None
    """The newest order about it: why it is cold, and whether it stays so."""
    lack: str = ""
    """Why nobody can load it, in words and bytes; empty when somebody can."""

    @property
    def is_held(self) -> bool:
        """Tell whether somebody ordered that requests do not bring it back."""
        return self.order is not None and self.order.verb is Verb.UNLOAD and self.order.hold


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshView:
    """Everything that is known, at one epoch. Equal epochs mean equal views."""

    epoch: int
    at_s: float
    me: Announcement
    members: Mapping[NodeId, Member]
    groups: Mapping[str, Group]
    """By digest; where one is not known yet, by node and model."""
    local: Mapping[ModelId, LocalModel]
    names: NameIndex
    """Of local models and of those of other members."""
    default_model: ModelId | None
    resources: Resources | None = None
    """This node's, as last measured; what others are told is coarser."""
    replicas: Mapping[ModelId, tuple[Replica, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """What other members serve, by name; those of one name may differ in their digests."""
    cold: Mapping[ModelId, ColdModel] = field(default_factory=lambda: MappingProxyType({}))
    """Models on members' disks, or wanted by one, that nobody serves; this node's own among them."""
    demand: Mapping[ModelId, float] = field(default_factory=lambda: MappingProxyType({}))
    """Requests a minute in the whole mesh, decayed."""
    orders: Mapping[ModelId, ModelOrder] = field(default_factory=lambda: MappingProxyType({}))
    """The newest order about each model, whoever gave it."""
    default_choice: DefaultChoice | None = None
    """What was chosen mesh-wide; `default_model` is what counts here."""
    routing: RoutingRegister = NOTHING_CHOSEN
    """How requests are routed: what was chosen mesh-wide, and for this node."""
    quotas: QuotaRegister = NO_QUOTAS
    """What models may be used for: as chosen mesh-wide, and as this node's configuration says."""
    caches: CachePicture = NO_CACHES
    """How this node's prompt cache is shared out, and what its engines found in it."""
    policies: Mapping[ModelId, ModelPolicy] = field(default_factory=lambda: MappingProxyType({}))
    """What this node's configuration says, by model."""
    assignment: Assignment | None = None
    """What this node would give itself next, while it claims it."""
    remotes: tuple[RemoteState, ...] = ()
    """The servers that this node adopts."""
    registered: tuple[Registration, ...] = ()
    """Versions that were registered on this node; others' are in their announcements."""
    problems: tuple[ModelProblem, ...] = ()
    engine_build: EngineBuild | None = None
    engine_failure: EngineFailure | None = None
    requested: tuple[str, ...] = ()
    has_inventory: bool = False
    """The model folders were read at least once; before that an unknown name means nothing."""
    tokens: tuple[TokenRecord, ...] = ()
    """Tokens that admins know of. Whoever shows them leaves the hashes out."""
    revocations: tuple[Revocation, ...] = ()
    """Nodes that were expelled."""
    joining: bool = False
    """This node was told of a mesh and has not heard yet who serves what there."""
    leaving: bool = False
    unresolved: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Names that were asked for and stand for nothing, with the reason."""

    @property
    def unread(self) -> str:
        """Return what of its own this node has yet to look at, in words; empty once an unknown name means nothing.

        An adopted server that was never heard of may have any name, like the folders before the first look.
        """
        if not self.has_inventory:
            return "it is looking through its model folders for the first time"
        awaited = next((server.name for server in self.remotes if server.is_awaited), "")
        return f"it has not heard yet what models the server {awaited!r} has" if awaited else ""

    @property
    def has_found_nobody(self) -> bool:
        """Tell whether the time for joining is over and this node knows of no other."""
        return not self.joining and len(self.members) == 1
