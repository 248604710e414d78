"""A daemon for tests of the management API: the real core and views, engines by word of mouth."""

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from meshllm.api.app import make_app
from meshllm.api.console_files import ConsoleFiles
from meshllm.api.deps import MeshFacts, MeshRefusalError, RegistrationWish, RegistryRefusalError, TokenFacts
from meshllm.core.catalog import ModelSpec
from meshllm.core.durations import Histogram
from meshllm.core.effects import Answer
from meshllm.core.events import (
    CacheChangeAsked,
    EngineDrained,
    Event,
    HealthAsked,
    IntentReceived,
    QuotaChangeAsked,
    RegistryChanged,
    RoutingChangeAsked,
)
from meshllm.core.http_numbers import HttpNumbers, HttpReport
from meshllm.core.ids import MeshId, ModelId, NodeId, TokenId
from meshllm.core.intents import Intent, Outcome, Verb
from meshllm.core.registration import Registration
from meshllm.core.remotes import RemoteBackend
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.core.routing.replicas import replicas_of
from meshllm.core.routing.route_memory import RouteMemory
from meshllm.core.view import Member
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.journal import Journal
from meshllm.daemon.profile import Profile
from meshllm.proxy.metering import Metering
from tests.core.builders import Story, a_spec, a_story, exited, ready

WAIT_S = 30.0
T = TypeVar("T")
Client = TestClient[web.Request, web.Application]


