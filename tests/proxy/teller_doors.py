"""How the storyteller words its story at each door, and how strict clients read what they get of it there."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.proxy.builders import Reply

Word = tuple[str, str]
"""`text` or `thoughts`, and what is said."""


@dataclass(frozen=True)
class Told:
    """One answer, before it is worded."""

    words: list[Word]
    reason: str
    read: int
    made: int
    model: str
    name: str
    """What its ids have in common, which no other answer has."""


def named(document: dict[str, Any]) -> bytes:
    """Return an event with the name of its type."""
    return f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode()


def messages(told: Told) -> Iterator[bytes]:
    """Return Anthropic's events, as llama.cpp has them: thoughts stay open until the end."""
    message = {"id": told.name, "type": "message", "role": "assistant", "content": [], "model": told.model}
    usage = {"input_tokens": told.read, "output_tokens": 0}
    yield named({"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}})
    kinds: list[str] = []
    for kind, word in told.words:
        block, delta = ("text", "text") if kind == "text" else ("thinking", "thinking")
        if kind not in kinds:
            kinds.append(kind)
            content = {"type": block, delta: ""}
            yield named({"type": "content_block_start", "index": len(kinds) - 1, "content_block": content})
        more = {"type": f"{block}_delta", delta: word}
        yield named({"type": "content_block_delta", "index": kinds.index(kind), "delta": more})
    for index, kind in enumerate(kinds):
        if kind == "thoughts":
            signed = {"type": "signature_delta", "signature": ""}
            yield named({"type": "content_block_delta", "index": index, "delta": signed})
        yield named({"type": "content_block_stop", "index": index})
    reason = {"stop": "end_turn", "length": "max_tokens"}[told.reason]
    ended = {"stop_reason": reason, "stop_sequence": None}
    yield named({"type": "message_delta", "delta": ended, "usage": {"output_tokens": told.made}})
    yield named({"type": "message_stop"})


def responses(told: Told, *, is_numbered: bool) -> Iterator[bytes]:
    """Return the events of OpenAI's responses, as llama.cpp has them; numbered as OpenAI has them."""
    for number, document in enumerate(_response(told, is_numbered=is_numbered)):
        yield named({**document, "sequence_number": number} if is_numbered else document)


def _response(told: Told, *, is_numbered: bool) -> Iterator[dict[str, Any]]:
    begun = {"id": f"resp_{told.name}", "object": "response", "status": "in_progress"}
    ids = {"text": f"msg_{told.name}", "thoughts": f"rs_{told.name}"}
    said = {kind: "".join(word for one, word in told.words if one == kind) for kind in ids}
    kinds = list(dict.fromkeys(kind for kind, _ in told.words))

    def at(kind: str, *, is_part: bool = True) -> dict[str, int]:
        place = {"output_index": kinds.index(kind)} | ({"content_index": 0} if is_part else {})
        return place if is_numbered else {}

    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    opened: list[str] = []
    for kind, word in told.words:
        if kind not in opened:
            opened.append(kind)
            what = "message" if kind == "text" else "reasoning"
            item = {"type": what, "id": ids[kind], "status": "in_progress", "content": []}
            yield {"type": "response.output_item.added", "item": item, **at(kind, is_part=False)}
            if kind == "text":
                part = {"type": "output_text", "text": ""}
                yield {"type": "response.content_part.added", "item_id": ids[kind], "part": part, **at(kind)}
        name = "response.output_text.delta" if kind == "text" else "response.reasoning_text.delta"
        yield {"type": name, "item_id": ids[kind], "delta": word, **at(kind)}
    output: list[dict[str, Any]] = []
    for kind in kinds:
        closing: Any = {"type": "output_text" if kind == "text" else "reasoning_text", "text": said[kind]}
        if kind == "text":
            yield {"type": "response.output_text.done", "item_id": ids[kind], "text": said[kind], **at(kind)}
            yield {"type": "response.content_part.done", "item_id": ids[kind], "part": closing, **at(kind)}
        item = {"type": "message" if kind == "text" else "reasoning", "id": ids[kind], "content": [closing]}
        output.append(item)
        yield {"type": "response.output_item.done", "item": item, **at(kind, is_part=False)}
    usage = {"input_tokens": told.read, "output_tokens": told.made, "total_tokens": told.read + told.made}
    more = {"created_at": 7, "status": "completed", "model": told.model, "output": output, "usage": usage}
    yield {"type": "response.completed", "response": {**begun, **more}}


@dataclass
class Read:
    """What a client that takes every event at its word has in the end."""

    text: str = ""
    thoughts: str = ""
    reason: str = ""
    read: int = 0
    made: int = 0
    is_whole: bool = False
    error: dict[str, Any] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)

    @property
    def amount(self) -> tuple[int, int]:
        """Return the tokens of the prompt, and of the answer."""
        return self.read, self.made


def events_in(reply: Reply, read: Read) -> Iterator[dict[str, Any]]:
    """Return the events of a stream; their names say what their documents say."""
    for event in reply.body.split(b"\n\n"):
        lines = [line for line in event.split(b"\n") if line]
        read.comments += [line[2:].decode() for line in lines if line.startswith(b": ")]
        data = [line[6:] for line in lines if line.startswith(b"data: ")]
        if not data:
            continue
        assert not read.is_whole, "nothing comes behind the end"
        document = json.loads(data[0])
        if "error" in document:
            read.error = document["error"]
            continue
        assert b"event: " + document["type"].encode() in lines
        yield document


def read_message(reply: Reply) -> Read:
    """Read a stream of a message, as its grammar is."""
    read, kinds, open_blocks, signed = Read(), [], set(), set()  # type: ignore[var-annotated]  # told below
    for number, document in enumerate(events_in(reply, read)):
        kind, index = document["type"], document.get("index", -1)
        assert (kind == "message_start") == (number == 0)
        if kind == "message_start":
            read.read = document["message"]["usage"]["input_tokens"]
        elif kind == "content_block_start":
            assert index == len(kinds)
            kinds.append(document["content_block"]["type"])
            open_blocks.add(index)
        elif kind == "content_block_delta":
            assert index in open_blocks
            _take_delta(read, kinds[index], document["delta"], lambda index=index: signed.add(index))
        elif kind == "content_block_stop":
            open_blocks.remove(index)
            assert kinds[index] == "text" or index in signed
        elif kind == "message_delta":
            assert not open_blocks
            read.reason, read.made = document["delta"]["stop_reason"], document["usage"]["output_tokens"]
        else:
            assert kind == "message_stop"
            assert read.reason
            read.is_whole = True
    return read


def _take_delta(read: Read, kind: str, delta: dict[str, Any], sign: Any) -> None:
    if delta["type"] == "signature_delta":
        sign()
    elif kind == "text":
        assert delta["type"] == "text_delta"
        read.text += delta["text"]
    else:
        assert delta["type"] == "thinking_delta"
        assert not read.text
        read.thoughts += delta["thinking"]


def read_response(reply: Reply) -> Read:
    """Read a stream of a response, as its grammar is."""
    read, items, done = Read(), {}, set()  # type: ignore[var-annotated]  # told below
    name, numbers, places = "", [], set()
    for document in events_in(reply, read):
        kind = document["type"].removeprefix("response.")
        numbers.append(document.get("sequence_number"))
        item, about = document.get("item", {}), document.get("item_id")
        assert about is None or (about in items and about not in done)
        if kind in {"created", "in_progress"}:
            name = name or document["response"]["id"]
            assert document["response"]["id"] == name
        elif kind == "output_item.added":
            assert item["type"] not in items.values()
            items[item["id"]] = item["type"]
        elif kind == "output_text.delta":
            assert items[about] == "message"
            read.text += document["delta"]
        elif kind == "reasoning_text.delta":
            assert items[about] == "reasoning"
            read.thoughts += document["delta"]
        elif kind == "output_text.done":
            assert document["text"] == read.text
        elif kind == "content_part.done":
            assert document["part"]["text"] == read.text
        elif kind == "output_item.done":
            done.add(item["id"])
            assert item["content"][0]["text"] == (read.text if items[item["id"]] == "message" else read.thoughts)
        elif kind == "completed":
            whole = document["response"]
            assert (whole["id"], {one["id"] for one in whole["output"]}, done) == (name, set(items), set(items))
            read.read, read.made = whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]
            read.is_whole, read.reason = True, whole["status"]
        else:
            assert kind == "content_part.added"
        if about is not None or item:
            places.add((about or item["id"], document.get("output_index")))
    assert numbers in ([None] * len(numbers), list(range(len(numbers))))
    assert {place for _, place in places} in ({None}, set(), set(range(len(items))))
    assert len(places) == len(items)
    return read


def read_chat(reply: Reply) -> Read:
    """Read a stream of a chat."""
    read, names = Read(), set()
    for event in reply.body.split(b"\n"):
        if event.startswith(b": "):
            read.comments.append(event[2:].decode())
        if not event.startswith(b"data: "):
            continue
        assert not read.is_whole
        if event[6:] == b"[DONE]":
            read.is_whole = True
            continue
        document = json.loads(event[6:])
        if "error" in document:
            read.error = document["error"]
            continue
        names.add(document["id"])
        if document.get("usage"):
            read.read, read.made = document["usage"]["prompt_tokens"], document["usage"]["completion_tokens"]
        for choice in document["choices"]:
            assert not (read.text and choice["delta"].get("reasoning_content"))
            read.text += choice["delta"].get("content") or ""
            read.thoughts += choice["delta"].get("reasoning_content") or ""
            read.reason = choice["finish_reason"] or read.reason
    assert len(names) == 1
    return read
