"""What a node says of itself: signed by it, ordered by it, carried by anybody.

Owns the shape and the order of statements. Decides nothing. Signatures and bytes are `wire`'s and
`transport`'s; here a statement that was received keeps its signed bytes beside it, unopened.
"""

from dataclasses import dataclass
from enum import StrEnum

from meshllm.core.ids import NO_MODEL, ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.quota_config import QuotaChoice
from meshllm.core.quota_use import QuotaUse
from meshllm.core.resources import Resources, Usable
from meshllm.core.rights import Rights
from meshllm.core.routing_config import RoutingChoice

PROTOCOL_VERSION = 1
"""The version of the protocol between nodes that this program speaks."""


class Role(StrEnum):
    """What a node is to the mesh."""

    WORKER = "worker"
    HOST = "host"
    CLIENT = "client"


class ServingState(StrEnum):
    """How far a model is, for other nodes. Only `ready` takes requests; all but `draining` and `failed` fill a gap."""

    CLAIMED = "claimed"
    """A lease: the node is about to serve it, and yields to a better claim."""
    DOWNLOADING = "downloading"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    """The node alone can serve it, and cannot now: `trouble` says why. Fills no gap, and is nothing to wait for."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a node may be reached: an IP address in text form, and a UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `192.0.2.7:4000` or `[2001:db8::7]:4000`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskModel:
    """A model on a node's disk. `digest` is empty while the file is being hashed."""

    model: ModelId
    digest: str
    size_bytes: int
    files: int = 1
    """A set of shards has several, and the digest of none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPart:
    """What one machine holds of a model that several share."""

    node: NodeId
    layers: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedModel:
    """How a model is shared: the workers in the order of the layers, then its host, with the output layer."""

    epoch: int
    parts: tuple[SharedPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LentMemory:
    """What a node lends to the host of a model."""

    model: ModelId
    host: NodeId
    epoch: int
    memory_bytes: int
    is_loaded: bool = False
    """It is in use: what is measured free shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that a node answers for, or is about to. Replicas are the same by `digest`, never by name."""

    model: ModelId
    digest: str
    state: ServingState
    slots: int = 0
    busy: int = 0
    """Requests being answered."""
    queued: int = 0
    """Requests waiting at the engine."""
    context_tokens: int = 0
    """What one request may use."""
    capabilities: tuple[str, ...] = ()
    display_name: str = ""
    architecture: str = ""
    quantization: str = ""
    parameters: int = 0
    size_bytes: int = 0
    hit_rate: float = 0.0
    """Share of prompt tokens that came out of the cache, 0 to 1."""
    is_assigned: bool = False
    """The node gave it to itself; nobody asked this node for it. Only such ones yield, and make room unasked."""
    order: int = 0
    """Version of the newest order about it that the node knew when it began to serve it."""
    health: str = "healthy"
    """`healthy`, `degraded` or `unhealthy`, by the node's own checks."""
    trouble: str = ""
    """What is wrong with it, for people."""
    file_integrity: str = ""
    """What the node found when it looked; empty where it does not say so. Likewise `memory`; see `core.health`."""
    memory: str = ""
    response_time_s: float | None = None
    error_rate: float | None = None
    shared: SharedModel | None = None
    """With whom, where the node does not hold it alone."""
    recipe: str = ""
    """What its answers depend on beside the request, file, build and settings, as digits; empty while not known."""

    @property
    def own_bytes(self) -> int | None:
        """Return what the host itself holds of a model that is shared; None where it holds all of it."""
        return None if self.shared is None else self.shared.parts[-1].memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedModel:
    """A model that a node wants to be served somewhere in the mesh, and where its file is."""

    name: str
    """As it was asked for."""
    model: ModelId = NO_MODEL
    """What the name stands for; empty while nobody knows."""
    size_bytes: int = 0
    """Zero when unknown."""
    digest: str = ""
    repository: str = ""
    """`user/repo` on the hub; empty for a file that nobody else can fetch."""
    filename: str = ""
    sha256: str = ""
    package: str = ""
    """Requirement of a Python package that carries the file."""
    min_replicas: int = 1
    """Hosts that it should have, and below which idle ones are not unloaded; 0: only when a request asks for it."""
    min_warm: int = 0
    """Hosts that are kept loaded although nobody asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOrder:
    """What somebody with the right ordered for a model in the whole mesh. The highest (version, author) counts."""

    model: ModelId
    verb: Verb
    """`load` or `unload`."""
    version: int
    """Above all versions that its author knew: a Lamport clock."""
    author: NodeId
    hold: bool = False
    """Requests do not bring it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultChoice:
    """Which model answers where none is named, mesh-wide. The highest (version, author) counts."""

    model: ModelId
    version: int
    author: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """Another name of a model: an alias from a configuration, or a registered version of an id."""

    name: str
    model: ModelId
    version: str = ""
    """`1.1.0` for a registered version; empty for an alias."""
    registered_unix_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A node's statement about itself, ordered by (incarnation, version)."""

    node: NodeId
    name: str
    incarnation: int
    """Raised to refute a rumour of one's death, and with every start."""
    version: int
    """Raised with every change."""
    role: Role
    resources: Resources | None
    usable: Usable | None = None
    """What models may take of `resources` at most; None where the node does not say so."""
    rights: Rights = Rights.NONE
    addresses: tuple[Address, ...] = ()
    models_on_disk: tuple[DiskModel, ...] = ()
    serving: tuple[ServedModel, ...] = ()
    """The first is the primary one."""
    requested: tuple[RequestedModel, ...] = ()
    """What this node wants to be served, by whomever."""
    waiting: tuple[ModelId, ...] = ()
    """Models that nobody serves and that requests wait for at this node, now."""
    orders: tuple[ModelOrder, ...] = ()
    """What was ordered here, or taken over from authors that are gone. Counts only with the right to administer."""
    default: DefaultChoice | None = None
    routing: RoutingChoice | None = None
    """How requests are routed mesh-wide, where this node carries that. Counts only with the right to administer."""
    quotas: tuple[QuotaChoice, ...] = ()
    """What models may be used for, where this node carries that. Counts only with the right to administer."""
    quota_uses: tuple[QuotaUse, ...] = ()
    """What this node's engines used of it in the running hour and day."""
    names: tuple[NamedModel, ...] = ()
    """Aliases and versions that this node gives to models on its disk."""
    demand: tuple[tuple[str, float], ...] = ()
    """Model to requests a minute, decayed; of requests that entered the mesh here."""
    uses: tuple[tuple[str, int], ...] = ()
    """Model to requests that this node's engines answered since its file came."""
    load: float = 0.0
    """Busy share of all slots, 0 to 1."""
    engine_build: str = ""
    rpc_version: str = ""
    """Protocol and build with which it shares models; empty where it does not. Only equal ones share one."""
    lends: tuple[LentMemory, ...] = ()
    """To hosts of models that it holds a part of."""
    unshared: tuple[tuple[ModelId, str], ...] = ()
    """Model on its disk to why no machines can share it with this node as the host, as far as anybody asked."""
    protocol: int = PROTOCOL_VERSION
    fills_gaps: bool = False
    """The node gives itself models that nobody serves."""
    downloads: bool = False
    """It fetches files for that."""
    is_controllable: bool = True
    """It obeys orders of other nodes with the right to give them."""
    keeps_answers: bool = False
    """It keeps answers that others were given, and tells them again to whoever asks for the same."""
    bulk_port: int = 0
    """TCP port, at the same addresses, where members get model files; 0 where none do."""
    is_starting: bool = False
    """It does not know yet what its machine or its engine is: what it seems to lack counts for nothing."""
    left: bool = False
    """The node's last word: it has left on purpose."""

    @property
    def bulk_addresses(self) -> tuple[Address, ...]:
        """Return where its TCP port is reached, the most useful first."""
        return tuple(dict.fromkeys(Address(address.host, self.bulk_port) for address in self.addresses))

    def supersedes(self, other: "Announcement") -> bool:
        """Tell whether this statement is newer than another of the same node: a total order."""
        return (self.incarnation, self.version) > (other.incarnation, other.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An announcement with the signed bytes that it was read from; what nodes pass on to one another.

    `sealed` is empty for one's own, which the transport signs when it is sent, and in simulations.
    """

    announcement: Announcement
    sealed: bytes = b""
