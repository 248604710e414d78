"""How the fake engine words its answers: OpenAI's chat and text, Anthropic's messages, llama.cpp's numbers.

Owns the JSON of answers, pure. Decides nothing. Doesn't know connections, slots or troubles.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What an answer took."""

    prompt_tokens: int
    cached_tokens: int
    made_tokens: int
    took_ms: float

    @property
    def as_openai(self) -> Json:
        """Return `usage` and `timings` as llama.cpp gives them."""
        return {
            "usage": {
                "completion_tokens": self.made_tokens,
                "prompt_tokens": self.prompt_tokens,
                "total_tokens": self.made_tokens + self.prompt_tokens,
                "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            },
            "timings": {
                "cache_n": self.cached_tokens,
                "prompt_n": self.prompt_tokens - self.cached_tokens,
                "predicted_n": self.made_tokens,
                "predicted_ms": self.took_ms,
                "predicted_per_second": self.made_tokens * 1000 / self.took_ms,
            },
        }


@dataclass(frozen=True, slots=True)
class Style:
    """How one interface words its answers. Functions get the request's body, or the answer's counts."""

    whole: Callable[[str, str, Counts, Json], Json]
    opening: Callable[[str], list[Json | str]]
    piece: Callable[[str, str], Json]
    ending: Callable[[str, Counts, Json], list[Json | str]]


def _chat_whole(model: str, text: str, counts: Counts, body: Json) -> Json:
    message: Json = {"role": "assistant", "content": text}
    tools = body.get("tools")
    if tools and body.get("tool_choice") != "none":
        call = {"name": tools[0]["function"]["name"], "arguments": "{}"}
        message["tool_calls"] = [{"type": "function", "id": "call_0", "function": call}]
    reason = "tool_calls" if "tool_calls" in message else "length"
    choice = {"index": 0, "finish_reason": reason, "message": message}
    named = {"id": "chatcmpl-fake", "object": "chat.completion", "created": 0, "model": model}
    return {**named, "choices": [choice], **counts.as_openai}


def _chat_chunk(model: str, delta: Json, reason: str | None = None) -> Json:
    choice = {"index": 0, "finish_reason": reason, "delta": delta}
    return {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [choice]}


def _chat_opening(model: str) -> list[Json | str]:
    return [_chat_chunk(model, {"role": "assistant", "content": None})]


def _chat_piece(model: str, word: str) -> Json:
    return _chat_chunk(model, {"content": word})


def _chat_ending(model: str, counts: Counts, body: Json) -> list[Json | str]:
    last: list[Json | str] = [_chat_chunk(model, {}, "length")]
    if _wants_usage(body):
        last.append({**_chat_chunk(model, {}), "choices": [], **counts.as_openai})
    return [*last, "[DONE]"]


def _text_piece(model: str, word: str) -> Json:
    choice = {"index": 0, "finish_reason": None, "text": word, "logprobs": None}
    return {"id": "cmpl-fake", "object": "text_completion", "created": 0, "model": model, "choices": [choice]}


def _text_whole(model: str, text: str, counts: Counts, _: Json) -> Json:
    whole = _text_piece(model, text)
    whole["choices"][0]["finish_reason"] = "length"
    return {**whole, **counts.as_openai}


def _text_ending(model: str, counts: Counts, body: Json) -> list[Json | str]:
    return [_text_whole(model, "", counts, body), "[DONE]"]


def _message_whole(model: str, text: str, counts: Counts, _: Json) -> Json:
    return {
        "id": "msg-fake", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": text}], "stop_reason": "max_tokens", "stop_sequence": None,
        "usage": {"input_tokens": counts.prompt_tokens, "output_tokens": counts.made_tokens},
    }  # fmt: skip


def _message_opening(model: str) -> list[Json | str]:
    nothing = Counts(prompt_tokens=1, cached_tokens=0, made_tokens=0, took_ms=1.0)
    message = {**_message_whole(model, "", nothing, {}), "content": [], "stop_reason": None}
    block = {"type": "text", "text": ""}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
    ]


def _message_piece(_: str, word: str) -> Json:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}


def _message_ending(_: str, counts: Counts, __: Json) -> list[Json | str]:
    usage = {"output_tokens": counts.made_tokens}
    ended = {"type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": None}, "usage": usage}
    return [{"type": "content_block_stop", "index": 0}, ended, {"type": "message_stop"}]


def _wants_usage(body: Json) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


CHAT = Style(_chat_whole, _chat_opening, _chat_piece, _chat_ending)
TEXT = Style(_text_whole, lambda _: [], _text_piece, _text_ending)
MESSAGE = Style(_message_whole, _message_opening, _message_piece, _message_ending)
STYLES = {
    "/v1/chat/completions": CHAT, "/chat/completions": CHAT, "/v1/completions": TEXT, "/completions": TEXT,
    "/v1/messages": MESSAGE,
}  # fmt: skip
"""Path -> how its answers are worded."""


TURN = "<|assistant|>"
"""How the double's prompts end: what follows was said already, and the answer goes on behind it."""


def said_already(prompt: str) -> int:
    """Return how many tokens of an answer a prompt ends with."""
    return len(prompt.partition(TURN)[2].split())


def error(message: str, code: int) -> Json:
    """Return an error body as llama.cpp words it."""
    return {"error": {"message": message, "type": "server_error", "code": code}}


def event(data: Json | str) -> bytes:
    """Return one server-sent event; those with a `type` carry its name, as Anthropic's do."""
    if isinstance(data, str):
        return f"data: {data}\n\n".encode()
    name = f"event: {data['type']}\n" if "type" in data else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()
