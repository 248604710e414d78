"""What an engine's error means to a client: status, code and the field that is wrong.

Owns the reading of llama.cpp's error documents, whole and inside streams. Decides from their words which
of its failures are a client's mistake, because it calls several of those its own. Doesn't know requests or
connections; pure.
"""

import re
from dataclasses import dataclass

import msgspec

from meshllm.core import limits
from meshllm.proxy.openai import Problem, has_type

_TOO_LONG = re.compile(r"exceeds? the available context size|[Cc]ontext size has been exceeded|the max context size")
_TWO_COUNTS = re.compile(r"\((\d+) tokens\).*\((\d+) tokens\)")
_MISTAKES = tuple(
    (re.compile(words), code, param)
    for words, code, param in (
        (r"(?:image|audio|video) input is not supported", "capability_not_supported", ""),
        (r"Failed to load image or audio", "invalid_request", ""),
        (r"Failed to parse tools", "invalid_request", "tools"),
        (r"Failed to parse messages", "invalid_request", ""),
        (r"[Rr]easoning.format", "invalid_request", "reasoning_format"),
        (r"json_schema and grammar|parse grammar", "invalid_request", "grammar"),
        (r"tool_choice", "invalid_request", "tool_choice"),
        (r"response_format", "invalid_request", "response_format"),
        (r"\AField '(\w+)'", "invalid_request", ""),
        (r"[Jj]inja|this template|json\.exception", "invalid_request", ""),
    )
)
"""Words of an engine, what they mean, and the field: empty for the one between quotes, else for the prompt."""
_OUT_OF_RANGE = re.compile(r"\A(?:vector|map)\b|range_check|out of range|[Ii]nvalid token")
_EVENT = re.compile(rb"^(?:event: ?error\r?\n)?(?:data|(error)): ?(\{.*)$", re.MULTILINE)
_ECHO = "; tools = "
"""What follows repeats the client's own tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What of a request an engine's error can be about."""

    prompt_field: str = "messages"
    context_tokens: int = 0
    """What one request may use; 0 when unknown."""


class _EngineError(msgspec.Struct):
    message: str = ""
    type: str = ""
    code: int | str | None = None
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _EngineErrorDocument(msgspec.Struct):
    error: _EngineError


_DOCUMENTS = msgspec.json.Decoder(_EngineErrorDocument)
_BARE = msgspec.json.Decoder(_EngineError)


def engine_problem(status: int, body: bytes, asked: Asked) -> Problem:
    """Return an engine's error answer in our shape; its message kept, its code made a word."""
    try:
        error = _DOCUMENTS.decode(body).error
    except (msgspec.DecodeError, RecursionError):
        text = body[: limits.REMOTE_ERROR_TEXT_BYTES].decode("utf-8", "replace")
        error = _EngineError(message=f"the engine answered {status}: {text}".rstrip(": "))
    return _meaning(status, error, asked)


def error_in_stream(payload: bytes, asked: Asked) -> tuple[int, Problem] | None:
    """Return where an engine's error event begins in some whole events, and what it means; None without one.

    An event is an error if its document has an object `error` at the top, or its only field is called so.
    """
    for found in _EVENT.finditer(payload):
        try:
            error = _BARE.decode(found[2]) if found[1] else _DOCUMENTS.decode(found[2]).error
        except (msgspec.DecodeError, RecursionError):
            continue
        status = error.code if isinstance(error.code, int) and 400 <= error.code < 600 else 500
        return found.start(), _meaning(status, error, asked)
    return None


def context_message(prompt_tokens: str, context_tokens: int) -> str:
    """Say that a prompt is too long, with both numbers."""
    return f"this model's context is {context_tokens} tokens; the prompt has {prompt_tokens}"


def _meaning(status: int, error: _EngineError, asked: Asked) -> Problem:
    message = error.message.partition(_ECHO)[0]
    if error.type == "exceed_context_size_error" or _TOO_LONG.search(message):
        about = _context_words(message, error, asked)
        return Problem(status=400, code="context_length_exceeded", message=about, param=asked.prompt_field)
    if error.type == "not_supported_error":
        return Problem(status=400, code="capability_not_supported", message=message, param="model")
    if status == 429:
        return Problem(
            status=429, code="overloaded", message=message or "the server has too much to do; try again soon",
            retry_after_s=limits.REMOTE_RETRY_AFTER_S,
        )  # fmt: skip
    if status in {400, 500}:
        if asked.prompt_field == "tokens" and _OUT_OF_RANGE.search(message):
            message = "a token's number is not one of this model's vocabulary"
            return Problem(status=400, code="invalid_request", message=message, param="tokens")
        for words, code, param in _MISTAKES:
            if found := words.search(message):
                named = found[1] if words.groups else asked.prompt_field
                return Problem(status=400, code=code, message=message, param=param or named)
    code = "invalid_request" if status < 500 else "engine_error"
    return Problem(status=status, code=code, message=message, type="" if has_type(status) else error.type)


def _context_words(message: str, error: _EngineError, asked: Asked) -> str:
    """Say what does not fit into the context, with every number that is known."""
    counts = _TWO_COUNTS.search(message)
    prompt_tokens = error.n_prompt_tokens or (int(counts[1]) if counts else None)
    context_tokens = error.n_ctx or (int(counts[2]) if counts else asked.context_tokens)
    if prompt_tokens is not None and context_tokens:
        return context_message(str(prompt_tokens), context_tokens)
    if context_tokens:
        return f"this model's context is {context_tokens} tokens; the prompt and its answer are longer together"
    return message
