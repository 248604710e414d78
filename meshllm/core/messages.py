"""What peers say to one another on the control stream, as one union of typed values.

Owns the shapes. Decides nothing: `members.membership` and `members.gossip` do. Doesn't know bytes:
`wire.codec` turns every class listed in `Message` into a frame named after `KINDS` and back.
"""

from dataclasses import dataclass

from meshllm.core.announcement import Record
from meshllm.core.credentials import Revocation, TokenRecord
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Intent, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Asks whether the receiver lives. Answer: Ack."""

    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Answers a ping, with its number."""

    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PingRequest:
    """Asks the receiver to ping a third member. Answer: PingReply, if that one lives."""

    seq: int
    target: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class PingReply:
    """The third member answered."""

    seq: int
    target: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestEntry:
    """How new the sender's record of a node is."""

    node: NodeId
    incarnation: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What the sender knows, in short: one hash of everything, one for each bucket, then entries.

    `is_answer` tells the second half of an exchange from the first.
    """

    summary: bytes
    buckets: tuple[bytes, ...] = ()
    entries: tuple[DigestEntry, ...] = ()
    of_buckets: tuple[int, ...] = ()
    """The buckets that `entries` are complete for."""
    is_answer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """Records that the receiver lacked, and the nodes of which the sender wants records."""

    records: tuple[Record, ...] = ()
    wanted: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Records that have just changed."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The sender's own finding about a member, at an incarnation. The receiver checks for itself."""

    node: NodeId
    incarnation: int
    is_dead: bool
    """False: suspected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """The sender is about to go."""

    record: Record
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustDigest:
    """What the sender knows of expelled nodes and, among admins, of tokens: one hash each. Answer: what it knows."""

    revocations: bytes
    tokens: bytes = b""
    """Empty from and to nodes that are no admins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """Nodes that were expelled, each in an admin's signed words, which every member keeps and passes on."""

    entries: tuple[Revocation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens that were given out, from admin to admin."""

    records: tuple[TokenRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Asks the receiver to change what it serves. Counts only with the right to administer. Answer: OrderResult."""

    intent: Intent
    """Its request id is the sender's, and names the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderResult:
    """How an order ended."""

    request_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthQuestion:
    """Asks the receiver to look at a model now. Answer: its next statement, which it then makes in any case."""

    model: ModelId
    """Empty for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOffer:
    """Asks the receiver to lend memory for an epoch of a split. Counts only with the rights. Answer: SplitAnswer."""

    model: ModelId
    digest: str
    epoch: int
    first_layer: int
    """Of the receiver's, counted from 0."""
    layers: int
    memory_bytes: int
    """What that takes, with KV cache and buffers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitAnswer:
    """The sender's server for an epoch is ready for the host, or there will be none."""

    model: ModelId
    epoch: int
    refusal: str = ""
    """Why not, for people."""
    highest: int = 0
    """The highest epoch that the sender ever agreed to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRelease:
    """The host does not need the receiver's server for an epoch any more, or never will."""

    model: ModelId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitEnded:
    """The sender's server for an epoch is gone, though nobody asked for that."""

    model: ModelId
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReport:
    """The sender could not use what the receiver said."""

    code: str
    message: str


Message = (
    Ping | Ack | PingRequest | PingReply | Digest | Delta | Push | Verdict | Leaving | ErrorReport
    | TrustDigest | Revocations | Tokens | Order | OrderResult | HealthQuestion
    | SplitOffer | SplitAnswer | SplitRelease | SplitEnded
)  # fmt: skip

KINDS: dict[str, type[Message]] = {
    "ping": Ping, "ack": Ack, "ping_request": PingRequest, "ping_reply": PingReply, "digest": Digest, "delta": Delta,
    "push": Push, "verdict": Verdict, "leaving": Leaving, "error": ErrorReport, "trust_digest": TrustDigest,
    "revocations": Revocations, "tokens": Tokens,
    "order": Order, "order_result": OrderResult, "health_question": HealthQuestion,
    "split_offer": SplitOffer, "split_answer": SplitAnswer, "split_release": SplitRelease, "split_ended": SplitEnded,
}  # fmt: skip
"""The name of each kind on the wire."""
