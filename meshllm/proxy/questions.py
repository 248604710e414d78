"""What each door's request asks, as the chat that an engine makes of it.

Owns the translation of Anthropic's messages and OpenAI's responses into turns of a chat, as llama.cpp does it. Decides
which of them are nothing but text. Doesn't know why a prompt is wanted, nor what was answered; pure.
"""

from typing import Any

Json = dict[str, Any]


def chat_of_messages(document: Json) -> Json | None:
    """Return the chat of a request to `/v1/messages`; None where it is more than text."""
    turns: list[Json] = []
    if (system := document.get("system")) is not None:
        texts = [system] if isinstance(system, str) else _texts(system)
        if texts is None:
            return None
        turns.append({"role": "system", "content": "".join(texts)})
    for message in document["messages"]:
        turn = _turn_of(message)
        if turn is None:
            return None
        turns.append(turn)
    return _with(document, turns, "chat_template_kwargs")


def _turn_of(message: Json) -> Json | None:
    """Return a turn whose thoughts stand beside its text."""
    content = message.get("content")
    if not isinstance(content, list):
        return {"role": message["role"], "content": content}
    thoughts = "".join(str(block.get("thinking", "")) for block in content if _kind(block) == "thinking")
    texts = _texts([block for block in content if _kind(block) != "thinking"])
    if texts is None:
        return None
    turn: Json = {"role": message["role"], "content": [{"type": "text", "text": text} for text in texts] or ""}
    return turn | {"reasoning_content": thoughts} if thoughts else turn


def chat_of_response(document: Json) -> Json | None:
    """Return the chat of a request to `/v1/responses`; None where it is more than text."""
    turns: list[Json] = []
    if document.get("instructions") is not None:
        turns.append({"role": "system", "content": document["instructions"]})
    items = document["input"]
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
        turns.append(items[0])
        items = []
    for item in items:
        if not isinstance(item, dict) or item.get("type", "message") != "message":
            return None
        content = item.get("content")
        texts = [content] if isinstance(content, str) else _texts(content)
        if texts is None or item.get("role") not in {"user", "system", "developer", "assistant"}:
            return None
        parts = [{"type": "text", "text": text} for text in texts]
        if item["role"] == "assistant" and turns and turns[-1]["role"] == "assistant":
            turns[-1]["content"] += parts
        else:
            turns.append({"role": item["role"], "content": parts})
    chat = _with(document, turns, "chat_template_kwargs")
    effort = document["reasoning"].get("effort") if isinstance(document.get("reasoning"), dict) else None
    return chat | {"reasoning_effort": effort} if effort else chat


def _with(document: Json, turns: list[Json], *names: str) -> Json:
    return {"messages": turns, **{name: document[name] for name in names if name in document}}


def _texts(blocks: object) -> list[str] | None:
    """Return the texts of some blocks; None where one is something else."""
    if not isinstance(blocks, list):
        return None
    found = [block.get("text") for block in blocks if _kind(block) in {"text", "input_text", "output_text"}]
    texts = [text for text in found if isinstance(text, str)]
    return texts if len(texts) == len(blocks) else None


def _kind(block: object) -> object:
    return block.get("type") if isinstance(block, dict) else None
