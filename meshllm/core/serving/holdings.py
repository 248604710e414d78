"""What the node holds: its records, the machine they run on, the names they answer to.

Owns the state that every part of the life cycle shares, and the small questions about it. Decides
nothing: `fetching`, `engine_life` and `orders` do, each about its own matter.
"""

from collections.abc import Collection
from dataclasses import replace

from meshllm.core.caches.book import CacheBook
from meshllm.core.catalog import ModelReference, ModelSpec
from meshllm.core.engines import EngineBuild, EngineFailure, EnginePlan, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.known_models import aliases_of
from meshllm.core.limits import MIB
from meshllm.core.names import NameIndex
from meshllm.core.policy import ModelPolicy
from meshllm.core.quota_config import NO_QUOTAS
from meshllm.core.registration import NO_NOTES, Registration, RegistryNotes
from meshllm.core.resources import MemoryLimit, Resources
from meshllm.core.serving.capacity import EngineWishes, NoRoom, Room, plan_engine, room_for_one_more
from meshllm.core.serving.order_book import OrderBook
from meshllm.core.serving.records import Record
from meshllm.core.serving.splits.loans import Loan, lent_bytes
from meshllm.core.view import Reason

_NOTHING_SAID = ModelPolicy(name="")
_STALE_MEASURES = 2
"""One may have been under way when an engine ended."""


