"""Which streams another engine can go on with, and how it is asked to.

Owns the reading of a request's body once its stream was lost: what it may not contain, and what of it is asked
again. Decides by the body alone. Doesn't know what was said so far, nor engines; pure.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from meshllm.core import limits
from meshllm.proxy import questions
from meshllm.proxy.intake import Intake

CHAT = b"/v1/chat/completions"
TEXT = b"/v1/completions"
MESSAGES = b"/v1/messages"
RESPONSES = b"/v1/responses"
RESUMABLE = frozenset({CHAT, TEXT, MESSAGES, RESPONSES})
"""Paths whose streams say one text, piece by piece."""
_BOM = b"\xef\xbb\xbf"
_UNTELLABLE = (
    "audio", "best_of", "echo", "function_call", "functions", "grammar", "guided_json", "json_schema", "logprobs",
    "n_probs", "suffix", "tools", "top_logprobs",
)  # fmt: skip
"""What makes an answer more than a text, or ties its next word to what an engine alone remembers."""
_OF_LENGTH = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")
_BUDGETS = ("reasoning_budget", "thinking", "thinking_budget_tokens")
"""What bounds thoughts alone: only the engine that began them knows how much is left."""
_NOT_ASKED_AGAIN = frozenset({
    *_UNTELLABLE, *_OF_LENGTH, *_BUDGETS, "add_generation_prompt", "chat_template_kwargs", "include", "input",
    "instructions", "messages", "metadata", "modalities", "model", "n", "parallel_tool_calls", "prompt", "reasoning",
    "reasoning_effort", "reasoning_format", "response_format", "store", "stream", "stream_options", "system", "text",
    "tool_choice", "truncation",
})  # fmt: skip
_OF_TEMPLATE = frozenset({"stream", "stream_options", *_OF_LENGTH})
_OF_MESSAGES = ("temperature", "top_k", "top_p")
"""What engines heed of a message's request, beside how long it is and where it stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a client asked for."""

    path: bytes
    document: dict[str, Any]
    is_plain: bool
    """Nothing but one text."""
    model: str | None
    prompt: str | list[Any]
    """Of a text completion."""
    most_tokens: int | None
    stops: tuple[str, ...]
    has_usage: bool
    """How much was read is said at the end."""
    thinks_aloud: bool
    """What the model thinks is part of the text."""
    has_budget: bool = False
    """There is a bound of thoughts alone."""

    def for_template(self, model: str) -> dict[str, Any]:
        """Return the question for the prompt of a chat, as an engine reads it."""
        document: dict[str, Any] | None = self.document
        if self.path == MESSAGES:
            document = questions.chat_of_messages(self.document)
        elif self.path == RESPONSES:
            document = questions.chat_of_response(self.document)
        return {key: value for key, value in (document or {}).items() if key not in _OF_TEMPLATE} | {"model": model}

    def for_rest(self, model: str, prompt: object, most_tokens: int | None) -> dict[str, Any]:
        """Return the question for what comes behind a prompt."""
        if self.path == MESSAGES:
            kept = {key: self.document[key] for key in _OF_MESSAGES if key in self.document}
            kept |= {"stop": list(self.stops)} if self.stops else {}
        else:
            kept = {key: value for key, value in self.document.items() if key not in _NOT_ASKED_AGAIN}
        length = {} if most_tokens is None else {"max_tokens": most_tokens}
        return {**kept, **length, "model": model, "prompt": prompt, "stream": True, "stream_options": _WITH_USAGE}


_WITH_USAGE = {"include_usage": True}


def wants_usage(path: bytes, document: dict[str, Any]) -> bool:
    """Tell whether a stream says in the end how much was read: responses always do, messages say it as they begin."""
    options = document.get("stream_options")
    return path == RESPONSES or (
        path == CHAT and isinstance(options, dict) and options.get("include_usage") is True
    )  # fmt: skip


def read_wanted(intake: Intake, body: bytes) -> Wanted | None:
    """Return what a stream was asked for; None where that is no inference. The body was checked."""
    if intake.inference is None:
        return None
    document: dict[str, Any] = msgspec.json.decode(body.removeprefix(_BOM), type=dict[str, Any])
    path = intake.inference.path
    prompt = document.get("prompt")
    stop = document.get("stop_sequences" if path == MESSAGES else "stop")
    most = (document.get(name) for name in _OF_LENGTH)
    return Wanted(
        path=path, document=document, is_plain=_is_plain(document, path), model=document.get("model"),
        prompt=prompt if isinstance(prompt, str | list) else "",
        most_tokens=next((number for number in most if isinstance(number, int) and number >= 0), None),
        stops=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        has_usage=wants_usage(path, document), thinks_aloud=document.get("reasoning_format") == "none",
        has_budget=any(document.get(name) for name in _BUDGETS),
    )  # fmt: skip


def _is_plain(document: dict[str, Any], path: bytes) -> bool:
    """Tell whether the answer is one text that depends on nothing but the text before it."""
    if any(document.get(name) for name in _UNTELLABLE) or document.get("n") not in {None, 1}:
        return False
    if not all(map(_is_of_text, (document.get("response_format"), _format_of(document.get("text"))))):
        return False
    if document.get("modalities") not in (None, ["text"]):
        return False
    if path == TEXT:
        return _is_one_prompt(document.get("prompt"))
    if path == CHAT:
        turns = document["messages"]
    else:
        chat = _CHATS[path](document) if path in _CHATS else None
        turns = chat["messages"] if chat is not None else []
    return bool(turns) and turns[-1].get("role") != "assistant" and all(_is_text(turn.get("content")) for turn in turns)


_CHATS = {MESSAGES: questions.chat_of_messages, RESPONSES: questions.chat_of_response}


def _is_of_text(form: object) -> bool:
    return form is None or (isinstance(form, dict) and form.get("type") == "text")


def _format_of(text: object) -> object:
    return text.get("format") if isinstance(text, dict) else None


def _is_one_prompt(prompt: object) -> bool:
    """Tell whether a prompt is a text, or the numbers of one text's tokens with room for the rest behind them."""
    if isinstance(prompt, list):
        return len(prompt) < limits.JSON_MESSAGES and all(isinstance(number, int) for number in prompt)
    return isinstance(prompt, str)


def _is_text(content: object) -> bool:
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return True
