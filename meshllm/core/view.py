"""The immutable snapshot that travels sideways: what is known of the mesh at one epoch.

`MeshCore` makes a new one with every change; everybody else only reads. A view is never wrong about
its own epoch and always a little old: reads that inform are fine, decisions belong to the core.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from meshllm.core.announcement import Announcement, ServedModel
from meshllm.core.catalog import ModelProblem, ModelSpec
from meshllm.core.credentials import Revocation, TokenRecord
from meshllm.core.engines import EngineBuild, EngineEndpoint, EngineFailure, EnginePlan, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import NameIndex
from meshllm.core.resources import Resources
from meshllm.core.standing import MemberState


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
    waiting: str = ""
    """What it waits for, in words: `capacity: needs 9.1 GB, 3.2 GB are free`; or empty."""
    progress: LoadProgress | None = None
    endpoint: EngineEndpoint | None = None
    """Set if and only if the state is ready or draining."""
    plan: EnginePlan | None = None
    failure: EngineFailure | None = None
    """The last failure; stays until the model is ready again."""
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

    @property
    def is_ready(self) -> bool:
        """Tell whether it takes new requests."""
        return self.state is EngineState.READY


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
    def has_found_nobody(self) -> bool:
        """Tell whether the time for joining is over and this node knows of no other."""
        return not self.joining and len(self.members) == 1
