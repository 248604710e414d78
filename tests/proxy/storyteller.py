"""An engine double that always tells the same story, and goes on with it wherever it is told to.

Its tokens are pieces of one text; a chat begins at its beginning, a text completion behind what its prompt ends with.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.proxy.builders import STREAM_HEAD, Reply, Request, chunk, whole
from tests.proxy.teller_doors import Told, Word, messages, responses

TOKENS = (
    "Once", " upon", " a", " time", ",", " in", " a", " caf", "é", " by", " the", " sea", ",", " lived", " a", " cat",
    " 🐈", ".\n", "\n", "It", " was", " called", " “", "Zoë", "”", ",", " and", " it", " said", ":", " \\", "n", ".",
    " END", " of", " ST", "ORY",
)  # fmt: skip
STORY = "".join(TOKENS)
THOUGHT_TOKENS = ("A", " cat", " would", " do", ".\n", "\n", "Or", " a", " <dog", "?")
THOUGHTS = "".join(THOUGHT_TOKENS)
TURN = "<|assistant|>"
PROMPT_TOKENS = 7


@dataclass
class Teller:
    """The double, and what it does beside telling."""

    breaks_after: list[int] = field(default_factory=list)
    """Tokens after which it hangs up, for each stream in turn; when there is none left it does not."""
    refuses: set[str] = field(default_factory=set)
    """Paths that it answers with an error."""
    turn: str = TURN
    beside: dict[str, Any] = field(default_factory=dict)
    """More fields of each chat delta."""
    fails_after: int | None = None
    """Tokens of a text after which it says that something is wrong."""
    waits_for: asyncio.Event | None = None
    """What it waits for in the middle of a chat."""
    thinks: bool = False
    """It thinks before it tells: between marks of its own, or behind one in `turn`."""
    has_mark: bool = True
    """The end of its thoughts is a token."""
    is_numbered: bool = False
    """Its responses are numbered as OpenAI's are."""
    is_hasty: bool = False
    """It tells the beginning of what may become a stop sequence."""
    asked: list[tuple[str, Any]] = field(default_factory=list)

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        path, body = request.line.split()[1], request.json
        self.asked.append((path, body))
        if path in self.refuses:
            writer.write(whole({"error": {"message": "not today", "code": 500}}, "500 Oh"))
        elif path == "/apply-template":
            turns = "".join(f"<|{message['role']}|>{text_of(message['content'])}" for message in body["messages"])
            writer.write(whole({"prompt": turns + self.turn}))
        elif path == "/tokenize":
            is_mark = body["content"] == "</think>"
            count = (1 if self.has_mark else 3) if is_mark else tokens_of(body["content"], self.tokens)
            writer.write(whole({"tokens": list(range(count))}))
        elif not body.get("stream"):
            writer.write(whole({"model": body["model"]}))
        else:
            await self._stream(path, body, writer)
        if not writer.is_closing():
            await writer.drain()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return all that it generates, marks and all."""
        opening = () if self.turn != TURN else ("<think>", "\n")
        return (*opening, *THOUGHT_TOKENS, "\n", "</think>", "\n\n", *TOKENS) if self.thinks else TOKENS

    async def _stream(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        breaks_after = self.breaks_after.pop(0) if self.breaks_after else None
        is_text = path == "/v1/completions"
        said = said_in(body["prompt"]).removeprefix(said_in(self.turn)) if is_text else ""
        writer.write(STREAM_HEAD)
        count = 0
        for count, event in enumerate(self._events(path, body, said)):
            if count == breaks_after or writer.is_closing():
                writer.close()
                return
            writer.write(chunk(event))
            if not is_text and count == 5 and self.waits_for is not None:
                await self.waits_for.wait()
            await asyncio.sleep(0)
        if breaks_after is not None and breaks_after > count:
            writer.close()
            return
        writer.write(b"0\r\n\r\n")

    def _events(self, path: str, body: dict[str, Any], said: str) -> Iterator[bytes]:
        """Return the events of an answer: what comes behind what was said, up to the end or to what was asked for."""
        all_tokens = self.tokens
        first, most = tokens_of(said, all_tokens), body.get("max_tokens", body.get("max_output_tokens", 1000))
        assert "".join(all_tokens).startswith(said), said
        stops = body.get("stop") or body.get("stop_sequences") or []
        tokens = told(all_tokens[first : first + most], stops, is_hasty=self.is_hasty)
        is_stopped = len("".join(tokens)) < len("".join(all_tokens[first : first + most]))
        reason = "stop" if is_stopped or first + len(tokens) == len(all_tokens) else "length"
        read = PROMPT_TOKENS + first
        if path == "/v1/completions":
            return self._text(body, tokens, reason, read)
        answer = Told(told_apart(tokens) if self.thinks else [("text", token) for token in tokens],
                      reason, read, len(tokens), body["model"], f"id-{id(body)}")  # fmt: skip
        if path == "/v1/messages":
            return messages(answer)
        if path == "/v1/responses":
            return responses(answer, is_numbered=self.is_numbered)
        return self._chat(body, answer)

    def _text(self, body: dict[str, Any], tokens: list[str], reason: str, read: int) -> Iterator[bytes]:
        for number, token in enumerate(tokens):
            if number == self.fails_after:
                yield b'data: {"error":{"message":"oh","code":500,"type":"server_error"}}\n\n'
                return
            yield an_event(body, {"text": token})
        yield an_event(body, {"text": "", "finish_reason": reason}, usage=usage_of(read, len(tokens)))
        yield b"data: [DONE]\n\n"

    def _chat(self, body: dict[str, Any], answer: Told) -> Iterator[bytes]:
        yield an_event(body, {"delta": {"role": "assistant", "content": None}})
        for kind, word in answer.words:
            field = "content" if kind == "text" else "reasoning_content"
            yield an_event(body, {"delta": {field: word} | self.beside})
        yield an_event(body, {"delta": {}, "finish_reason": answer.reason})
        if body.get("stream_options"):
            yield an_event(body, None, usage=usage_of(answer.read, answer.made))
        yield b"data: [DONE]\n\n"


def an_event(body: dict[str, Any], choice: dict[str, Any] | None, **more: Any) -> bytes:
    """Return one event of a chat or of a text completion."""
    choices = [] if choice is None else [{"index": 0, "finish_reason": None} | choice]
    kind = "text_completion" if "prompt" in body else "chat.completion.chunk"
    named = {"id": f"id-{id(body)}", "created": id(body), "model": body["model"], "object": kind}
    return b"data: %b\n\n" % json.dumps({"choices": choices, **named, **more}).encode()


def usage_of(read: int, made: int) -> dict[str, int]:
    """Return an amount in OpenAI's words."""
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def told_apart(tokens: list[str]) -> list[Word]:
    """Return thoughts and text of tokens as llama.cpp tells them: without marks, and without blanks beside these."""
    words: list[Word] = []
    thoughts, mark, text = "".join(tokens).partition("</think>")
    size = len(thoughts.removeprefix("<think>\n").rstrip())
    for token in THOUGHT_TOKENS:
        if size > 0:
            words.append(("thoughts", token[:size]))
        size -= len(token)
    if mark:
        words += [("text", token) for token in tokens[tokens.index(mark) + 2 :]] if text else []
    return words


