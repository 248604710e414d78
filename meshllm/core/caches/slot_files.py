"""Slots on the disk: what of an engine's slots is saved when it ends, under which name, and which files go for it.

Owns the choice and the names' key. Decides by recency, within bytes that are given. Doesn't know files' folders nor how
an engine saves; a slot is what an engine has of one conversation. Pure.

Invariant: what is chosen is estimated to fit, and what stays fits together with what is needed.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from meshllm.core.cache_limits import SLOT_LEAST_TOKENS
from meshllm.core.engines import EngineBuild, EnginePlan

_KEY_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSlot:
    """One slot of an engine that is about to end."""

    slot: int
    tokens: int
    """Of the conversation in it."""
    task: int
    """The number of the last request in it: the higher, the later."""
    is_busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFile:
    """One slot on the disk."""

    name: str
    size_bytes: int
    saved_s: float
    """By any clock: the higher, the later."""


def slots_key(plan: EnginePlan, build: EngineBuild) -> str:
    """Return by what slots fit into an engine: file, build, context, arguments; empty where they cannot be saved.

    The file by where it lies, its size and when it was changed: its digest may not be known yet when it is loaded. A
    split's state lies on several machines.
    """
    if plan.split is not None:
        return ""
    model, options = plan.model, plan.options
    facts = (
        model.path, model.size_bytes, model.modified_s, build.kind, build.version, plan.context_tokens,
        options.arguments, options.kind,
    )  # fmt: skip
    return blake2b(json.dumps(facts).encode(), digest_size=_KEY_BYTES).hexdigest()


def token_bytes(plan: EnginePlan) -> float:
    """Return what a token of a conversation takes of the engine's memory, and about as much of the disk."""
    return plan.memory.kv_bytes / max(plan.cache_tokens, 1)


def worth_saving(held: Iterable[HeldSlot], bytes_per_token: float, most_bytes: int) -> list[HeldSlot]:
    """Return which slots to save, those used last first, as many as are estimated to fit.

    Short ones are quicker computed; one that computes now belongs to nobody any more.
    """
    found, left = [], float(most_bytes)
    for one in sorted(held, key=lambda one: (-one.task, one.slot)):
        size_bytes = one.tokens * bytes_per_token
        if not one.is_busy and one.tokens >= SLOT_LEAST_TOKENS and size_bytes <= left:
            found.append(one)
            left -= size_bytes
    return found


def going(files: Iterable[SlotFile], need_bytes: int, most_bytes: int) -> list[SlotFile]:
    """Return which files go, those saved first first, so that the others and what is needed fit together."""
    ordered = sorted(files, key=lambda one: (one.saved_s, one.name))
    over_bytes = sum(one.size_bytes for one in ordered) + need_bytes - most_bytes
    gone: list[SlotFile] = []
    for one in ordered:
        if over_bytes <= 0:
            break
        gone.append(one)
        over_bytes -= one.size_bytes
    return gone
