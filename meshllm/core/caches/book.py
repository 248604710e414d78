"""The prompt cache of this node: how it is to be shared out, the shares in force, and what the engines report.

Owns the choice of this node, the shares and the counters. Decides which configuration counts, and when a division is
made anew. Doesn't start or end engines: `cache_keeping` says what a share does to one that runs.

Invariants: the shares never exceed the whole; what is allowed to an engine and what the others have do neither.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from meshllm.core import cache_config
from meshllm.core.cache_config import (
    PRIORITY_USUAL,
    AllocationStrategy,
    CacheConfig,
    CacheConfigError,
    Numbers,
    patched,
    shown,
    unwrapped,
)
from meshllm.core.cache_use import CachePicture, CacheReading, CacheUse
from meshllm.core.caches.division import Division
from meshllm.core.caches.shares import Claim, usage_score
from meshllm.core.effects import Level, Notify
from meshllm.core.ids import NO_MODEL, ModelId
from meshllm.core.intents import Outcome, OutcomeCode
from meshllm.core.limits import MIB
from meshllm.core.serving.replies import notice

_HOUR_S = 3600.0
Resolve = Callable[[str], ModelId | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A model that takes part in the division, with what may speak for it."""

    model: ModelId
    requests: int = 0
    last_used_s: float | None = None
    per_minute: float = 0.0


