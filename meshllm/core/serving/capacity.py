"""Memory arithmetic: what a model takes, what is free, and how large an engine to make of it.

Owns the sizes that are derived (context, slots, prompt cache, layers on the GPU) and the ledger of what
is spoken for. Decides whether a model fits. Doesn't know why a model is wanted.

The estimate of one engine is weights + KV cache + overhead. Weights are the file's size: llama.cpp maps
or uploads them as they are. The KV cache follows from the header (`Architecture.kv_bytes_per_token`).
Overhead is the computation buffer of one micro-batch, which the output layer's width dominates, and
the process itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from meshllm.core.cache_limits import CACHE_ROOM_SHARE
from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EngineBuild, EngineOptions, EnginePlan, MemoryNeed
from meshllm.core.ids import ModelId
from meshllm.core.limits import GIB, MIB
from meshllm.core.policy import ModelPolicy
from meshllm.core.resources import MemoryLimit, Resources, format_bytes
from meshllm.core.serving.splits.loans import NOTHING_LENT, LentBytes

MICRO_BATCH_TOKENS = 512
"""llama.cpp's default physical batch; its computation buffer is what overhead is made of."""
PROCESS_BYTES = 64 * MIB
MIN_CONTEXT_TOKENS = 512
"""Less context than this is not worth an engine."""
USEFUL_CONTEXT_TOKENS = 4096
"""What one request gets at least where nobody wished for less, or the trained context if smaller."""
SLOT_CONTEXT_TOKENS = 8192
"""Another slot is added only while every slot has this much, or the trained context if smaller."""
SLOTS_MAX = 4
KV_SHARE = 0.25
"""Of the room beside the weights: the rest stays for other models, the prompt cache and the machine."""
PROMPT_CACHE_SHARE = 0.125
PROMPT_CACHE_MAX_BYTES = 8 * GIB
CONTEXT_STEP_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWishes:
    """What the configuration says about engines; None where the arithmetic chooses."""

    context_tokens: int | None = None
    """Context of one request."""
    slots: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    max_memory: MemoryLimit = MemoryLimit(share=0.9)
    most_bytes: int | None = None
    """What this one engine may take in all, by its model's quotas."""
    prompt_cache_bytes: int | None = None
    """Its share of the node's prompt cache; None where none is shared out, and the arithmetic chooses."""
    options: EngineOptions = EngineOptions()

    def for_model(self, policy: ModelPolicy) -> "EngineWishes":
        """Return what holds for one model: what is said of it, over what is said of all."""
        more: tuple[str, ...] = ("--temp", str(policy.temperature)) if policy.temperature is not None else ()
        if policy.max_tokens is not None:
            more += ("--predict", str(policy.max_tokens))
        return EngineWishes(
            context_tokens=policy.context_tokens or self.context_tokens,
            slots=policy.slots or self.slots,
            threads=policy.threads or self.threads,
            gpu_layers=self.gpu_layers if policy.gpu_layers is None else policy.gpu_layers,
            max_memory=self.max_memory,
            options=EngineOptions(
                chat_template=policy.chat_template,
                has_jinja=policy.has_jinja is not False,
                arguments=(*more, *policy.engine_args),
                kind=policy.kind,
                load_timeout_s=policy.load_timeout_s,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Memory that one more engine may take, in bytes."""

    gpu_bytes: int
    """On GPUs together; 0 without one that the engine can use."""
    host_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoom:
    """A model does not fit: what it would take at least, and what there is."""

    needed_bytes: int
    free_bytes: int
    total_bytes: int

    @property
    def message(self) -> str:
        """Say what is missing, for people."""
        text = f"capacity: needs {format_bytes(self.needed_bytes)}, {format_bytes(max(self.free_bytes, 0))} are free"
        if self.needed_bytes > self.total_bytes:
            return (
                f"{text} (of {format_bytes(self.total_bytes)}); a smaller quantisation or a larger machine would help"
            )
        return f"{text}; unloading another model would help"


def room_for_one_more(
    resources: Resources,
    build: EngineBuild,
    limit: MemoryLimit,
    taken: Mapping[ModelId, EnginePlan],
    not_yet_measured: frozenset[ModelId] = frozenset(),
    lent: LentBytes = NOTHING_LENT,
) -> Room:
    """Return what is left for another engine.

    Two bounds hold at once: the limit less everything the ledger has promised (`taken`), and what was
    measured free less the promises that the measurement could not see: of engines that were not loaded then
    (`not_yet_measured`), and of prompt caches, which fill later. What is `lent` to others lies where models do: on the
    GPUs of a machine that uses them.
    """
    promised = {model: _split(plan) for model, plan in taken.items()}
    unseen = [promised[model] for model in promised.keys() & not_yet_measured]
    uses_gpu = build.uses_gpu and bool(resources.gpus)
    gpu = 0
    if uses_gpu:
        gpu_limit = limit.of(resources.gpu_total_bytes) - sum(on_gpu for on_gpu, _ in promised.values()) - lent.promised
        gpu = min(gpu_limit, resources.gpu_free_bytes - sum(on_gpu for on_gpu, _ in unseen) - lent.unseen)
        lent = NOTHING_LENT
    # With a GPU the limit is about the GPU; the machine's memory only has to be free.
    host_limit = (MemoryLimit(share=0.9) if uses_gpu else limit).of(resources.memory_total_bytes)
    host_limit -= sum(on_host for _, on_host in promised.values()) + lent.promised
    caches = sum(plan.memory.prompt_cache_bytes for model, plan in taken.items() if model not in not_yet_measured)
    host_free = resources.memory_free_bytes - sum(on_host for _, on_host in unseen) - caches - lent.unseen
    host = min(host_limit, host_free)
    return Room(gpu_bytes=max(gpu, 0), host_bytes=max(host, 0))


def plan_engine(
    spec: ModelSpec, room: Room, wishes: EngineWishes, resources: Resources, *, shrink: int = 0
) -> EnginePlan | NoRoom:
    """Return how to run a model in the given room, or why it does not fit.

    `shrink` halves the KV cache that many times: the answer to an engine that ran out of memory.
    """
    fixed = spec.size_bytes + overhead_bytes(spec)
    kv_token = max(spec.architecture.kv_bytes_per_token, 1)
    least = fixed + _least_context(spec, wishes) * (wishes.slots or 1) * kv_token
    layers = spec.architecture.layers
    pool, most = _pool(room, least, _gpu_share(wishes, layers), layers), wishes.most_bytes
    pool = pool if most is None else min(pool, most)
    if pool < least:
        total = resources.memory_total_bytes + (resources.gpu_total_bytes if room.gpu_bytes else 0)
        total = total if most is None else min(total, most)
        return NoRoom(needed_bytes=least, free_bytes=pool, total_bytes=total)
    context, slots = _shrunk(*_context_and_slots(spec, (pool - fixed) // kv_token, wishes), shrink)
    kv = context * slots * kv_token
    gpu_layers = layers + 1 if room.gpu_bytes >= fixed + kv else _layers_on_gpu(room.gpu_bytes, fixed + kv, layers)
    if wishes.gpu_layers is not None:
        gpu_layers = min(wishes.gpu_layers, layers + 1)
    on_gpu = int((fixed + kv) * min(gpu_layers / (layers or 1), 1.0))
    host_rest = max(room.host_bytes - (fixed + kv - on_gpu), 0)
    host_rest = host_rest if most is None else min(host_rest, most - fixed - kv)
    cache = _prompt_cache_bytes(host_rest, kv, wishes.prompt_cache_bytes)
    need = MemoryNeed(
        weights_bytes=spec.size_bytes, kv_bytes=kv, overhead_bytes=overhead_bytes(spec), prompt_cache_bytes=cache
    )
    threads = wishes.threads or resources.cores
    return EnginePlan(
        model=spec, context_tokens=context, slots=slots, gpu_layers=gpu_layers, threads=threads, memory=need,
        options=wishes.options,
    )  # fmt: skip


def _prompt_cache_bytes(room_bytes: int, kv_bytes: int, share_bytes: int | None) -> int:
    """Return the prompt cache of an engine: its share, as far as memory is left, or what is modest without one."""
    if share_bytes is not None:
        return int(min(share_bytes, room_bytes * CACHE_ROOM_SHARE))
    return int(min(room_bytes * PROMPT_CACHE_SHARE, PROMPT_CACHE_MAX_BYTES, 4 * kv_bytes))


def _gpu_share(wishes: EngineWishes, layers: int) -> float | None:
    """Return the share of a model that was wished onto the GPU; None where the arithmetic chooses."""
    return None if wishes.gpu_layers is None else min(wishes.gpu_layers / (layers or 1), 1.0)


def _pool(room: Room, least: int, gpu_share: float | None, layers: int) -> int:
    """Return the bytes that one engine can have at most, of which `gpu_share` lie on the GPU.

    Where the arithmetic chooses, a model that fits onto the GPU leaves the machine's memory alone. One that lies on
    both goes there in whole layers, so up to one layer less than the GPU has room for.
    """
    if gpu_share is None and room.gpu_bytes >= least:
        return room.gpu_bytes
    if gpu_share is None:
        both = room.gpu_bytes + room.host_bytes
        return both * layers // (layers + 1) if room.gpu_bytes else both
    parts = ((room.gpu_bytes, gpu_share), (room.host_bytes, 1.0 - gpu_share))
    return min(int(free / share) for free, share in parts if share > 0)


def corrected(plan: EnginePlan, resident_bytes: int) -> EnginePlan:
    """Return a plan that promises no less than its loaded engine takes, measured in bytes; what is more is overhead.

    The prompt cache is still empty then, so it comes on top. Only on the host: with a GPU, or where workers have a
    part of the model, what is resident is mostly the file's pages, which the system takes back when it likes.
    """
    need = plan.memory
    more = resident_bytes - (need.total_bytes - need.prompt_cache_bytes)
    if more <= 0 or plan.gpu_layers or plan.split is not None:
        return plan
    return replace(plan, memory=replace(need, overhead_bytes=need.overhead_bytes + more))


def overhead_bytes(spec: ModelSpec) -> int:
    """Return the computation buffer of one micro-batch and the process itself."""
    shape = spec.architecture
    return PROCESS_BYTES + MICRO_BATCH_TOKENS * 4 * (shape.vocabulary + 8 * shape.embedding)


def _least_context(spec: ModelSpec, wishes: EngineWishes) -> int:
    """Return the context of one request without which the model is not started: as wished, or a useful minimum."""
    trained = spec.architecture.context_tokens
    if wishes.context_tokens is not None:
        # llama.cpp pads every slot upwards, and gives none more than the model was trained for.
        padded = -(-wishes.context_tokens // CONTEXT_STEP_TOKENS) * CONTEXT_STEP_TOKENS
        return min(padded, trained or padded)
    useful = min(trained or USEFUL_CONTEXT_TOKENS, USEFUL_CONTEXT_TOKENS)
    return max(useful // (wishes.slots or 1), min(useful, MIN_CONTEXT_TOKENS))


def _context_and_slots(spec: ModelSpec, affordable: int, wishes: EngineWishes) -> tuple[int, int]:
    """Return (context of each slot, slots) for a room of `affordable` tokens. A smaller room costs slots first."""
    trained = spec.architecture.context_tokens or USEFUL_CONTEXT_TOKENS
    modest = int(affordable * KV_SHARE)
    if wishes.context_tokens is not None:
        context = _least_context(spec, wishes)
        return context, wishes.slots or min(max(modest // context, 1), SLOTS_MAX)
    modest = max(modest, min(affordable, (wishes.slots or 1) * min(trained, USEFUL_CONTEXT_TOKENS)))
    slots = wishes.slots or min(max(modest // min(trained, SLOT_CONTEXT_TOKENS), 1), SLOTS_MAX)
    return _rounded(min(trained, modest // slots)), slots


def _shrunk(context: int, slots: int, times: int) -> tuple[int, int]:
    """Return (context of each slot, slots) of a cache halved so many times: slots go first, then context."""
    for _ in range(times):
        if slots > 1:
            slots //= 2
        else:
            context = max(_rounded(context // 2), min(context, MIN_CONTEXT_TOKENS))
    return context, slots


def _layers_on_gpu(gpu_bytes: int, whole_bytes: int, layers: int) -> int:
    """Return how many layers a GPU takes that cannot take the whole model."""
    return min(int(gpu_bytes * layers / whole_bytes), layers) if whole_bytes else 0


def _rounded(context: int) -> int:
    """Round down to what llama.cpp pads to, so that the plan and the engine say the same number."""
    return context - context % CONTEXT_STEP_TOKENS if context > CONTEXT_STEP_TOKENS else context


def _split(plan: EnginePlan) -> tuple[int, int]:
    """Return (bytes on the GPU, bytes on the host) of a plan. Prompt caches live on the host."""
    device = plan.memory.total_bytes - plan.memory.prompt_cache_bytes
    if plan.split is not None:  # its part is whole on one side
        return (device, 0) if plan.gpu_layers else (0, device)
    share = min(plan.gpu_layers / (plan.model.architecture.layers or 1), 1.0)
    on_gpu = int(device * share)
    return on_gpu, device - on_gpu + plan.memory.prompt_cache_bytes


def explain(outcome: EnginePlan | NoRoom) -> tuple[tuple[str, str], ...]:
    """Return the arithmetic as rows of (what, how much) for `show` and `plan`."""
    if isinstance(outcome, NoRoom):
        return (
            ("fits", "no"),
            ("needed", format_bytes(outcome.needed_bytes)),
            ("free", format_bytes(outcome.free_bytes)),
        )
    need = outcome.memory
    return (
        ("fits", "yes"),
        ("weights", format_bytes(need.weights_bytes)),
        ("KV cache", f"{format_bytes(need.kv_bytes)} for {_slots_of(outcome)}"),
        ("overhead", format_bytes(need.overhead_bytes)),
        ("prompt cache", f"up to {format_bytes(need.prompt_cache_bytes)}"),
        ("total", format_bytes(need.total_bytes)),
        ("GPU layers", f"{outcome.gpu_layers} of {outcome.model.architecture.layers + 1}"),
    )


def _slots_of(plan: EnginePlan) -> str:
    slots = "1 request" if plan.slots == 1 else f"{plan.slots} requests at a time"
    return f"{slots}, {plan.context_tokens} tokens each"
