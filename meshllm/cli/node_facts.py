"""From the node's documents to what the checks of `core.doctor` want to know.

Owns reading them, defensively: another version of the node may have written them. Decides nothing. Doesn't talk to
anybody: `doctor` does.
"""

import re
from collections.abc import Iterable, Mapping

from meshllm.cli.rows import Document, items, number, part, text
from meshllm.core.doctor.fitness import ServedHere
from meshllm.core.doctor.loading import LoadCase, MemoryHere
from meshllm.core.doctor.production import ModelInUse
from meshllm.core.doctor.smaller import FileOnDisk
from meshllm.core.limits import LOAD_TIMEOUT_S
from meshllm.core.quota_config import UNLIMITED, shown
from meshllm.core.resources import MemoryLimit

HOST_SHARE = 0.9
"""Of the machine's memory, beside a GPU that models lie on: what they may take there."""
_COMPLAINT = re.compile(r"\b(?:WARN|WARNING|ERROR|CRITICAL|FATAL)\b")
_IN_USE = frozenset({"ready", "loading", "queued", "downloading", "retrying", "unloaded", "draining", "failed"})
_LIMITS = ("max_ram_mb", "max_concurrent_requests", "hourly_token_limit", "hourly_request_limit", "daily_token_limit",
           "daily_request_limit", "max_requests_per_second", "max_tokens_per_second")  # fmt: skip


def memory_here(machine: Document, max_vram: object, *, uses_gpu: bool) -> MemoryHere:
    """Return what models may take of a machine, in all and now: where there is a GPU, of both memories."""
    limit = limit_of(max_vram)
    total, free = number(machine, "memory_total_bytes"), number(machine, "memory_free_bytes")
    gpus = list(items(machine, "gpus")) if uses_gpu else []
    if not gpus:
        usable = limit.of(total)
        return MemoryHere(usable_bytes=usable, free_bytes=min(free, usable))
    on_gpu = limit.of(sum(number(gpu, "total_bytes") for gpu in gpus))
    free_gpu = min(sum(number(gpu, "free_bytes") for gpu in gpus), on_gpu)
    on_host = int(total * HOST_SHARE)
    return MemoryHere(usable_bytes=on_gpu + on_host, free_bytes=free_gpu + min(free, on_host))


def own_memory_bytes(machine: Document, max_vram: object, *, uses_gpu: bool) -> int:
    """Return the memory that models had better lie in: the GPUs', or the machine's where there is none."""
    gpus = sum(number(gpu, "total_bytes") for gpu in items(machine, "gpus")) if uses_gpu else 0
    return limit_of(max_vram).of(gpus or number(machine, "memory_total_bytes"))


def limit_of(max_vram: object) -> MemoryLimit:
    """Return the limit that a setting says; the usual one where it says nothing that can be read."""
    try:
        return MemoryLimit.parse(str(max_vram))
    except ValueError:
        return MemoryLimit(share=HOST_SHARE)


def load_case(model: Document, health: Document, memory: Document, log: Iterable[str], settings: Document) -> LoadCase:
    """Return how a model's load stands. `memory` is the node's own arithmetic, as `GET /api/models/{model}` has it."""
    failure, progress = part(model, "failure"), part(model, "progress")
    retry, share, timeout = model.get("retry_in_s"), progress.get("share"), settings.get("load_timeout_s")
    waiting = text(model, "waiting")
    if not waiting and text(memory, "fits") == "no":
        waiting = f"capacity: needs {text(memory, 'needed')}, {text(memory, 'free')} are free"
    return LoadCase(
        model=text(model, "id"), phase=text(model, "phase"), size_bytes=number(model, "size_bytes"),
        fault=text(failure, "fault"), failure=text(failure, "message"), waiting=waiting,
        integrity=text(part(health, "checks"), "file_integrity"), log=tuple(log), restarts=number(model, "restarts"),
        retry_in_s=float(retry) if isinstance(retry, int | float) else None,
        progress=float(share) if isinstance(share, int | float) else None,
        load_timeout_s=float(timeout) if isinstance(timeout, int | float) else LOAD_TIMEOUT_S,
    )  # fmt: skip


def files(status: Document) -> tuple[FileOnDisk, ...]:
    """Return the models on the node's disk."""
    return tuple(
        FileOnDisk(
            model=text(one, "id"), size_bytes=number(one, "size_bytes"), quantization=text(one, "quantization")
        )
        for one in items(status, "models")
        if text(one, "digest")
    )  # fmt: skip


def served(
    status: Document, quotas: Mapping[str, Document], reasons: Mapping[str, str]
) -> tuple[ServedHere, ...]:  # fmt: skip
    """Return the node's own models, with what is said of their quotas and of their health."""
    return tuple(
        ServedHere(
            model=(name := text(one, "id")), size_bytes=number(one, "size_bytes"),
            quantization=text(one, "quantization"), is_wanted=bool(one.get("wanted")),
            has_quotas=any(flat(quotas.get(name, {})).get(key) for key in _LIMITS),
            health=text(one, "health_status"), why=reasons.get(name, ""),
        )
        for one in items(status, "models")
        if text(one, "kind") != "adopted"
    )  # fmt: skip


def in_use(status: Document, quotas: Mapping[str, Document]) -> tuple[ModelInUse, ...]:
    """Return the models that clients may use."""
    return tuple(
        ModelInUse(
            model=text(one, "id"), quantization=text(one, "quantization"), quotas=flat(quotas.get(text(one, "id"), {}))
        )
        for one in items(status, "models")
        if text(one, "phase") in _IN_USE
    )


def limited(quotas: Mapping[str, Document]) -> dict[str, dict[str, object]]:
    """Return the quotas that limit something, by model; where none does, what a model would have."""
    every = {model: flat(one) for model, one in quotas.items()}
    found = {model: one for model, one in every.items() if any(one.get(key) for key in _LIMITS)}
    return found or {"MODEL": shown(UNLIMITED)}


def flat(quotas: Document) -> dict[str, object]:
    """Return the document of `GET /quotas/{model}` with every key at the top."""
    return {key: value for key, value in {**quotas, **part(quotas, "quotas")}.items() if key != "quotas"}


def reason_of(health: Document) -> str:
    """Return why a model is in ill health, in the first words that a host has for it."""
    return next((said for node in items(health, "nodes") if (said := text(node, "reason"))), "")


def complaints(lines: Iterable[str], asked: str) -> tuple[str, ...]:
    """Return the warnings and errors of a log that name a model."""
    name = asked.rstrip("/").rpartition("/")[2].partition(":")[0].casefold().removesuffix(".gguf")
    return tuple(line for line in lines if name and name in line.casefold() and _COMPLAINT.search(line))
