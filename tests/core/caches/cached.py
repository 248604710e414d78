"""Stories of a node that shares out its prompt cache."""

import random

from meshllm.core import events as ev
from meshllm.core.cache_config import CacheConfig
from meshllm.core.cache_use import CacheReading
from meshllm.core.catalog import ModelSpec
from meshllm.core.effects import KeptOrders, StartEngine
from meshllm.core.engines import EngineFault
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import MIB
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.policy import ModelPolicy
from meshllm.core.resources import Resources
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.serving.order_book import NOTHING_KEPT
from tests.core.builders import A_BUILD, Story, a_machine, a_spec, exited, ready

WHOLE = CacheConfig(global_cache_size_gb=1.0, min_ram_mb=0)


class CachedNode(Story):
    """A node with some models on its disk, which it was asked for at its start."""

    __slots__ = ()

    def __init__(
        self, *specs: ModelSpec, caches: CacheConfig | None = WHOLE, requested: tuple[str, ...] | None = None,
        machine: Resources | None = None, policies: tuple[ModelPolicy, ...] = (), kept: KeptOrders = NOTHING_KEPT,
    ) -> None:  # fmt: skip
        """Know its machine, its engine and its files."""
        names = tuple(one.id for one in specs) if requested is None else requested
        policy = ServingPolicy(requested=names, caches=caches, models=policies, fills_gaps=requested is not None)
        config = CoreConfig(node=NodeId("a" * 52), name="a", serving=policy, kept=kept)
        super().__init__(MeshCore(config, 100.0, random.Random(1)))
        self.tell(ev.ResourcesMeasured(resources=machine or a_machine()), ev.EngineProbed(build=A_BUILD))
        self.tell(ev.InventoryChanged(models=specs))

    def want(self, model: str) -> None:
        """Let a request ask for a model, and time pass until something comes of it."""
        self.tell(ev.ModelWanted(model=ModelId(model)))
        self.wait(5.0)

    def run(self, *models: str) -> None:
        """Let engines that were started become ready."""
        for model in models:
            self.tell(ready(model))

    def stop(self, model: str) -> None:
        """Let a draining engine end."""
        self.tell(ev.EngineDrained(model=ModelId(model)), exited(model, EngineFault.STOPPED))

    def fill(self, model: str, size_mb: int, *, hit_tokens: int = 0, miss_tokens: int = 1000) -> None:
        """Let an engine report what its cache takes."""
        reading = CacheReading(hit_tokens=hit_tokens, miss_tokens=miss_tokens, size_bytes=size_mb * MIB)
        self.tell(ev.CacheMeasured(model=ModelId(model), reading=reading))

    def use(self, model: str, requests: int = 1) -> None:
        """Let requests end."""
        self.tell(ev.TrafficMeasured(finished=((ModelId(model), requests),)))

    def wait(self, for_s: float) -> None:
        """Let time pass: every wake-up is kept."""
        end_s = self.now_s + for_s
        while self.now_s < end_s:
            due_s = self.core.next_wakeup_s()
            self.now_s = min(max(due_s if due_s is not None else end_s, self.now_s + 0.01), end_s)
            self.tell(ev.Woke())

    def shares_mb(self) -> dict[str, int]:
        """Return the shares in force."""
        return {str(model): size // MIB for model, size in self.core.view.caches.shares.items()}

    def started_mb(self) -> list[tuple[str, int]]:
        """Return every start so far, with the cache that the engine was told."""
        return [(str(one.plan.model.id), one.plan.memory.prompt_cache_bytes // MIB) for one in self.of(StartEngine)]

    def asked(self, **document: object) -> str:
        """Ask for another division; return the word that it was answered with."""
        self._asked += 1
        name = f"c{self._asked}"
        self.tell(ev.CacheChangeAsked(request_id=name, document=document))
        outcome = self.outcome(name)
        assert outcome is not None
        return str(outcome.code)


def some(*names: str, size_bytes: int = 100 * MIB) -> tuple[ModelSpec, ...]:
    """Return models on disk."""
    return tuple(a_spec(name, size_bytes=size_bytes) for name in names)
