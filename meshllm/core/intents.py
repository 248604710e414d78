"""What people and programs may ask of a node's models, and how it answers."""

from dataclasses import dataclass
from enum import StrEnum

from meshllm.core.ids import NodeId


class Verb(StrEnum):
    """The kinds of intent."""

    LOAD = "load"
    UNLOAD = "unload"
    DROP = "drop"
    PULL = "pull"
    DEFAULT = "default"
    PIN = "pin"
    UNPIN = "unpin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A request to change what this node serves.

    `load` brings a model into memory; `unload` takes it out (a request brings it back, unless
    `hold`); `drop` withdraws it from this node (only `load` brings it back); `pull` only downloads;
    `default` lets it answer where no model is named; `pin` keeps it in memory once it is there, for
    rest and for others' room alike, and `unpin` ends that.
    """

    verb: Verb
    model: str
    """As asked: a canonical id, a catalogue name, a stem; resolved by the core."""
    request_id: str
    """Names the answer: `effects.Answer` carries it."""
    hold: bool = False
    force: bool = False
    """Do not drain: cut the requests in flight."""
    scope: str = "node"
    """Whom it is for: `node` for the one that is asked, `mesh` for all, or the id of another node."""
    author: NodeId | None = None
    """The node that sent it, when that was another one."""
    keep_running: bool = False
    """For `drop`: stay although it was the only model."""


class OutcomeCode(StrEnum):
    """How an intent ended."""

    DONE = "done"
    UNKNOWN_MODEL = "unknown_model"
    AMBIGUOUS_MODEL = "ambiguous_model"
    NOT_SERVED = "not_served"
    NO_CAPACITY = "no_capacity"
    LOAD_FAILED = "load_failed"
    DOWNLOAD_FAILED = "download_failed"
    SUPERSEDED = "superseded"
    LEAVING = "leaving"
    NOT_ALLOWED = "not_allowed"
    UNREACHABLE = "unreachable"
    STARTING = "starting"
    """The node that was asked has just started, and did not find out in time what it has."""
    NOT_LOADABLE = "not_loadable"
    INVALID_STRATEGY = "invalid_strategy"
    INVALID_VALUE = "invalid_value"
    UNKNOWN_KEY = "unknown_key"
    VERSION_CONFLICT = "version_conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer to an intent: what became of it, in a word for programs and a sentence for people."""

    code: OutcomeCode
    message: str
    model: str = ""
    """Canonical id, where the name could be resolved."""
    param: str = ""
    """What of the request is at fault, where it is one of its parts."""

    @property
    def is_done(self) -> bool:
        """Tell whether the intent was carried out."""
        return self.code is OutcomeCode.DONE
