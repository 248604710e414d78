"""What the management API asks of a daemon, answered by its shells.

Owns nothing but the way to them. Decides nothing. Doesn't know HTTP: `api.deps` says what is asked.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshllm.api.deps import MeshFacts, RegistrationWish, TokenFacts
from meshllm.config import Config
from meshllm.config_shown import shown
from meshllm.core.durations import Histogram
from meshllm.core.events import Event
from meshllm.core.http_numbers import HttpReport
from meshllm.core.ids import ModelId, NodeId, TokenId
from meshllm.core.intents import Intent, Outcome
from meshllm.core.limits import JOURNAL_EVENTS
from meshllm.core.registration import Registration
from meshllm.core.rights import Rights
from meshllm.core.routing.route_memory import RouteMemory
from meshllm.daemon import logs
from meshllm.daemon.asking import Asking
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.engine_metrics import metrics_of
from meshllm.daemon.journal import Entry, Journal
from meshllm.daemon.mesh_link import MeshLink
from meshllm.daemon.profile import Profile
from meshllm.daemon.registrations import Registrations
from meshllm.daemon.trace_export import TraceExport
from meshllm.daemon.upkeep import check_health
from meshllm.daemon.wishes import memory_here
from meshllm.inventory.model_files import delete
from meshllm.inventory.model_watcher import ModelWatcher
from meshllm.proxy.front_door import FrontDoor
from meshllm.proxy.http_counts import report_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The shells that know the answers."""

    asking: Asking
    post: Callable[[Event], None]
    views: CurrentView
    journal: Journal
    profile: Profile | None
    ring: logs.Ring
    door: FrontDoor
    link: MeshLink
    watcher: ModelWatcher
    registry: Registrations
    traces: TraceExport | None
    engine_log: Callable[[ModelId], tuple[str, ...]]
    """Returns the newest lines of an engine, or of the server that lends memory to one elsewhere."""


class Management:
    """The answers of one daemon: `api.deps.ManagementDeps`."""

    def __init__(self, config: Config, started_s: float, asked: Asked) -> None:
        """Ask these; `address` has to be set once the front door is open."""
        self.address = ""
        self.api_key = config.api_key
        self.settings = shown(config)
        self.started_s = started_s
        self.views = asked.views
        self._config = config
        self._asked = asked
        self._asking = asked.asking

    async def ask(self, intent: Intent) -> Outcome:
        """Return how an intent ended."""
        return await self._asking.ask(intent)

    async def change_routing(self, document: Mapping[str, object]) -> Outcome:
        """Return how a change of how requests are routed ended."""
        return await self._asking.change_routing(document)

    async def change_quotas(self, model: ModelId, document: Mapping[str, object]) -> Outcome:
        """Return how a change of a model's quotas ended."""
        return await self._asking.change_quotas(model, document)

    async def change_caches(self, document: Mapping[str, object]) -> Outcome:
        """Return how a change of how the prompt cache is shared out ended."""
        return await self._asking.change_caches(document)

    def quota_report(self, model: ModelId) -> dict[str, object]:
        """Return how much of a model's quotas is used."""
        return self._asked.door.metering.report(model)

    @property
    def quota_timezone(self) -> str:
        """Return the name of the zone by whose clock hours and days begin."""
        return self._config.quota_timezone

    @property
    def routes(self) -> RouteMemory:
        """Return what the front door remembers of where its requests went."""
        return self._asked.door.memory

    def log_lines(self, model: ModelId | None) -> tuple[str, ...]:
        """Return the newest lines of an engine, or of the daemon."""
        if model is None:
            return self._asked.ring.lines()
        return self._asked.engine_log(model)

    def in_flight(self, model: ModelId) -> int:
        """Return the number of requests that a model is answering."""
        return self._asked.door.in_flight(model)

    def left_out(self, nodes: Collection[NodeId], now_s: float) -> Mapping[NodeId, float]:
        """Return the nodes that get no request because tunnels to them failed, and for how many seconds more."""
        return self._asked.door.left_out(nodes, now_s)

    def lines_by_peer(self) -> Mapping[NodeId, int]:
        """Return how many lines there are with each peer that has any."""
        return self._asked.link.lines_by_peer()

    def counters(self) -> Mapping[str, float]:
        """Return what the front door counted, and what became of spans."""
        return {
            **self._asked.door.counters(),
            **(self._asked.traces.counters() if self._asked.traces is not None else {}),
        }

    def http(self) -> HttpReport:
        """Return what the front door counted and timed of its answers."""
        return report_of(self._asked.door.http, self._asked.door.traffic)

    async def engine_metrics(self) -> Mapping[ModelId, str | None]:
        """Return what each engine that runs here tells of itself, as text; None of one that does not answer."""
        return await metrics_of(self.views.newest)

    def durations(self) -> Sequence[Histogram] | None:
        """Return what takes how long; None unless it is measured."""
        return self._asked.profile.histograms() if self._asked.profile is not None else None

    def journal(self) -> Sequence[Entry]:
        """Return the events that are remembered, oldest first."""
        return self._asked.journal.newest(JOURNAL_EVENTS)

    def rescan(self) -> None:
        """Look at the model folders at once."""
        self._asked.watcher.rescan()

    async def look(self) -> None:
        """Look at the model folders; return when the core is told. The caller sets the deadline."""
        await self._asked.watcher.look()

    def memory(self, model: ModelId) -> tuple[tuple[str, str], ...]:
        """Return a model's memory arithmetic; nothing while the model or the machine is unknown."""
        return memory_here(self._config, self.views.newest, model)

    @property
    def mesh(self) -> MeshFacts | None:
        """Return which mesh the node belongs to."""
        return self._asked.link.facts

    async def make_token(self, rights: Rights, ttl_s: float, uses: int | None) -> str:
        """Return a new token to share. Raises MeshRefusalError."""
        return self._asked.link.invitations.make_token(rights, ttl_s, uses)

    def tokens(self) -> Sequence[TokenFacts]:
        """Return the tokens by which somebody can join now."""
        return self._asked.link.invitations.tokens()

    async def revoke_token(self, token: TokenId) -> None:
        """Let nobody join by a token any more. Raises MeshRefusalError."""
        self._asked.link.invitations.revoke_token(token)

    async def rotate_tokens(self) -> int:
        """Let nobody join by any token made so far. Raises MeshRefusalError."""
        return self._asked.link.invitations.rotate_tokens()

    async def revoke_node(self, node: NodeId, reason: str) -> None:
        """Expel a node for good. Raises MeshRefusalError."""
        self._asked.link.invitations.revoke_node(node, reason)

    async def register(self, wish: RegistrationWish) -> Registration:
        """Register a version of a model. Raises RegistryRefusalError."""
        return await self._asked.registry.register(wish)

    async def unregister(self, name: str, version: str) -> Registration:
        """Take a registered version back. Raises RegistryRefusalError."""
        return await self._asked.registry.unregister(name, version)

    async def check_health(self, model: ModelId | None) -> None:
        """Look at files and engines now, here and at all hosts."""
        await check_health(self.views, None if self._config.client else self._asked.watcher, self._asked.post, model)

    async def remove(self, model: ModelId) -> tuple[Path, ...]:
        """Delete a model's files. Raises OSError."""
        known = self.views.newest.local.get(model)
        if known is None or known.spec is None:
            return ()
        files = await asyncio.to_thread(delete, known.spec)
        self._asked.watcher.rescan()
        return files