class FakeNode:
    """What `ManagementDeps` asks for, over a core that a test tells its story."""

    address = "127.0.0.1:9337"
    api_key = ""
    quota_timezone = "UTC"

    def __init__(self, story: Story) -> None:
        """Show the core's view."""
        self.story = story
        self.views = CurrentView(story.core.view)
        self.started_s = asyncio.get_running_loop().time()
        self.lines: dict[ModelId | None, tuple[str, ...]] = {}
        self.flying: dict[ModelId, int] = {}
        self.warm: dict[NodeId, int] = {}
        self.ejected: dict[NodeId, float] = {}
        self.intents: list[Intent] = []
        self._came = asyncio.Event()
        self._was_told = asyncio.Event()
        self.rescans = 0
        self.settings: Mapping[str, object] = {"host": "127.0.0.1", "api_key": "(set)"}
        self.removed: list[ModelId] = []
        self.remove_error: OSError | None = None
        self.mesh: MeshFacts | None = MeshFacts(id=MeshId("m" * 52), name="home", rights=OWN_MACHINE, is_founder=True)
        self.given: list[TokenFacts] = []
        self.made: list[tuple[Rights, float, int | None]] = []
        self.expelled: list[tuple[NodeId, str]] = []
        self.refusal: MeshRefusalError | None = None
        self.registry_refusal: RegistryRefusalError | None = None
        self.wishes: list[RegistrationWish] = []
        self.log = Journal()
        self.profile: Profile | None = None
        self.routes = RouteMemory(random.Random(1))
        self.numbers = HttpNumbers()
        self.first_tokens: dict[str, dict[int, int]] = {}
        self.told_by_engines: dict[ModelId, str | None] = {}
        self.metering = Metering(self.views, story.core.view.me.node, clock=lambda: 1_000_000_000.0)
        self._requests: set[asyncio.Task[Any]] = set()

    def tell(self, *events: Event) -> None:
        """Let something happen."""
        for event in events:
            stamped = self.log.stamp(event)
            self.log.record(stamped, tuple(self.story.tell(stamped)), self.story.now_s)
        self.views.publish(self.story.core.view)
        was_told, self._was_told = self._was_told, asyncio.Event()
        was_told.set()

    def durations(self) -> Sequence[Histogram] | None:
        """Return what was measured, where a test measures."""
        return self.profile.histograms() if self.profile is not None else None

    def meet(self, *members: Member) -> None:
        """Let the view show other members."""
        view = self.views.newest
        known = {**view.members, **{member.announcement.node: member for member in members}}
        replicas = replicas_of(known.values(), view.me.node)
        new = replace(view, members=MappingProxyType(known), replicas=replicas, epoch=view.epoch + 1)
        self.views.publish(new)

    async def ask(self, intent: Intent) -> Outcome:
        """Hand an intent to the core and wait for its answer."""
        self.intents.append(intent)
        self._came.set()
        request_id = f"i{len(self.intents)}"
        self.tell(IntentReceived(intent=replace(intent, request_id=request_id)))
        while True:
            for effect in self.story.effects:
                if isinstance(effect, Answer) and effect.request_id == request_id:
                    return effect.outcome
            await self._was_told.wait()

    def begin(self, request: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Send a request that is not answered yet; the node keeps it."""
        task = asyncio.get_running_loop().create_task(request)
        self._requests.add(task)
        return task

    async def close(self) -> None:
        """End what is left of the requests."""
        for task in self._requests:
            task.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)

    async def asked(self, verb: Verb, times: int = 1) -> None:
        """Wait until so many intents of this kind have come in."""
        async with asyncio.timeout(WAIT_S):
            while sum(intent.verb is verb for intent in self.intents) < times:
                self._came.clear()
                await self._came.wait()

    async def asked_or_done(self, request: asyncio.Task[Any]) -> None:
        """Wait until a request is answered, or has asked the core for something."""
        before = len(self.intents)
        async with asyncio.timeout(WAIT_S):
            while not request.done() and len(self.intents) == before:
                self._came.clear()
                came = self.begin(self._came.wait())
                await asyncio.wait({request, came}, return_when=asyncio.FIRST_COMPLETED)

    def finish_unload(self, model: str) -> None:
        """Let an engine end as it was asked to."""
        self.tell(EngineDrained(model=ModelId(model)), exited(model))

    async def change_routing(self, document: Mapping[str, object]) -> Outcome:
        """Hand a change to the core, which answers at once."""
        self.tell(RoutingChangeAsked(request_id="routing", document=document))
        return [one.outcome for one in self.story.effects if isinstance(one, Answer)][-1]

    async def change_quotas(self, model: ModelId, document: Mapping[str, object]) -> Outcome:
        """Hand a change to the core, which answers at once."""
        self.tell(QuotaChangeAsked(request_id="quotas", model=model, document=document))
        return [one.outcome for one in self.story.effects if isinstance(one, Answer)][-1]

    async def change_caches(self, document: Mapping[str, object]) -> Outcome:
        """Hand a change to the core, which answers at once."""
        self.tell(CacheChangeAsked(request_id="caches", document=document))
        return [one.outcome for one in self.story.effects if isinstance(one, Answer)][-1]

    def quota_report(self, model: ModelId) -> dict[str, object]:
        """Return what a front door's ledger says."""
        return self.metering.report(model)

    def log_lines(self, model: ModelId | None) -> tuple[str, ...]:
        """Return what the test put there."""
        return self.lines.get(model, ())

    def in_flight(self, model: ModelId) -> int:
        """Return what the test put there."""
        return self.flying.get(model, 0)

    def left_out(self, nodes: Collection[NodeId], now_s: float) -> Mapping[NodeId, float]:
        """Return what the test put there."""
        return {node: self.ejected[node] for node in nodes if node in self.ejected}

    def lines_by_peer(self) -> Mapping[NodeId, int]:
        """Return what the test put there."""
        return self.warm

    def http(self) -> HttpReport:
        """Return what the test counted."""
        return self.numbers.report((), self.first_tokens)

    async def engine_metrics(self) -> Mapping[ModelId, str | None]:
        """Return what the test put there."""
        return self.told_by_engines

    def counters(self) -> Mapping[str, float]:
        """Return two counters."""
        return {"requests": 7, "refused.body-too-large": 1}

    def journal(self) -> Sequence[object]:
        """Return everything told so far."""
        return self.log.newest(1000)

    def rescan(self) -> None:
        """Count."""
        self.rescans += 1

    def memory(self, model: ModelId) -> tuple[tuple[str, str], ...]:
        """Return what does not depend on this machine."""
        return (("fits", "yes"),) if model in self.views.newest.local else ()

    def _may(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def make_token(self, rights: Rights, ttl_s: float, uses: int | None) -> str:
        """Note what was asked for."""
        self._may()
        self.made.append((rights, ttl_s, uses))
        return "meshllm1-made"

    def tokens(self) -> Sequence[TokenFacts]:
        """Return what the test put there."""
        return tuple(self.given)

    async def revoke_token(self, token: TokenId) -> None:
        """Forget it."""
        self._may()
        self.given = [each for each in self.given if each.id != token]

    async def rotate_tokens(self) -> int:
        """Forget all."""
        self._may()
        count, self.given = len(self.given), []
        return count

    async def revoke_node(self, node: NodeId, reason: str) -> None:
        """Note whom."""
        self._may()
        self.expelled.append((node, reason))

    async def register(self, wish: RegistrationWish) -> Registration:
        """Note the wish and tell the core, or refuse as told."""
        if self.registry_refusal is not None:
            raise self.registry_refusal
        self.wishes.append(wish)
        model = ModelId(Path(wish.path).stem)
        made = Registration(
            name=wish.name, version=wish.version, model=model, digest=f"sha256:{model}", path=wish.path, size_bytes=5,
            registered_unix_s=1_700_000_000.0, aliases=(wish.alias,) if wish.alias else (), notes=wish.notes,
        )  # fmt: skip
        self.tell(RegistryChanged(entries=(*self.views.newest.registered, made)))
        return made

    async def unregister(self, name: str, version: str) -> Registration:
        """Take the entry back, or refuse as told."""
        if self.registry_refusal is not None:
            raise self.registry_refusal
        known = self.views.newest.registered
        gone = next(one for one in known if (one.name, one.version) == (name, version))
        self.tell(RegistryChanged(entries=tuple(one for one in known if one is not gone)))
        return gone

    async def check_health(self, model: ModelId | None) -> None:
        """Let the core look."""
        self.tell(HealthAsked(model=model))

    async def remove(self, model: ModelId) -> tuple[Path, ...]:
        """Note the model, or fail as told."""
        if self.remove_error is not None:
            raise self.remove_error
        self.removed.append(model)
        return (Path(f"/models/{model}.gguf"),)


@asynccontextmanager
async def a_node(
    *specs: ModelSpec, requested: tuple[str, ...] = (), is_ready: bool = True, console: ConsoleFiles | None = None,
    adopts: tuple[RemoteBackend, ...] = (),
) -> AsyncIterator[tuple[FakeNode, Client]]:  # fmt: skip
    """Yield a node, by default with the ready model `tiny`, and a client of its management API."""
    node = FakeNode(a_story(*(specs or (a_spec("tiny"),)), requested=requested, adopts=adopts))
    if is_ready:
        node.tell(ready("tiny"))
    async with TestClient(TestServer(make_app(node, console)), timeout=None) as client:  # type: ignore[arg-type]
        try:
            yield node, client
        finally:
            await node.close()
