"""Kept completions: which answers may be told again, to which requests, and which are forgotten first.

Owns the key of a kept answer and the bounded memory of them. Decides what is told again: only what the same engine
would have to say again, letter for letter. Doesn't know HTTP, nor how a request found its engine, nor other nodes.

Invariants: a request that leaves anything to chance has no key; the memory never has more bytes than it may.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from meshllm.core.cache_limits import COMPLETION_BYTES_SHARE
from meshllm.core.engines import EngineBuild, EngineOptions
from meshllm.core.view import LocalModel

_DIGEST_BYTES = 16
WHOLE, STREAM = b"w", b"s"
"""What a request's digest begins with: in which form it wants its answer."""
KEY_DIGEST_BYTES = len(WHOLE) + _DIGEST_BYTES
RECIPE_DIGITS = 2 * _DIGEST_BYTES
_RANDOM_SEED = 2**32 - 1
"""llama.cpp's word for "any": minus one, as 32 bits."""
_UNGREEDY = frozenset({"adaptive_target", "dynatemp_range", "mirostat", "samplers", "xtc_probability"})
"""Fields that may bring chance back where the temperature is 0."""
_OF_NO_MATTER = frozenset({"model", "user"})
"""Fields that no answer depends on: which model answers is in the recipe."""
_ENTRY_BYTES = 256
"""What an entry takes beside its answer."""