class CacheBook:
    """What is chosen, divided and counted."""

    def __init__(self, kept: CacheConfig | None = None, configured: CacheConfig | None = None) -> None:
        """Begin with what was written down; what the node's configuration says replaces it."""
        self._configured = configured
        self.config = configured or kept or cache_config.DEFAULT
        self._memory, self._disk = Division(), Division()
        self.uses: dict[ModelId, CacheUse] = {}
        self.going: set[ModelId] = set()
        """Models whose engines are ended for the sake of others."""
        self.last_victim = NO_MODEL
        self._evicted_s: deque[float] = deque()
        self._notices: list[Notify] = []

    @property
    def shares(self) -> dict[ModelId, int]:
        """Return the shares in force of the memory for prompts, in bytes."""
        return self._memory.shares

    @property
    def disk_shares(self) -> dict[ModelId, int]:
        """Return those of the disk."""
        return self._disk.shares

    @property
    def remembered(self) -> CacheConfig | None:
        """Return what is to be written down: what somebody chose that the configuration does not say."""
        return None if self.config in (self._configured, cache_config.DEFAULT) else self.config

    def taken_notices(self) -> list[Notify]:
        """Return the lines for the log since the last call."""
        taken, self._notices = self._notices, []
        return taken

    def picture(self, now_s: float) -> CachePicture:
        """Return what everybody may see."""
        while self._evicted_s and self._evicted_s[0] < now_s - _HOUR_S:
            self._evicted_s.popleft()
        return CachePicture(
            config=self.config, shares=MappingProxyType(dict(self.shares)), uses=MappingProxyType(dict(self.uses)),
            evictions_lately=len(self._evicted_s), disk_shares=MappingProxyType(dict(self.disk_shares)),
        )  # fmt: skip

    # -- what is chosen --------------------------------------------------------------------------------

    def change(self, document: Mapping[str, object]) -> Outcome:
        """Carry out a change that somebody asks this node for."""
        try:
            config = patched(self.config, unwrapped(document))
        except CacheConfigError as error:
            return Outcome(code=OutcomeCode(error.fault), message=error.message, param=error.key)
        old, new = shown(self.config), shown(config)
        changes = {key: f"{old[key]} -> {new[key]}" for key in new if old[key] != new[key]}
        if changes:
            self._notices.append(notice(Level.INFO, "caches changed", module="audit", **changes))
        self.config = config
        return Outcome(code=OutcomeCode.DONE, message="the caches are shared out as chosen")

    # -- what is divided -------------------------------------------------------------------------------

    def divide(self, standings: Iterable[Standing], resolve: Resolve, now_s: float) -> None:
        """Share the wholes out among these models, where they, the choice or their use differ from before."""
        present, config = {one.model: one for one in standings}, self.config
        whole_bytes = config.whole_bytes if config.is_dividing else 0
        claims = partial(self._claims, present.values(), resolve, now_s)
        if self._memory.renew(whole_bytes, config, present.keys(), claims, now_s):
            told = {f"{model}_mb": size // MIB for model, size in self.shares.items()}
            if told:
                self._notices.append(notice(Level.DEBUG, "caches divided", **told))
        disk_claims = partial(self._disk_claims, present.values(), resolve, now_s)
        self._disk.renew(config.disk_bytes, config, present.keys(), disk_claims, now_s)

    def next_s(self) -> float | None:
        """Return when the use of models is looked at again; None where it does not matter."""
        due = (one.next_s(self.config) for one in (self._memory, self._disk))
        return min((at_s for at_s in due if at_s is not None), default=None)

    def allowed(self, model: ModelId, others_bytes: int) -> int | None:
        """Return the cache that an engine may be started with beside what the others have; None for its own choice."""
        if not self.config.is_dividing:
            return None
        share = self.shares.get(model, self.config.whole_bytes // (len(self.shares) + 1))
        return max(min(share, self.config.whole_bytes - others_bytes), 0)

    def _claims(self, standings: Iterable[Standing], resolve: Resolve, now_s: float) -> list[Claim]:
        priorities, floors, sizes = (
            _by_model(said, resolve)
            for said in (self.config.model_priorities, self.config.model_floors_mb, self.config.model_sizes_mb)
        )
        found = []
        for one in standings:
            size = sizes.get(one.model)
            weight = self._weight(one, priorities.get(one.model, PRIORITY_USUAL), now_s)
            floor = floors.get(one.model, self.config.min_ram_mb) * MIB
            fixed = None if size is None else size * MIB
            found.append(Claim(model=one.model, weight=weight, floor_bytes=floor, fixed_bytes=fixed))
        return found

    def _disk_claims(self, standings: Iterable[Standing], resolve: Resolve, now_s: float) -> list[Claim]:
        """Return what speaks for each model's part of the disk: the same, above another floor."""
        floor_bytes = self.config.min_disk_mb * MIB
        claims = self._claims(standings, resolve, now_s)
        return [replace(claim, floor_bytes=floor_bytes, fixed_bytes=None) for claim in claims]

    def _weight(self, one: Standing, priority: int, now_s: float) -> float:
        match self.config.allocation_strategy:
            case AllocationStrategy.FAIR_SHARE:
                return 1.0
            case AllocationStrategy.PROPORTIONAL:
                return 0.0 if one.last_used_s is None else usage_score(one.requests, now_s - one.last_used_s)
            case AllocationStrategy.PRIORITY_BASED:
                return float(priority)
            case AllocationStrategy.DYNAMIC:
                return one.per_minute

    # -- what is counted -------------------------------------------------------------------------------

    def read(self, model: ModelId, reading: CacheReading) -> None:
        """Take what was read at a model's engine."""
        self.uses[model] = self.uses.get(model, CacheUse(model=model)).read(reading)

    def emptied(self, model: ModelId, now_s: float) -> None:
        """Take note that a model's engine is gone, with whatever it had cached."""
        known, is_eviction = self.uses.get(model), model in self.going
        self.going.discard(model)
        if known is None:
            return
        self.uses[model] = after = known.emptied(is_eviction=is_eviction)
        if after.evictions > known.evictions:
            self._evicted_s.append(now_s)
            freed_mb = (after.freed_bytes - known.freed_bytes) // MIB
            self._notices.append(notice(Level.INFO, "cache evicted", model=model, freed_mb=freed_mb))


def _by_model(said: Numbers, resolve: Resolve) -> dict[ModelId, int]:
    """Return numbers by the models that their names mean here."""
    return {model: number for name, number in said if (model := resolve(name)) is not None}
