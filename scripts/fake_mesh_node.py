"""One node of a simulated mesh, as the management API sees a node: `ManagementDeps` over `SimMesh`.

Owns what the simulation lacks: waiting for answers, a log, tokens that open nothing. Decides nothing: the simulated
node's real core does. Doesn't know HTTP, and nothing of what is asked of it touches this machine.
"""

import random
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from meshllm.api.deps import MeshFacts, MeshRefusalError, RegistrationWish, RegistryRefusalError, TokenFacts
from meshllm.core import effects as do
from meshllm.core.durations import Histogram
from meshllm.core.effects import Effect
from meshllm.core.events import Event, HealthAsked
from meshllm.core.http_numbers import HttpNumbers, HttpReport
from meshllm.core.ids import MeshId, ModelId, NodeId, TokenId
from meshllm.core.intents import Intent, Outcome
from meshllm.core.registration import Registration
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.core.routing.explain import Amount
from meshllm.core.routing.prospect import Question, foresee
from meshllm.core.routing.route_memory import RouteMemory
from meshllm.daemon.asking import Asking
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.journal import Entry, Journal
from meshllm.testing.scenario import Scenario
from meshllm.testing.sim import SimNode
from meshllm.testing.sim_requests import COMPLETE, SimRequest

LINES = 1000
TOKENS_PER_S = 40.0
"""What a simulated engine would make: it says no words."""
NOT_HERE = "this mesh is simulated: there are no files"
TOKEN = "meshllm1-simulated-and-good-for-nothing"


