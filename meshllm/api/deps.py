"""What the management API needs of the rest of the daemon, as protocols.

Owns no behaviour. Decides nothing. `daemon.management` is the real thing, tests hand in stand-ins.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from meshllm.core.durations import Histogram
from meshllm.core.effects import Effect
from meshllm.core.events import Event
from meshllm.core.http_numbers import HttpReport
from meshllm.core.ids import MeshId, ModelId, NodeId, TokenId
from meshllm.core.intents import Intent, Outcome
from meshllm.core.registration import NO_NOTES, Registration, RegistryNotes
from meshllm.core.rights import Rights
from meshllm.core.routing.route_memory import RouteMemory
from meshllm.core.view import MeshView


class MeshRefusalError(Exception):
    """An order about the mesh that this node cannot carry out; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        """Keep a word for programs: `no_mesh`, `not_permitted`, `unknown_token`, `unknown_node` or another."""
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshFacts:
    """The mesh that a node belongs to, and its place in it."""

    id: MeshId
    name: str
    """Empty for most."""
    rights: Rights
    """What this node may do in it."""
    is_founder: bool
    """It holds the mesh's root key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """What is known of a token that was given out: never its secret."""

    id: TokenId
    rights: Rights
    expires_unix_s: float
    uses_left: int | None
    """None for any number."""
    made_by: NodeId


class RegistryRefusalError(Exception):
    """A version that cannot be registered or taken back; the message is for people."""

    def __init__(self, code: str, message: str, param: str = "") -> None:
        """Keep a word for programs, and the part of the request at fault."""
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationWish:
    """What somebody wants to be registered."""

    name: str
    version: str
    path: str
    """As it was written: a file, or the folder of one model; relative to a model folder, or whole."""
    alias: str = ""
    digest: str = ""
    """What the file has to be; empty for whatever it is."""
    notes: RegistryNotes = NO_NOTES


class Views(Protocol):
    """The newest view and a way to wait for the next."""

    @property
    def newest(self) -> MeshView:
        """Return the newest view."""

    async def changed(self, epoch: int) -> MeshView:
        """Return the newest view as soon as its epoch differs from the given one."""


class JournalEntry(Protocol):
    """One event that the daemon consumed, and what followed."""

    @property
    def at_s(self) -> float:
        """Return when, on the loop's clock."""

    @property
    def event(self) -> Event:
        """Return what happened."""

    @property
    def effects(self) -> tuple[Effect, ...]:
        """Return what was done about it."""


class ManagementDeps(Protocol):
    """Everything that the management API asks of the daemon. All times are the loop's clock, in seconds."""

    @property
    def views(self) -> Views:
        """Return the views."""

    @property
    def address(self) -> str:
        """Return `host:port` of the front door."""

    @property
    def api_key(self) -> str:
        """Return what the front door wants to be shown; empty for nothing."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Return every setting by its name, as it is in force; of secrets whether they are set."""

    @property
    def started_s(self) -> float:
        """Return when the daemon started."""

    async def ask(self, intent: Intent) -> Outcome:
        """Return how an intent ended. Cancelling stops the waiting, not the intent."""

    async def change_routing(self, document: Mapping[str, object]) -> Outcome:
        """Return how a change of how requests are routed ended. Cancelling stops the waiting, not the change."""

    async def change_quotas(self, model: ModelId, document: Mapping[str, object]) -> Outcome:
        """Return how a change of a model's quotas ended. Cancelling stops the waiting, not the change."""

    async def change_caches(self, document: Mapping[str, object]) -> Outcome:
        """Return how a change of how the prompt cache is shared out ended. Cancelling stops the waiting alone."""

    def quota_report(self, model: ModelId) -> dict[str, object]:
        """Return how much of a model's quotas is used, as far as this node knows."""

    @property
    def quota_timezone(self) -> str:
        """Return the name of the zone by whose clock hours and days begin."""

    @property
    def routes(self) -> RouteMemory:
        """Return what the front door remembers of where its requests went."""

    def log_lines(self, model: ModelId | None) -> tuple[str, ...]:
        """Return the newest lines of one engine, or of the daemon for None; oldest first."""

    def in_flight(self, model: ModelId) -> int:
        """Return the number of requests that a model is answering."""

    def left_out(self, nodes: Collection[NodeId], now_s: float) -> Mapping[NodeId, float]:
        """Return the nodes that get no request because others failed there, and for how many seconds more."""

    def lines_by_peer(self) -> Mapping[NodeId, int]:
        """Return how many lines there are with each peer that has any: warm connections on which tunnels go."""

    def counters(self) -> Mapping[str, float]:
        """Return what the front door counted since the start, by name, as in `requests`."""

    def http(self) -> HttpReport:
        """Return what the front door counted and timed of its answers."""

    async def engine_metrics(self) -> Mapping[ModelId, str | None]:
        """Return what each engine that runs here tells of itself, as text; None of one that does not answer."""

    def durations(self) -> Sequence[Histogram] | None:
        """Return what takes how long, by phase and name; None unless the daemon was started to measure it."""

    def journal(self) -> Sequence[JournalEntry]:
        """Return what is remembered of past events, oldest first."""

    def rescan(self) -> None:
        """Look at the model folders soon."""

    def memory(self, model: ModelId) -> tuple[tuple[str, str], ...]:
        """Return a model's memory arithmetic as (what, how much), as if it were loaded beside what runs."""

    @property
    def mesh(self) -> MeshFacts | None:
        """Return which mesh the node belongs to; None before it knows."""

    async def make_token(self, rights: Rights, ttl_s: float, uses: int | None) -> str:
        """Return a new token to share. Raises MeshRefusalError."""

    def tokens(self) -> Sequence[TokenFacts]:
        """Return the tokens by which somebody can join now."""

    async def revoke_token(self, token: TokenId) -> None:
        """Let nobody join by a token any more. Raises MeshRefusalError."""

    async def rotate_tokens(self) -> int:
        """Let nobody join by any token made so far; return how many there were. Raises MeshRefusalError."""

    async def revoke_node(self, node: NodeId, reason: str) -> None:
        """Expel a node for good. Raises MeshRefusalError."""

    async def register(self, wish: RegistrationWish) -> Registration:
        """Register a version when its file is known and hashed. Raises RegistryRefusalError."""

    async def unregister(self, name: str, version: str) -> Registration:
        """Take a version back that was registered here; its file stays. Raises RegistryRefusalError."""

    async def check_health(self, model: ModelId | None) -> None:
        """Look at a model, or all, here and at its hosts; return when the view shows it, or after too long."""

    async def remove(self, model: ModelId) -> tuple[Path, ...]:
        """Delete a model's files and return which they were. Raises OSError."""
