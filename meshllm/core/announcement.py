"""What a node says of itself: signed by it, ordered by it, carried by anybody.

Owns the shape and the order of statements. Decides nothing. Signatures and bytes are `wire`'s and
`transport`'s; here a statement that was received keeps its signed bytes beside it, unopened.
"""

from dataclasses import dataclass
from enum import StrEnum

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.resources import Resources
from meshllm.core.rights import Rights

PROTOCOL_VERSION = 1
"""The version of the protocol between nodes that this program speaks."""


class Role(StrEnum):
    """What a node is to the mesh."""

    WORKER = "worker"
    HOST = "host"
    CLIENT = "client"


class ServingState(StrEnum):
    """How far a model is, as other nodes need to know it."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


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
    tokens_per_s: float = 0.0
    """Measured generation speed of one request; 0 when unknown."""
    hit_rate: float = 0.0
    """Share of prompt tokens that came out of the cache, 0 to 1."""


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
    rights: Rights = Rights.NONE
    addresses: tuple[Address, ...] = ()
    models_on_disk: tuple[DiskModel, ...] = ()
    serving: tuple[ServedModel, ...] = ()
    """The first is the primary one."""
    requested: tuple[str, ...] = ()
    demand: tuple[tuple[str, float], ...] = ()
    """Model to requests a minute, decayed; of requests that entered the mesh here."""
    load: float = 0.0
    """Busy share of all slots, 0 to 1."""
    engine_build: str = ""
    rpc_version: str = ""
    protocol: int = PROTOCOL_VERSION
    left: bool = False
    """The node's last word: it has left on purpose."""

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