class FakeMeshNode:
    """What `ManagementDeps` asks for, by a node of a scenario."""

    api_key = ""
    settings: Mapping[str, object] = MappingProxyType({"host": "127.0.0.1"})
    mesh = MeshFacts(id=MeshId("s" * 52), name="simulated", rights=OWN_MACHINE, is_founder=True)

    def __init__(self, scenario: Scenario, name: str, address: str) -> None:
        """Look through the eyes of this node."""
        self.scenario, self.address = scenario, address
        self.node = scenario.mesh.nodes[NodeId(name)]
        self.views = CurrentView(self.node.core.view)
        self.started_s = self.clock_s
        self.routes = RouteMemory(random.Random(1))
        self._lines: deque[str] = deque(maxlen=LINES)
        self._journal = Journal()
        self._asking = Asking(lambda event: scenario.mesh.post(self.node.node, event))
        scenario.mesh.observers.append(self._see)
        scenario.requests.observers.append(self._ended)

    @property
    def clock_s(self) -> float:
        """Return the time by the node's own clock."""
        return self.scenario.mesh.now_s + self.node.clock_ahead_s

    def run_until(self, clock_s: float) -> None:
        """Let everything happen up to a moment of the node's clock, and show it."""
        self.scenario.mesh.run_until(clock_s - self.node.clock_ahead_s)
        self.views.publish(self.node.core.view)

    def obey(self, line: str) -> list[str]:
        """Carry out an order of a scenario and return what is to be read about it. Raises StoryError."""
        said = self.scenario.obey(line)
        self._lines.extend(said)
        return said

    def _see(self, node: SimNode, event: Event, effects: tuple[Effect, ...]) -> None:
        if node is not self.node:
            return
        self._journal.record(self._journal.stamp(event), effects, self.clock_s)
        self.views.publish(node.core.view)  # before anybody hears an answer
        for effect in effects:
            match effect:
                case do.Answer():
                    self._asking.answer(effect.request_id, effect.outcome)
                case do.Notify():
                    fields = " ".join(f"{key}={value}" for key, value in effect.fields)
                    self._lines.append(f"{self.clock_s:.3f} {effect.level} {effect.message} {fields}".rstrip())
                case _:
                    pass

    def _ended(self, request: SimRequest) -> None:
        """Remember where a request went that came in here, beside what would be decided about it now that it has ended.

        Simulated requests choose by themselves: the best candidate shown need not be the host that it went to.
        """
        if request.entry != self.node.node:
            return
        model, is_ok, host = ModelId(request.model), request.end == COMPLETE, request.hosts[-1] if request.hosts else ""
        self.routes.stats.ended(model, host, is_ok=is_ok)
        question, began_s = Question(asked=model, model=model), time.perf_counter()
        found = foresee(self.node.core.view, self.routes, question, self, self.clock_s)
        took_s = time.perf_counter() - began_s
        self.routes.stats.decided(found.decision.strategy, took_s)
        kept = self.routes.decisions.add(replace(found.decision, request_id=f"sim-{request.number}"), took_s)
        kept.went, kept.is_ok = host, is_ok
        if request.begun_s is not None:
            kept.first_byte_s = request.begun_s - request.asked_s
            prompt_tokens = 200 + 37 * (request.number % 23)
            kept.amount = Amount(
                prompt_tokens=prompt_tokens, cached_tokens=prompt_tokens * (request.number % 4) // 4,
                made_tokens=int(request.work_s * TOKENS_PER_S), wrote_s=request.work_s,
            )  # fmt: skip

    # -- what the management API asks for --------------------------------------------------------------

    async def ask(self, intent: Intent) -> Outcome:
        """Hand an intent to the core."""
        return await self._asking.ask(intent)

    async def change_routing(self, document: Mapping[str, object]) -> Outcome:
        """Hand a change to the core."""
        return await self._asking.change_routing(document)

    async def change_quotas(self, model: ModelId, document: Mapping[str, object]) -> Outcome:
        """Hand a change to the core."""
        return await self._asking.change_quotas(model, document)

    async def change_caches(self, document: Mapping[str, object]) -> Outcome:
        """Return how a change of how the prompt cache is shared out ended."""
        return await self._asking.change_caches(document)

    def quota_report(self, model: ModelId) -> dict[str, object]:
        """Return next to nothing: there is no front door that counts."""
        return {"model_id": model, "mode": "normal", "windows": {}}

    @property
    def quota_timezone(self) -> str:
        """Return the zone of simulated clocks."""
        return "UTC"

    def log_lines(self, model: ModelId | None) -> tuple[str, ...]:
        """Return what the node noticed; its engines say nothing."""
        return tuple(self._lines) if model is None else ()

    def in_flight(self, model: ModelId) -> int:
        """Return how many requests the node's engine of a model has."""
        return next((one.busy + one.queued for one in self.node.core.view.me.serving if one.model == model), 0)

    def left_out(self, _nodes: Collection[NodeId], _now_s: float) -> Mapping[NodeId, float]:
        """Return nobody: there is no front door."""
        return {}

    def lines_by_peer(self) -> Mapping[NodeId, int]:
        """Return nothing: tunnels are simulated."""
        return {}

    def counters(self) -> Mapping[str, float]:
        """Return nothing: there is no front door."""
        return {}

    def http(self) -> HttpReport:
        """Return nothing: there is no front door."""
        return HttpNumbers().report((), {})

    async def engine_metrics(self) -> Mapping[ModelId, str | None]:
        """Return nothing: there are no engines."""
        return {}

    def durations(self) -> Sequence[Histogram] | None:
        """Return nothing: time is simulated."""
        return None

    def journal(self) -> Sequence[Entry]:
        """Return the newest events."""
        return self._journal.newest(LINES)

    def rescan(self) -> None:
        """Do nothing: there are no folders."""

    def memory(self, model: ModelId) -> tuple[tuple[str, str], ...]:
        """Return nothing."""
        del model
        return ()

    async def make_token(self, rights: Rights, ttl_s: float, uses: int | None) -> str:
        """Return a text that opens nothing."""
        del rights, ttl_s, uses
        return TOKEN

    def tokens(self) -> Sequence[TokenFacts]:
        """Return none."""
        return ()

    async def revoke_token(self, token: TokenId) -> None:
        """Refuse: none is listed. Raises MeshRefusalError."""
        raise MeshRefusalError("unknown_token", f"there is no token {token}")

    async def rotate_tokens(self) -> int:
        """Return that there were none."""
        return 0

    async def revoke_node(self, node: NodeId, reason: str) -> None:
        """Expel a node."""
        del reason
        self.scenario.mesh.revoke(node)

    async def register(self, wish: RegistrationWish) -> Registration:
        """Refuse. Raises RegistryRefusalError."""
        raise RegistryRefusalError("no_files", f"{wish.name}: {NOT_HERE}")

    async def unregister(self, name: str, version: str) -> Registration:
        """Refuse. Raises RegistryRefusalError."""
        raise RegistryRefusalError("no_files", f"{name}@{version}: {NOT_HERE}")

    async def check_health(self, model: ModelId | None) -> None:
        """Let the core look."""
        self.scenario.mesh.post(self.node.node, HealthAsked(model=model))

    async def remove(self, model: ModelId) -> tuple[Path, ...]:
        """Refuse. Raises OSError."""
        raise OSError(f"{model}: {NOT_HERE}")