def text_of(content: str | list[dict[str, str]]) -> str:
    """Return the text of a turn."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def said_in(prompt: str | list[Any]) -> str:
    """Return what of the story a prompt ends with."""
    text = prompt if isinstance(prompt, str) else str(prompt[-1])
    return text.rpartition("|>")[2]


def tokens_of(text: str, tokens: tuple[str, ...] = TOKENS) -> int:
    """Return the tokens of a beginning of what is told."""
    size, count = 0, 0
    while size < len(text):
        size, count = size + len(tokens[count]), count + 1
    return count


def told(tokens: tuple[str, ...], stops: list[str], *, is_hasty: bool) -> list[str]:
    """Return tokens up to a stop sequence, of which only the hasty tell the beginning."""
    out: list[str] = []
    for token in tokens:
        text = "".join((*out, token))
        end = min((found for stop in stops if (found := text.find(stop)) >= 0), default=-1)
        if end < 0:
            out.append(token)
            continue
        return out if is_hasty else pieces(text[:end], out)
    return out


def pieces(text: str, tokens: list[str]) -> list[str]:
    """Return as much of some tokens as a text has."""
    out = []
    for token in tokens:
        out.append(text[: len(token)])
        text = text[len(token) :]
    return [piece for piece in out if piece]


@dataclass(frozen=True)
class Heard:
    """A streamed answer as its client reads it."""

    reply: Reply

    @property
    def data(self) -> list[bytes]:
        """Return the data of its events."""
        return [line[6:] for line in self.reply.body.split(b"\n") if line.startswith(b"data: ")]

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Return its events but the last, `[DONE]`."""
        return [json.loads(data) for data in self.data if data != b"[DONE]"]

    @property
    def text(self) -> str:
        """Return its text."""
        choices = [choice for document in self.documents for choice in document.get("choices", ())]
        return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)

    @property
    def reasons(self) -> list[str]:
        """Return why it ended, as often as that was said."""
        choices = [choice for document in self.documents for choice in document.get("choices", ())]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]

    @property
    def usages(self) -> list[tuple[int, int, int]]:
        """Return prompt, completion and total, as often as they were said."""
        said = [document["usage"] for document in self.documents if document.get("usage")]
        return [(one["prompt_tokens"], one["completion_tokens"], one["total_tokens"]) for one in said]

    @property
    def comments(self) -> list[str]:
        """Return its comments."""
        return [line[2:].decode() for line in self.reply.body.split(b"\n") if line.startswith(b": ")]

    @property
    def error(self) -> dict[str, Any]:
        """Return the error that it ends with."""
        assert self.data[-1] != b"[DONE]"
        return dict(self.documents[-1]["error"])

    @property
    def times(self) -> set[int]:
        """Return when it says that it was made; real engines say so of each event, the double does not."""
        return {document["created"] for document in self.documents}

    @property
    def is_whole(self) -> bool:
        """Tell whether it is what an answer should be: one of everything, of one origin."""
        told = [document for document in self.documents if "error" not in document]
        assert self.data.count(b"[DONE]") == 1
        assert self.data[-1] == b"[DONE]"
        assert len({(document["id"], document["model"]) for document in told}) == 1
        assert len(self.reasons) == 1
        roles = [choice for one in told for choice in one["choices"] if choice.get("delta", {}).get("role")]
        return len(roles) == (1 if "delta" in (told[0]["choices"][0]) else 0)
