"""What the node holds: its records, the machine they run on, the names they answer to.

Owns the state that every part of the life cycle shares, and the small questions about it. Decides
nothing: `fetching`, `engine_life` and `orders` do, each about its own matter.
"""

from meshllm.core.catalog import ModelReference
from meshllm.core.engines import EngineBuild, EngineFailure
from meshllm.core.ids import ModelId
from meshllm.core.known_models import aliases_of
from meshllm.core.names import NameIndex
from meshllm.core.policy import ModelPolicy
from meshllm.core.registration import Registration
from meshllm.core.resources import Resources
from meshllm.core.serving.capacity import EngineWishes, Room, room_for_one_more
from meshllm.core.serving.records import Record


class Holdings:
    """The shared state of the life cycle."""

    def __init__(self, wishes: EngineWishes, said: tuple[ModelPolicy, ...] = ()) -> None:
        """Start with nothing known but what the configuration says of models."""
        self.wishes = wishes
        self._said = said
        self.policies: dict[ModelId, ModelPolicy] = {}
        """What the configuration says, by the model that its names mean here."""
        self.records: dict[ModelId, Record] = {}
        self.order: list[ModelId] = []
        """Models in the order in which they were asked for."""
        self.names = NameIndex(())
        self.resources: Resources | None = None
        self.build: EngineBuild | None = None
        self.build_failure: EngineFailure | None = None
        self.default_model: ModelId | None = None
        self.registered: tuple[Registration, ...] = ()
        """Versions that were registered on this node."""
        self._named: object = None
        """What `names` was made of, so that an unchanged index stays the same object."""

    def want(self, record: Record) -> None:
        """Want a model in memory; the first one ever wanted becomes the default."""
        record.wanted, record.is_lazy = True, False
        if record.id not in self.order:
            self.order.append(record.id)
        if self.default_model is None:
            self.default_model = record.id

    def room(self) -> Room:
        """Return what is left for another engine. Machine and build have to be known."""
        assert self.resources is not None and self.build is not None  # noqa: S101, PT018 - callers checked both
        taken = {record.id: record.plan for record in self.records.values() if record.plan is not None}
        unseen = frozenset(record.id for record in self.records.values() if not record.is_measured)
        return room_for_one_more(self.resources, self.build, self.wishes.max_memory, taken, unseen)

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
        record.reference = reference
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

    def policy_of(self, model: ModelId) -> ModelPolicy:
        """Return what the configuration says of a model; where it says nothing, the choice is the node's."""
        return self.policies.get(model) or ModelPolicy(name=model)
