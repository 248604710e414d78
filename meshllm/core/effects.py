"""Everything that the core can ask of the world, as one union: the counterpart of `core.events`.

Effects are orders in the imperative. `daemon.carry_out` obeys them; what comes of an order returns
as an event. `cause` is the id of the event that led to the order.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from meshllm.core.announcement import Address, DefaultChoice, ModelOrder
from meshllm.core.cache_config import CacheConfig
from meshllm.core.catalog import ModelReference
from meshllm.core.credentials import RejectCode, Revocation, TokenRecord
from meshllm.core.engines import EnginePlan
from meshllm.core.ids import UNSTAMPED, ConnectionId, EventId, ModelId, NodeId
from meshllm.core.intents import Outcome
from meshllm.core.messages import Message
from meshllm.core.quota_config import QuotaChoice
from meshllm.core.quota_use import QuotaUse
from meshllm.core.remotes import RemoteBackend
from meshllm.core.rights import Rights
from meshllm.core.routing_config import RoutingChoice, RoutingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class _Caused:
    cause: EventId = field(default=UNSTAMPED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPeer:
    """A worker of a split, and where its machine is reached."""

    node: NodeId
    name: str
    addresses: tuple[Address, ...]
    """TCP, the most useful first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEngine(_Caused):
    """Run a model. Answers: EngineStarted, EngineProgressed, then EngineReady or EngineExited."""

    plan: EnginePlan
    peers: tuple[SplitPeer, ...] = ()
    """One for each worker of `plan.split`, in the same order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lend(_Caused):
    """Run a worker's server for one epoch of another node's split. Answers: LendingReady, or LendingEnded."""

    model: ModelId
    digest: str
    epoch: int
    host: NodeId
    """Nobody else may use it."""
    first_layer: int
    layers: int
    memory_bytes: int
    threads: int
    path: str = ""
    """This node's own copy of the file, which spares the network most of the first load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLending(_Caused):
    """End the server of an epoch. Answer: LendingEnded."""

    model: ModelId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainEngine(_Caused):
    """Wait until no request is in flight, at most `within_s`. Answer: EngineDrained."""

    model: ModelId
    within_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopEngine(_Caused):
    """End an engine's process: politely, then firmly; at once if `kill`. Answer: EngineExited."""

    model: ModelId
    kill: bool = False
    slots_bytes: int = 0
    """What its conversations may take of the disk, where they are to be saved first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepSlots(_Caused):
    """Let saved conversations take so much of the disk, all together; what is over goes, the oldest first."""

    most_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRemote(_Caused):
    """Ask an adopted server which models it has. Answer: RemoteProbed."""

    server: RemoteBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveModel(_Caused):
    """Find out which file a name stands for that is neither on disk nor in the catalogue. Answer: ModelAsked."""

    asked: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSource:
    """A peer with a file, and where it gives it."""

    node: NodeId
    name: str
    addresses: tuple[Address, ...]
    """TCP, the most useful first."""
    size_bytes: int
    """Of the file, by its word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download(_Caused):
    """Fetch a model's files. Answers: DownloadProgressed, then DownloadFinished or DownloadFailed."""

    reference: ModelReference
    peers: tuple[PeerSource, ...] = ()
    """Members to ask for the file before anybody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelDownload(_Caused):
    """Stop fetching a model; what is there stays for the next try. No answer."""

    model: ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(_Caused):
    """Tell whoever sent an intent how it ended."""

    request_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial(_Caused):
    """Connect to a peer, all addresses side by side. Answers: PeerConnected or DialFailed."""

    peer: NodeId
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect(_Caused):
    """End a connection, with a code for the other side. Answer: PeerLost."""

    peer: NodeId
    connection: ConnectionId
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Send(_Caused):
    """Say something to a connected peer. Lost without an answer when the connection is."""

    peer: NodeId
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRoster(_Caused):
    """Write down who is in the mesh and where, for the next start. Replaces what was written before."""

    entries: tuple[tuple[NodeId, tuple[Address, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit(_Caused):
    """Let a dialler in. Answer: PeerConnected.

    With `issues` it gets a certificate with these rights: it has none yet, or wider rights, or its own is old.
    """

    ticket: int
    rights: Rights
    issues: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse(_Caused):
    """Do not let a dialler in. It is told `code`, or nothing at all if `is_silent`; `reason` is for the log."""

    ticket: int
    code: RejectCode
    reason: str
    is_silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepTrust(_Caused):
    """Write down tokens and expelled nodes, for the next start. Replaces what was written before."""

    tokens: tuple[TokenRecord, ...]
    revocations: tuple[Revocation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOrders:
    """What a node remembers of orders from one run to the next."""

    orders: tuple[ModelOrder, ...] = ()
    """Those that it carries for the mesh."""
    default: DefaultChoice | None = None
    override: ModelId | None = None
    """What answers at this node where no model is named."""
    clock: int = 0
    """The highest version of an order that it ever knew."""
    routing: RoutingChoice | None = None
    """How requests are routed mesh-wide, as it last heard."""
    routing_here: RoutingConfig | None = None
    """How they are routed at this node, where somebody chose that."""
    quotas: tuple[QuotaChoice, ...] = ()
    """What models may be used for, as it last heard."""
    quota_uses: tuple[QuotaUse, ...] = ()
    """What its engines used of that in the running hour and day."""
    caches: CacheConfig | None = None
    """How its prompt cache is shared out, where somebody chose that."""
    held: tuple[ModelId, ...] = ()
    """Models that no request brings back at this node."""
    dropped: tuple[ModelId, ...] = ()
    """Models that were withdrawn from this node."""
    pins: tuple[tuple[ModelId, bool], ...] = ()
    """Models that are to stay in this node's memory, or are not, whatever its configuration says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepOrders(_Caused):
    """Write down what was ordered, for the next start. Replaces what was written before."""

    kept: KeptOrders


class Level(StrEnum):
    """How much people should care about a notice."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify(_Caused):
    """Write a state change to the log."""

    level: Level
    message: str
    fields: tuple[tuple[str, str | int | float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave(_Caused):
    """Everything is stopped: end the daemon."""

    reason: str
    exit_code: int = 0


MeshEffect = Dial | Disconnect | Send | KeepRoster | Admit | Refuse | KeepTrust | KeepOrders
"""What is done about peers."""

Effect = (
    StartEngine | DrainEngine | StopEngine | KeepSlots | Lend | EndLending | ProbeRemote | ResolveModel | Download
    | CancelDownload | Answer | Notify | Leave | MeshEffect
)  # fmt: skip