def recipe_of(model: LocalModel, build: EngineBuild | None) -> str:
    """Return what the answers of an engine depend on beside the request, as hexadecimal digits; empty if not known.

    The model's file, template included, the engine's build and how it is run. Files that options name may change
    between two loads, so with such options each load is its own.
    """
    plan = model.plan
    if build is None or plan is None or not model.digest or model.adopted_from:
        return ""
    options = plan.options
    has_files = bool(options.arguments) or options.chat_template != EngineOptions().chat_template
    facts = (
        model.digest, build.kind, build.version,
        build.rpc.version if plan.split is not None and build.rpc is not None else "", plan.context_tokens,
        options.chat_template, options.has_jinja, options.arguments, options.kind,
        model.ready_since_s if has_files else 0.0, model.pid if has_files else 0,
    )  # fmt: skip
    return blake2b(json.dumps(facts).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def leaves_nothing_to_chance(document: Mapping[str, object]) -> bool:
    """Tell whether a request gets the same answer each time: greedy, or with a seed of its own."""
    seed, temperature = document.get("seed"), document.get("temperature")
    if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < _RANDOM_SEED:
        return True
    is_zero = isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0
    return is_zero and _UNGREEDY.isdisjoint(document)


def is_self_contained(document: Mapping[str, object]) -> bool:
    """Tell whether a request holds all that its answer depends on: no pictures or sounds, which may lie elsewhere."""
    messages = document.get("messages")
    if not isinstance(messages, list):
        return True
    contents = [one.get("content") for one in messages if isinstance(one, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return all(isinstance(part, dict) and part.get("type") == "text" for part in parts)


def request_digest(path: bytes, document: Mapping[str, object]) -> bytes | None:
    """Return by what a request is the same as another; None where its answer must not be told again.

    White space and the order of the fields make no difference. Below the top the order stays: templates show it to
    the model.
    """
    if not leaves_nothing_to_chance(document) or not is_self_contained(document):
        return None
    plain = {key: document[key] for key in sorted(document) if key not in _OF_NO_MATTER and document[key] is not None}
    if plain.get("stream") is False:
        del plain["stream"]
    state = blake2b(path + b"\0", digest_size=_DIGEST_BYTES)
    state.update(json.dumps(plain, separators=(",", ":")).encode())
    return (STREAM if plain.get("stream") else WHOLE) + state.digest()


Key = tuple[str, str, bytes]
"""Model, recipe and request."""


def told_by_digest(digest: bytes, answer: bytes) -> bytes | None:
    """Return an answer as it is told from memory, in the form that its request's digest asks for; None as below."""
    return events_told_again(answer) if digest.startswith(STREAM) else told_again(answer)


def told_again(body: bytes) -> bytes | None:
    """Return a whole answer as it is told from memory, with `cached` in it; None where it is not good or not whole.

    What was told from memory comes out as it went in, so that another node's word can be checked.
    """
    document = _read(body)
    if document is None or _unfinished(document) != (True, set()):
        return None
    return _cached(document)


def events_told_again(events: bytes) -> bytes | None:
    """Do the same for a stream of events, each of which says `cached` then; None where it did not come to its end."""
    found: list[bytes] = []
    open_choices: set[object] = set()
    has_ended = has_choices = False
    for line in events.splitlines():
        name, _, value = line.partition(b":")
        if name != b"data":
            if name:
                return None
            continue
        if has_ended:
            return None
        if value.strip() == b"[DONE]":
            has_ended = True
            continue
        document = _read(value)
        if document is None or "error" in document or (text := _cached(document)) is None:
            return None
        has_some, unfinished = _unfinished(document)
        finished = _indices(document) - unfinished
        has_choices, open_choices = has_choices or has_some, (open_choices | unfinished) - finished
        found.append(b"data: %b\n\n" % text)
    is_whole = has_ended and has_choices and not open_choices
    return b"".join((*found, b"data: [DONE]\n\n")) if is_whole else None


def _read(text: bytes) -> dict[str, object] | None:
    """Return a JSON object; None for anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _cached(document: Mapping[str, object]) -> bytes | None:
    """Return an answer that says that it was kept; None for what is no JSON: halves of characters, endless numbers."""
    told = {**document, "cached": True}
    try:
        return json.dumps(told, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None


def _choices(document: Mapping[str, object]) -> list[dict[str, object]]:
    choices = document.get("choices")
    return [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []


def _indices(document: Mapping[str, object]) -> set[object]:
    return {str(one.get("index", 0)) for one in _choices(document)}


def _unfinished(document: Mapping[str, object]) -> tuple[bool, set[object]]:
    """Return whether an answer, or a part of one, has choices, and those of them that do not end in it."""
    if "error" in document:
        return False, set()
    choices = _choices(document)
    return bool(choices), {str(one.get("index", 0)) for one in choices if not one.get("finish_reason")}


@dataclass(slots=True)
class Completions:
    """The memory of answers: what was told longest ago is forgotten first."""

    most_bytes: int = 0
    size_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    _kept: OrderedDict[Key, bytes] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """Return how many answers are kept."""
        return len(self._kept)

    def resize(self, most_bytes: int) -> None:
        """Keep at most so many bytes from here on; 0 forgets everything."""
        self.most_bytes = most_bytes
        self._make_room(0)

    def find(self, *keys: Key) -> bytes | None:
        """Return the answer that is kept by the first of the keys that has one, and count what came of it."""
        for key in keys:
            answer = self.look(key)
            if answer is not None:
                self.hits += 1
                return answer
        self.misses += 1
        return None

    def look(self, key: Key) -> bytes | None:
        """Return the answer that is kept by a key, without counting it as a request of this node's own clients."""
        answer = self._kept.get(key)
        if answer is not None:
            self._kept.move_to_end(key)
        return answer

    def keep(self, key: Key, answer: bytes) -> bool:
        """Keep an answer, unless it would take too much of the room; tell whether it is kept."""
        size = len(answer) + _ENTRY_BYTES
        if size > self.answer_most_bytes:
            return False
        self._forget(key)
        self._make_room(size)
        self._kept[key] = answer
        self.size_bytes += size
        return True

    @property
    def answer_most_bytes(self) -> int:
        """Return how large one answer may be, so that one does not drive out most others."""
        return int(self.most_bytes * COMPLETION_BYTES_SHARE)

    def _make_room(self, size: int) -> None:
        while self._kept and self.size_bytes + size > self.most_bytes:
            self._forget(next(iter(self._kept)))
            self.evictions += 1

    def _forget(self, key: Key) -> None:
        answer = self._kept.pop(key, None)
        if answer is not None:
            self.size_bytes -= len(answer) + _ENTRY_BYTES
