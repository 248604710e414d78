"""Values for tests of the core: say only what matters, the rest is filled in."""

import random
from dataclasses import dataclass, field
from typing import TypeVar

from meshllm.core import events as ev
from meshllm.core.announcement import Address, Announcement, Role, ServedModel, ServingState
from meshllm.core.catalog import Architecture, ModelSpec
from meshllm.core.effects import Answer, Effect, Notify
from meshllm.core.engines import EngineBuild, EngineEndpoint, EngineFailure, EngineFault
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Intent, Outcome, Verb
from meshllm.core.limits import GIB, MIB
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.policy import ModelPolicy
from meshllm.core.remotes import RemoteBackend
from meshllm.core.resources import Gpu, Resources
from meshllm.core.rights import GUEST, Rights
from meshllm.core.serving.capacity import EngineWishes
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.view import LocalModel, Member

T = TypeVar("T")

CHAT = frozenset({"chat", "completion"})
NO_WISHES = EngineWishes()
A_BUILD = EngineBuild(kind="fake", version="1", uses_gpu=False)
A_GPU_BUILD = EngineBuild(kind="fake", version="1", uses_gpu=True)


def an_architecture(*, layers: int = 30, context_tokens: int = 8192, name: str = "llama") -> Architecture:
    """Return the numbers of SmolLM2-135M, or a variation."""
    return Architecture(
        name=name, layers=layers, embedding=576, heads=9, kv_heads=3, key_length=64, value_length=64,
        vocabulary=49152, context_tokens=context_tokens,
    )  # fmt: skip


def a_spec(
    name: str = "tiny", *, size_bytes: int = 100 * MIB, capabilities: frozenset[str] = CHAT,
    context_tokens: int = 8192, modified_s: float = 1.0, layers: int = 30,
) -> ModelSpec:  # fmt: skip
    """Return a model on disk."""
    path = f"/models/{name}.gguf"
    return ModelSpec(
        id=ModelId(name), path=path, files=(path,), size_bytes=size_bytes, digest=f"sha256:{name}",
        architecture=an_architecture(context_tokens=context_tokens, layers=layers), parameters=135_000_000,
        quantization="Q4_1", modified_s=modified_s, capabilities=capabilities,
    )  # fmt: skip


def a_machine(*, memory_bytes: int = 16 * GIB, free_bytes: int | None = None, gpus: tuple[Gpu, ...] = ()) -> Resources:
    """Return a machine of four cores."""
    free = memory_bytes if free_bytes is None else free_bytes
    return Resources(cores=4, memory_total_bytes=memory_bytes, memory_free_bytes=free, gpus=gpus)


def a_gpu(*, total_bytes: int = 24 * GIB, free_bytes: int | None = None) -> Gpu:
    """Return a GPU."""
    return Gpu(
        index=0, name="GPU", total_bytes=total_bytes, free_bytes=total_bytes if free_bytes is None else free_bytes
    )


def a_failure(fault: EngineFault = EngineFault.CRASHED, message: str = "it crashed") -> EngineFailure:
    """Return an engine's end."""
    return EngineFailure(fault=fault, message=message)


def ready(model: str, *, slots: int = 4, context_tokens: int = 8192) -> ev.EngineReady:
    """Return the event of an engine that answers."""
    return ev.EngineReady(
        model=ModelId(model), endpoint=EngineEndpoint(socket_path=f"/run/{model}.sock", key="k"), pid=100,
        context_tokens=context_tokens, slots=slots, load_s=1.0,
    )  # fmt: skip


def exited(model: str, fault: EngineFault = EngineFault.CRASHED, message: str = "it crashed") -> ev.EngineExited:
    """Return the event of an engine that is gone."""
    return ev.EngineExited(model=ModelId(model), failure=a_failure(fault, message))


@dataclass(slots=True)
class Story:
    """A core with a clock, told event by event."""

    core: MeshCore
    now_s: float = 100.0
    effects: list[Effect] = field(default_factory=list)
    _asked: int = 0

    def tell(self, *events: ev.Event, after_s: float = 0.0) -> list[Effect]:
        """Feed events; return the effects that are not notices."""
        self.now_s += after_s
        new = [effect for event in events for effect in self.core.handle(event, self.now_s)]
        self.effects += new
        return [effect for effect in new if not isinstance(effect, Notify)]

    def ask(
        self, verb: Verb, model: str, *, hold: bool = False, force: bool = False, keep_running: bool = False
    ) -> str:
        """Send an intent; return its request id."""
        self._asked += 1
        request_id = f"r{self._asked}"
        intent = Intent(
            verb=verb, model=model, request_id=request_id, hold=hold, force=force, keep_running=keep_running
        )
        self.tell(ev.IntentReceived(intent=intent))
        return request_id

    def outcome(self, request_id: str) -> Outcome | None:
        """Return how an intent ended, or None while it has not."""
        for effect in self.effects:
            if isinstance(effect, Answer) and effect.request_id == request_id:
                return effect.outcome
        return None

    def of(self, kind: type[T]) -> list[T]:
        """Return all effects of a kind so far."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def model(self, name: str) -> LocalModel:
        """Return a model as the view shows it."""
        return self.core.view.local[ModelId(name)]


def a_story(
    *specs: ModelSpec, requested: tuple[str, ...] = (), machine: Resources | None = None, build: EngineBuild = A_BUILD,
    wishes: EngineWishes = NO_WISHES, min_unasked_bytes: int = 0, adopts: tuple[RemoteBackend, ...] = (),
    policies: tuple[ModelPolicy, ...] = (), node: str = "a",
) -> Story:  # fmt: skip
    """Return a core that knows its machine, its engine and its model files."""
    policy = ServingPolicy(
        requested=requested, wishes=wishes, min_unasked_bytes=min_unasked_bytes, remotes=adopts, models=policies
    )
    story = Story(MeshCore(CoreConfig(node=NodeId(node * 32), name=node, serving=policy), 100.0, random.Random(1)))
    story.tell(ev.ResourcesMeasured(resources=machine or a_machine()), ev.EngineProbed(build=build))
    story.tell(ev.InventoryChanged(models=specs))
    return story


def a_member(
    name: str, *, state: str = "alive", models: tuple[str, ...] = (), rights: Rights = GUEST, since_s: float = 90.0,
    role: Role = Role.HOST, gpus: tuple[Gpu, ...] = (), **changes: object,
) -> Member:  # fmt: skip
    """Return another node of the mesh; its id begins with its name."""
    said = Announcement(
        node=NodeId(name.ljust(52, "2")), name=name, incarnation=1, version=1, role=role, rights=rights,
        resources=a_machine(gpus=gpus), addresses=(Address("192.0.2.7", 4000),),
        serving=tuple(
            ServedModel(
                model=ModelId(model), digest=f"sha256:{model}", state=ServingState.READY, slots=4, busy=1,
                context_tokens=8192,
            )
            for model in models
        ),
    )  # fmt: skip
    return Member(announcement=said, state=state, since_s=since_s, **changes)
