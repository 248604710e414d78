"""What a request says that its host depends on, and what an answer says of its prompt.

Owns the few fields that are read for that, each in one typed pass. Decides what names a session and what of a body is
its prompt. Doesn't know hosts. Nothing here refuses anything: a field that is odd says nothing.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from meshllm.core.routing.prefix_index import NO_PROMPT, Prompt, prompt_of
from meshllm.core.routing.route_memory import Ask, Report
from meshllm.core.routing.routes import Capability
from meshllm.core.routing_config import RoutingConfig
from meshllm.proxy.framing import payload_of
from meshllm.proxy.intake import Intake

_BOM = b"\xef\xbb\xbf"
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_ASSISTANT = "assistant"
_NOTHING = Report()


class _Message(msgspec.Struct, gc=False):
    role: object = ""
    content: object = None


class _Body(msgspec.Struct, gc=False):
    messages: list[_Message] = []
    tools: msgspec.Raw = msgspec.Raw()
    system: object = None
    instructions: object = None
    prompt: object = None
    input: object = None
    prompt_cache_key: object = None
    user: object = None


_BODY = msgspec.json.Decoder(_Body)


def ask_of(intake: Intake, body: bytes, request_id: bytes, config: RoutingConfig, session_id: str = "") -> Ask:
    """Return what a request says; `session_id` is what its body called its session. Costs a millisecond for 300 KB."""
    try:
        said = _BODY.decode(body.removeprefix(_BOM))
    except _ERRORS:
        said = _Body()
    door = intake.inference
    is_read = door is not None and door.needs is Capability.COMPLETION and config.optimizes_cache
    return Ask(
        prompt=_prompt(said) if is_read else NO_PROMPT, session=intake.session or session_id or _session(said, config),
        is_first=not any(message.role == _ASSISTANT for message in said.messages), strategy=intake.strategy,
        request_id=request_id.decode(),
    )  # fmt: skip


def _session(said: _Body, config: RoutingConfig) -> str:
    """Return what other fields of the body call its session, where they may; empty where they name none."""
    names = [said.prompt_cache_key, said.user] if config.affinity_from_user else []
    return next((name for name in names if isinstance(name, str) and name), "")


def _prompt(said: _Body) -> Prompt:
    return prompt_of(_parts(said))


def _parts(said: _Body) -> Iterator[tuple[str, str]]:
    """Return the texts of a body as (role, text), in the order in which templates put them."""
    if tools := bytes(said.tools):
        yield "tools", tools.decode("utf-8", "replace")
    for system in (said.system, said.instructions):
        if system is not None:
            yield "system", _text(system)
    for message in said.messages:
        yield str(message.role), _text(message.content)
    for text in (said.prompt, said.input):
        if text is not None:
            yield "user", _text(text)


def _text(content: object) -> str:
    """Return the text of a message's content: one text, or the parts of it."""
    if isinstance(content, str):
        return content
    return "\x1f".join(_texts(content))


def _texts(content: object) -> Iterator[str]:
    """Return every text in lists and parts, where an image stands for itself, and numbers of tokens too."""
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, int):
            yield str(value)
        elif isinstance(value, list):
            pending += reversed(value)
        elif isinstance(value, dict):
            pending += [value.get(key) for key in ("url", "image_url", "content", "text")]


# -- answers ---------------------------------------------------------------------------------------------


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int = 0


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Timings(msgspec.Struct, gc=False):
    prompt_n: int = 0
    cache_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class _Told(msgspec.Struct, gc=False):
    usage: _Usage | None = None
    timings: _Timings | None = None


class _Whole(_Told, gc=False):
    response: _Told | None = None
    """In the last event of `/v1/responses`."""


_TOLD = msgspec.json.Decoder(_Told)
_WHOLE = msgspec.json.Decoder(_Whole)


def report_of(document: bytes) -> Report:
    """Return what a whole answer, or one event, says of its prompt."""
    try:
        told = _TOLD.decode(document)
    except _ERRORS:
        return _NOTHING
    usage, timings = told.usage or _Usage(), told.timings or _Timings()
    tokens = usage.prompt_tokens or timings.prompt_n + timings.cache_n
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details is not None else timings.cache_n
    if not 0 <= cached <= tokens:
        return _NOTHING
    made = max(usage.completion_tokens or timings.predicted_n, 0)
    read_s, wrote_s = max(timings.prompt_ms, 0.0) / 1000, max(timings.predicted_ms, 0.0) / 1000
    return Report(prompt_tokens=tokens, cached_tokens=cached, made_tokens=made, read_s=read_s, wrote_s=wrote_s)


def report_of_events(pieces: Sequence[bytes], *, is_chunked: bool) -> Report:
    """Return what the last events of a stream say of its prompt."""
    data = b"".join(pieces)
    for event in _events_backwards(payload_of(data) if is_chunked else data):
        if b'"timings"' in event or b'"usage"' in event:
            found = report_of(event)
            if found.prompt_tokens:
                return found
    return _NOTHING


def tokens_of(document: bytes) -> int | None:
    """Return how many tokens a whole answer, or one event, says that its request took; None where it says nothing."""
    try:
        told: _Told = _WHOLE.decode(document)
    except _ERRORS:
        return None
    if isinstance(told, _Whole) and told.response is not None:
        told = told.response
    if (usage := told.usage) is not None and usage.total_tokens > 0:
        return usage.total_tokens
    if usage is not None and (usage.prompt_tokens > 0 or usage.input_tokens > 0):
        return max(usage.prompt_tokens + usage.completion_tokens, usage.input_tokens + usage.output_tokens)
    if (timings := told.timings) is not None and timings.predicted_n > 0:
        return max(timings.prompt_n, 0) + max(timings.cache_n, 0) + timings.predicted_n
    return None


def tokens_of_events(pieces: Iterable[bytes], *, is_chunked: bool) -> int | None:
    """Return how many tokens the last events of a stream say that its request took; None where they say nothing."""
    data = b"".join(pieces)
    for event in _events_backwards(payload_of(data) if is_chunked else data):
        if b'"timings"' in event or b'"usage"' in event:
            found = tokens_of(event)
            if found is not None:
                return found
    return None


def _events_backwards(data: bytes) -> Iterable[bytes]:
    """Return the data of events, the last one first."""
    return (line[6:] for line in reversed(data.splitlines()) if line.startswith(b"data: {"))