class Holdings:
    """The shared state of the life cycle."""

    def __init__(self, wishes: EngineWishes, said: tuple[ModelPolicy, ...] = (), book: OrderBook | None = None) -> None:
        """Start with nothing known but what the configuration says of models, and what was ordered."""
        self.wishes = wishes
        self.book = book if book is not None else OrderBook(NodeId(""))
        self._said = said
        self.forces_splits = False
        """What was asked for at the start is shared, though it may fit here."""
        self.policies: dict[ModelId, ModelPolicy] = {}
        """What the configuration says, by the model that its names mean here."""
        self.records: dict[ModelId, Record] = {}
        self.order: list[ModelId] = []
        """Models in the order in which they were asked for."""
        self.names = NameIndex(())
        self.caches = CacheBook()
        """How much of the prompt cache each engine gets."""
        self.quotas = NO_QUOTAS
        """What models may be used for: how much memory and disk they may take is part of it."""
        self.resources: Resources | None = None
        self.build: EngineBuild | None = None
        self.build_failure: EngineFailure | None = None
        self.default_model: ModelId | None = None
        self.lent: dict[ModelId, Loan] = {}
        """Models of which this node holds a part for another one."""
        self._freed_bytes = 0
        """Of engines that have ended, while what was measured free may not show it."""
        self._stale_measures = 0
        self.registered: tuple[Registration, ...] = ()
        """Versions that were registered on this node."""
        self._named: object = None
        """What `names` was made of, so that an unchanged index stays the same object."""

    def want(self, record: Record, reason: Reason = Reason.EXPLICIT) -> None:
        """Want a model in memory; the first one ever wanted becomes the default.

        What nobody asked this node for is assigned, and forgotten when there is no room.
        """
        record.wanted, record.reason, record.why = True, reason, ""
        record.is_assigned = record.is_lazy = reason is not Reason.EXPLICIT
        record.withdrawn = record.rests = False
        record.starts_at_s = None
        if reason is Reason.EXPLICIT:
            record.order = max(record.order, self.book.kept_version(record.id))
        if record.id not in self.order:
            self.order.append(record.id)
        if self.default_model is None:
            self.default_model = record.id

    def wishes_of(self, model: ModelId) -> EngineWishes:
        """Return what the configuration says about a model's engine; where it says nothing, what was registered."""
        said, notes = self.policy_of(model), self._notes_of(model)
        temperature = notes.temperature if said.temperature is None else said.temperature
        max_tokens = notes.max_tokens if said.max_tokens is None else said.max_tokens
        wishes = self.wishes.for_model(replace(said, temperature=temperature, max_tokens=max_tokens))
        if self.caches.config.is_dividing:
            wishes = replace(wishes, prompt_cache_bytes=self._cache_bytes(model))
        most_mb = self.quotas.of(model).max_ram_mb
        return replace(wishes, most_bytes=most_mb * MIB) if most_mb else wishes

    def _cache_bytes(self, model: ModelId) -> int | None:
        """Return the prompt cache that a model's engine may be started with beside those that run."""
        others = (self.records.get(other) for other in self.order if other != model)
        taken = (one.plan.memory for one in others if one is not None and one.plan is not None and one.split is None)
        return self.caches.allowed(model, sum(memory.prompt_cache_bytes for memory in taken))

    def _notes_of(self, model: ModelId) -> RegistryNotes:
        """Return what was written down last with a version that is this model's file."""
        known = [one for one in self.registered if one.model == model and one.notes != NO_NOTES]
        return max(known, key=lambda one: one.registered_unix_s).notes if known else NO_NOTES

    def measured(self, resources: Resources) -> None:
        """Take a measurement of the machine. One that was under way when an engine ended may not show it."""
        self.resources = resources
        self._stale_measures = max(self._stale_measures - 1, 0)
        if not self._stale_measures:
            self._freed_bytes = 0

    def note_freed(self, freed_bytes: int) -> None:
        """Remember that memory is free since an engine ended, which the next measurement shows."""
        self._freed_bytes, self._stale_measures = self._freed_bytes + freed_bytes, _STALE_MEASURES

    @property
    def is_stale(self) -> bool:
        """Tell whether more is free than was measured."""
        return self._freed_bytes > 0

    @property
    def can_plan(self) -> bool:
        """Tell whether machine and engine are known, so that rooms can be measured."""
        return self.resources is not None and self.build is not None

    @property
    def is_judged(self) -> bool:
        """Tell whether it is known what this node can run, be it nothing."""
        return self.resources is not None and (self.build is not None or self.build_failure is not None)

    def room(self) -> Room:
        """Return what is left for another engine. Machine and build have to be known."""
        assert self.resources is not None and self.build is not None  # noqa: S101, PT018 - callers checked both
        return self._room(self.resources, self.build, ())

    def room_without(self, gone: Collection[ModelId]) -> Room:
        """Return what would be left if some models were gone, and once what has ended shows."""
        assert self.resources is not None and self.build is not None  # noqa: S101, PT018 - callers checked both
        records = [self.records[model] for model in gone]
        seen = [one for one in records if one.is_measured or one.state is EngineState.STOPPING]
        freed = sum(one.plan.memory.total_bytes for one in seen if one.plan is not None)
        return self._room(_freed(self.resources, freed + self._freed_bytes), self.build, gone)

    def _room(self, resources: Resources, build: EngineBuild, gone: Collection[ModelId]) -> Room:
        taken = {one.id: one.plan for one in self.records.values() if one.plan is not None and one.id not in gone}
        unseen = frozenset(record.id for record in self.records.values() if not record.is_measured)
        lent = lent_bytes(self.lent.values())
        return room_for_one_more(resources, build, self.wishes.max_memory, taken, unseen, lent)

    def plan(self, spec: ModelSpec, room: Room, shrink: int = 0) -> EnginePlan | NoRoom:
        """Return how to run a model in a room, or why it does not fit. The machine has to be known."""
        assert self.resources is not None  # noqa: S101 - callers checked
        return plan_engine(spec, room, self.wishes_of(spec.id), self.resources, shrink=shrink)

    def whole(self) -> Room:
        """Return what one model could have on this machine if nothing else ran."""
        if self.resources is None:
            return Room(gpu_bytes=0, host_bytes=0)
        uses_gpu = self.build is not None and self.build.uses_gpu and bool(self.resources.gpus)
        limit = self.wishes.max_memory
        on_host = (MemoryLimit(share=0.9) if uses_gpu else limit).of(self.resources.memory_total_bytes)
        return Room(gpu_bytes=limit.of(self.resources.gpu_total_bytes) if uses_gpu else 0, host_bytes=on_host)

    def usable_bytes(self) -> int:
        """Return the memory that one model could have on this machine if nothing else ran."""
        if self.resources is None:
            return 0
        resources, limit = self.resources, self.wishes.max_memory
        uses_gpu = self.build is not None and self.build.uses_gpu and resources.gpus
        return limit.of(resources.gpu_total_bytes if uses_gpu else resources.memory_total_bytes)

    def record_of(self, reference: ModelReference) -> Record:
        """Return the record of a model that is to be downloaded, made if need be."""
        record = self.records.setdefault(reference.id, Record(id=reference.id))
        record.reference = record.source = reference
        record.asked_as = reference.asked_as
        return record

    def having(self, model: ModelId) -> Record | None:
        """Return the record of a model with a process; engines' late words about others mean nothing."""
        record = self.records.get(model)
        return record if record is not None and record.has_process else None

    def rename(self) -> None:
        """Index the names again, if records came or went."""
        aliases = aliases_of(self.records)
        for model in self.records:
            asked_as = self.records[model].asked_as
            if asked_as and asked_as != model and asked_as not in aliases:
                aliases[asked_as] = [model]
        key = (tuple(self.records), tuple((alias, tuple(models)) for alias, models in aliases.items()))
        if key != self._named:
            self._named = key
            known = NameIndex(self.records, aliases)
            self.policies = {found: said for said in self._said if isinstance(found := known.resolve(said.name), str)}
            for model, said in self.policies.items():
                for alias in said.aliases:
                    aliases.setdefault(alias, []).append(model)
            self.names = NameIndex(self.records, aliases)

    def is_split_forced(self, model: ModelId) -> bool:
        """Tell whether a model that was asked for is shared in any case."""
        return self.forces_splits or self.policy_of(model).is_split

    def is_pinned(self, model: ModelId) -> bool:
        """Tell whether a model stays in memory: as was ordered, else as the configuration says."""
        record = self.records.get(model)
        if record is not None and record.pin is not None:
            return record.pin
        return self.policy_of(model).is_pinned

    def policy_of(self, model: ModelId) -> ModelPolicy:
        """Return what the configuration says of a model; where it says nothing, the choice is the node's."""
        return self.policies.get(model, _NOTHING_SAID)


def _freed(resources: Resources, freed_bytes: int) -> Resources:
    """Return a machine with so much more free, GPUs first."""
    gpus = []
    for gpu in resources.gpus:
        back = min(freed_bytes, gpu.total_bytes - gpu.free_bytes)
        gpus.append(replace(gpu, free_bytes=gpu.free_bytes + back))
        freed_bytes -= back
    free = min(resources.memory_free_bytes + freed_bytes, resources.memory_total_bytes)
    return replace(resources, gpus=tuple(gpus), memory_free_bytes=free)
