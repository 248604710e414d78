"""Everything that can happen to a node, as one union: the counterpart of `core.effects`.

Events are facts in past tense, made by shells and consumed by `MeshCore.handle` in one order. The
daemon's loop stamps each with an id when it takes it; effects carry that id on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshllm.core.announcement import Address
from meshllm.core.cache_use import CacheReading
from meshllm.core.catalog import ModelProblem, ModelReference, ModelSpec
from meshllm.core.credentials import Claim, RejectCode, Revocation, TokenRecord
from meshllm.core.engines import EngineBuild, EngineEndpoint, EngineFailure
from meshllm.core.ids import UNSTAMPED, ConnectionId, EventId, ModelId, NodeId, TokenId
from meshllm.core.intents import Intent
from meshllm.core.messages import Message
from meshllm.core.quota_use import QuotaUse
from meshllm.core.registration import Registration
from meshllm.core.remotes import ListedModel
from meshllm.core.resources import Resources
from meshllm.core.rights import Rights


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stamped:
    id: EventId = field(default=UNSTAMPED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Woke(_Stamped):
    """The moment that `MeshCore.next_wakeup_s` named has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesMeasured(_Stamped):
    """Memory, processors and GPUs were looked at."""

    resources: Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryChanged(_Stamped):
    """The model folders were scanned and differ from what was known. Complete, not a difference."""

    models: tuple[ModelSpec, ...]
    problems: tuple[ModelProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProbed(_Stamped):
    """The engine's self-test ended: with a build, or with the reason why there is none."""

    build: EngineBuild | None
    failure: EngineFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStarted(_Stamped):
    """An engine's process exists; it is loading its model."""

    model: ModelId
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProgressed(_Stamped):
    """A load went on: `share` of the work is done, 0 to 1."""

    model: ModelId
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReady(_Stamped):
    """An engine answers requests. `context_tokens` and `slots` are what it says, not what was asked."""

    model: ModelId
    endpoint: EngineEndpoint
    pid: int
    context_tokens: int
    slots: int
    load_s: float
    resident_bytes: int = 0
    """Memory that the process takes, measured after the load; 0 when unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHung(_Stamped):
    """Work is in flight at an engine and nothing moves any more."""

    model: ModelId
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDrained(_Stamped):
    """No request is in flight at a draining engine, or its time to drain is over."""

    model: ModelId
    abandoned: int = 0
    """Requests that were still in flight when the time was over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineExited(_Stamped):
    """An engine's process is gone and its memory is free."""

    model: ModelId
    failure: EngineFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class LendingReady(_Stamped):
    """The server that this node runs for another node's split listens. Answers `Lend`."""

    model: ModelId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LendingEnded(_Stamped):
    """The server of an epoch is gone, or could not be started, and its memory is free."""

    model: ModelId
    epoch: int
    message: str = ""
    """Why, for people; empty where it was asked to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteProbed(_Stamped):
    """An adopted server was asked for its models: the list, or why there is none. Answers `ProbeRemote`."""

    server: str
    """Its name in the configuration."""
    models: tuple[ListedModel, ...] = ()
    has_list: bool = True
    """False for a server that answers and keeps no list: only models that were named are served then."""
    failure: EngineFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteDoubted(_Stamped):
    """A request could not be sent to an adopted server, or was lost there: a reason to ask it."""

    model: ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWanted(_Stamped):
    """A request names a model that is known and not loaded."""

    model: ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficMeasured(_Stamped):
    """Requests that ended since the last of these events, by model. Batched: never one for each request."""

    finished: tuple[tuple[ModelId, int], ...]
    """At this node's engines."""
    failed: tuple[tuple[ModelId, int], ...] = ()
    from_peers: tuple[tuple[ModelId, int], ...] = ()
    """How many of those came in from other nodes: they are demand there, not here."""
    elsewhere: tuple[tuple[ModelId, int], ...] = ()
    """Requests that came in here and that other nodes answered."""
    in_flight: tuple[tuple[ModelId, int], ...] = ()
    """Requests at this node's engines at the moment; models without any are left out."""
    first_tokens: tuple[tuple[ModelId, tuple[tuple[int, int], ...]], ...] = ()
    """How long streams at this node's engines took to begin: (step, count), see `core.health`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryChanged(_Stamped):
    """Versions were registered here or taken back, or read at the start. Complete, not a difference."""

    entries: tuple[Registration, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthAsked(_Stamped):
    """Somebody wants models to be looked at now, here and at their other hosts; the folders here were just before."""

    model: ModelId | None = None
    """None for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadProgressed(_Stamped):
    """A download went on. `total_bytes` is 0 while unknown."""

    model: ModelId
    done_bytes: int
    total_bytes: int
    peers: tuple[str, ...] = ()
    """Names of the members that the file comes from; none where it comes from elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFinished(_Stamped):
    """A model's files are complete, verified and in their folder."""

    model: ModelId
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFailed(_Stamped):
    """A download ended without the model."""

    model: ModelId
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAsked(_Stamped):
    """A name from the command line was resolved, to a file to fetch or to nothing.

    Names of models on disk need no resolution outside; this is the answer to `ResolveModel`.
    """

    asked: str
    reference: ModelReference | None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentReceived(_Stamped):
    """A person or program asked for a change."""

    intent: Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingChangeAsked(_Stamped):
    """A person or program asked for requests to be routed differently. Answer: Answer, with the same request id."""

    request_id: str
    document: Mapping[str, object]
    """As it came: the body of `POST /routing/config`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaChangeAsked(_Stamped):
    """A person or program asked for another limit of a model's use. Answer: Answer, with the same request id."""

    request_id: str
    model: ModelId
    document: Mapping[str, object]
    """As it came: the body of `POST /quotas/{model}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUsed(_Stamped):
    """The front door counted what models used of their quotas here: complete, not a difference."""

    uses: tuple[QuotaUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheChangeAsked(_Stamped):
    """A person or program asked for the prompt cache to be shared out differently. Answer: Answer, same request id."""

    request_id: str
    document: Mapping[str, object]
    """As it came: the body of `POST /cache/allocation`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMeasured(_Stamped):
    """An engine that was used tells what its prompt cache did since its start."""

    model: ModelId
    reading: CacheReading


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveRequested(_Stamped):
    """The daemon was asked to end: drain, stop the engines, go."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionAsked(_Stamped):
    """Somebody dialled and proved its key. Answer: Admit or Refuse, with the same ticket."""

    ticket: int
    claim: Claim
    address: Address
    now_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeFailed(_Stamped):
    """Somebody dialled and did not get as far as a claim. Answer: Refuse, with the same ticket.

    `code` is what the dialler may know; `reason` and `message` are exact, and for this node alone.
    """

    ticket: int
    address: Address
    code: RejectCode
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMade(_Stamped):
    """A token was made here for somebody to join with."""

    record: TokenRecord
    now_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRevoked(_Stamped):
    """Nobody is to join with a token any more."""

    token: TokenId
    now_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensRotated(_Stamped):
    """Nobody is to join with any token made so far."""

    now_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRevoked(_Stamped):
    """A node was expelled, here; the shell has signed it."""

    revocation: Revocation
    now_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnected(_Stamped):
    """A peer was authenticated and admitted on a new connection."""

    peer: NodeId
    connection: ConnectionId
    address: Address
    """Where the peer is, as this node sees it."""
    is_dialled: bool
    """This node dialled."""
    rights: Rights
    rtt_s: float
    issuers: tuple[NodeId, ...] = ()
    """The admins between the peer's certificate and the root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RightsGranted(_Stamped):
    """This node was given a certificate: it joined, or its rights changed."""

    rights: Rights


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLost(_Stamped):
    """A connection to a peer ended. Says nothing of the peer's life."""

    peer: NodeId
    connection: ConnectionId
    code: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialFailed(_Stamped):
    """No address of a peer led to an authenticated connection."""

    peer: NodeId
    code: str
    """`unreachable`, `wrong_identity`, `rejected`, `version_mismatch`, `timeout`, `self`."""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived(_Stamped):
    """A peer said something. Records in it carry valid signatures of their owners: the shell has checked."""

    peer: NodeId
    connection: ConnectionId
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressFound(_Stamped):
    """Addresses where a node may be reached, from a token, the roster, the local network or a flag."""

    peer: NodeId
    addresses: tuple[Address, ...]
    source: str
    """`token`, `roster`, `lan`, `flag`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAddressesChanged(_Stamped):
    """Where this node can be reached, as far as it knows: its interfaces, what peers see, what it was told."""

    addresses: tuple[Address, ...]
    bulk_port: int = 0
    """TCP port for model files at the same hosts; 0 without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTripMeasured(_Stamped):
    """A connection's smoothed round trip, in seconds."""

    peer: NodeId
    rtt_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFailed(_Stamped):
    """Something between here and a peer went wrong: a refused datagram, a broken tunnel. A reason to probe."""

    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerWanted(_Stamped):
    """A connection to a peer is wished for, for a tunnel. Answer: PeerConnected or DialFailed."""

    peer: NodeId
    for_s: float = 300.0
    """How long the connection is kept, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesRevoked(_Stamped):
    """The list of revoked nodes changed: complete, not a difference."""

    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLagged(_Stamped):
    """The daemon's own event loop was late by this much: its verdicts on others are worth less."""

    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slept(_Stamped):
    """The machine or the process was stopped for a while."""

    gap_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(_Stamped):
    """A background task of the daemon ended by a mistake of ours; the daemon goes on."""

    task: str
    message: str


Event = (
    Woke | ResourcesMeasured | InventoryChanged
    | EngineProbed | EngineStarted | EngineProgressed | EngineReady | EngineHung | EngineDrained | EngineExited
    | LendingReady | LendingEnded
    | ModelWanted | TrafficMeasured | RemoteProbed | RemoteDoubted | RegistryChanged | HealthAsked
    | DownloadProgressed | DownloadFinished | DownloadFailed | ModelAsked
    | IntentReceived | RoutingChangeAsked | QuotaChangeAsked | QuotaUsed | CacheChangeAsked
    | CacheMeasured | LeaveRequested | TaskFailed
    | RightsGranted | AdmissionAsked | HandshakeFailed | TokenMade | TokenRevoked | TokensRotated | NodeRevoked
    | PeerConnected | PeerLost | DialFailed | MessageReceived | AddressFound | OwnAddressesChanged | RoundTripMeasured
    | PathFailed | PeerWanted | NodesRevoked | LoopLagged | Slept
)  # fmt: skip
