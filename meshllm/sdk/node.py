"""A node of the mesh as an object: what programs do with models, in one call each.

Owns the translation of calls to the node's HTTP API and back. Decides nothing: the node does, as for any client.
Doesn't know the daemon's inside.
"""

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from meshllm.daemon.embedded import EmbeddedNode
from meshllm.daemon.errors import StartError
from meshllm.sdk.builder import MeshNodeBuilder, Model, Plan
from meshllm.sdk.door import Door
from meshllm.sdk.errors import NodeStartError

_CHAT, _COMPLETION, _EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_LOADED = "loaded"
Message = Mapping[str, object]
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model answered."""

    text: str
    model: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    document: Document
    """The whole answer, with what else the engine says."""


class MeshNode:
    """A node within this program, on the loop that started it. Close it, or use it in an `async with`.

    Everywhere, `model=None` stands for the default model, and any name of a model will do.
    """

    def __init__(self, plan: Plan, running: EmbeddedNode) -> None:
        """Ask a node that runs; `builder` and `single` make one."""
        self._plan = plan
        self._running = running
        self._door = Door(running.address, plan.config.api_key)
        self._is_closed = False

    # -- start and end -------------------------------------------------------------------------------

    @classmethod
    def builder(cls) -> "MeshNodeBuilder[MeshNode]":
        """Return a builder of a node, model by model."""
        return MeshNodeBuilder(cls._start)

    @classmethod
    async def single(cls, model: Model | str, **settings: object) -> "MeshNode":
        """Return a running node with one model in memory. Raises NodeStartError or RequestError."""
        return await cls.builder().add_model(model).with_settings(**settings).build()

    @classmethod
    async def _start(cls, plan: Plan) -> "MeshNode":
        running = EmbeddedNode(plan.config)
        with ExitStack() as undo:
            undo.callback(_forget, plan)
            try:
                await running.start()
            except StartError as error:
                raise NodeStartError(error.message) from None
            undo.pop_all()
        node = cls(plan, running)
        async with AsyncExitStack() as undo_all:
            undo_all.push_async_callback(node.close)
            for name in plan.models:
                await node.reload_model(name)
            undo_all.pop_all()
        return node

    async def __aenter__(self) -> Self:
        """Return the node."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the node."""
        await self.close()

    async def close(self) -> None:
        """Let running requests finish, end engines and leave; a second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._running.close()
        finally:
            await self._door.close()
            _forget(self._plan)

    @property
    def address(self) -> str:
        """Return `host:port` where the node answers HTTP, for other clients of this program."""
        return self._running.address

    @property
    def api_key(self) -> str:
        """Return the key that such clients have to show."""
        return self._plan.config.api_key

    # -- requests --------------------------------------------------------------------------------------

    async def chat(self, messages: str | Sequence[Message], model: str | None = None, **options: object) -> Answer:
        """Return a model's answer to a conversation, or to one text. Options are OpenAI's. Raises RequestError."""
        document = await self._door.ask("POST", _CHAT, _asked(model, options, messages=_turns(messages)))
        return _answer(document)

    async def chat_stream(
        self, messages: str | Sequence[Message], model: str | None = None, **options: object
    ) -> AsyncIterator[str]:
        """Give the text of an answer as it comes; whoever stops early cancels it. Raises RequestError."""
        async for event in self._door.events(_CHAT, _asked(model, options, messages=_turns(messages))):
            if text := _text(event):
                yield text

    async def completion(self, prompt: str, model: str | None = None, **options: object) -> Answer:
        """Return how a model goes on with a text. Raises RequestError."""
        return _answer(await self._door.ask("POST", _COMPLETION, _asked(model, options, prompt=prompt)))

    async def completion_stream(self, prompt: str, model: str | None = None, **options: object) -> AsyncIterator[str]:
        """Give how a model goes on with a text, as it comes. Raises RequestError."""
        async for event in self._door.events(_COMPLETION, _asked(model, options, prompt=prompt)):
            if text := _text(event):
                yield text

    async def embeddings(
        self, texts: str | Sequence[str], model: str | None = None, **options: object
    ) -> list[list[float]]:
        """Return the vectors of texts in their order. Raises RequestError."""
        asked = [texts] if isinstance(texts, str) else list(texts)
        document: Document = await self._door.ask("POST", _EMBEDDINGS, _asked(model, options, input=asked))
        return [list(entry["embedding"]) for entry in sorted(document["data"], key=lambda entry: entry["index"])]

    # -- models ----------------------------------------------------------------------------------------

    async def list_models(self) -> list[str]:
        """Return the ids of all models that can be asked for, in memory or not, sorted."""
        return [name for name, _ in await self.list_models_with_status()]

    async def list_models_with_status(self) -> list[tuple[str, str]]:
        """Return (id, `loaded`, `unloaded` or `reloading`) of all models that can be asked for, sorted."""
        document: Document = await self._door.ask("GET", "/v1/models?pseudo=false")
        return [(str(entry["id"]), str(entry["status"])) for entry in document["data"]]

    async def get_default_model_id(self) -> str | None:
        """Return which model answers where none is named; None where none does."""
        found = (await self._door.ask("GET", "/v1/models/default")).get("default_model_id")
        return None if found is None else str(found)

    async def set_default_model_id(self, model: str) -> None:
        """Let a model answer where none is named. An unknown one raises RequestError, and the old one stays."""
        await self._door.ask("POST", "/v1/models/default", {"model_id": model, "scope": "node"})

    async def is_model_loaded(self, model: str) -> bool:
        """Tell whether a model is in memory. Raises RequestError for one that nobody has."""
        return (await self._door.ask("POST", "/v1/models/status", {"model_id": model}))["status"] == _LOADED

    async def unload_model(self, model: str) -> None:
        """Take a model out of memory; the next request for it brings it back. Raises RequestError."""
        await self._door.ask("POST", "/v1/models/unload", {"model_id": model, "scope": "node"})

    async def reload_model(self, model: str) -> None:
        """Bring a model into memory; one that is there stays. Raises RequestError."""
        await self._door.ask("POST", "/v1/models/reload", {"model_id": model, "scope": "node"})

    async def remove_model(self, model: str) -> None:
        """Withdraw a model from this node for good: no request brings it back. Its file stays. Raises RequestError."""
        await self._door.ask("POST", "/mesh/drop", {"model": model, "keep_running": True})


def _asked(model: str | None, options: Mapping[str, object], **fields: object) -> dict[str, object]:
    named = {} if model is None else {"model": model}
    return {**options, **named, **fields}


def _turns(messages: str | Sequence[Message]) -> list[Message]:
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)


def _answer(document: Document) -> Answer:
    usage = document.get("usage") or {}
    choice: Document = next(iter(document.get("choices") or ()), {})
    return Answer(
        text=_text(document), model=str(document.get("model", "")), finish_reason=choice.get("finish_reason"),
        prompt_tokens=usage.get("prompt_tokens", 0), completion_tokens=usage.get("completion_tokens", 0),
        document=document,
    )  # fmt: skip


def _text(document: Document) -> str:
    """Return the text of the first choice, whole or a piece of it."""
    choice: Document = next(iter(document.get("choices") or ()), {})
    said = choice.get("message") or choice.get("delta") or {}
    return str(choice.get("text") or said.get("content") or "")


def _forget(plan: Plan) -> None:
    """Delete the folder that was made for a node alone."""
    if plan.own_folder is not None:
        shutil.rmtree(plan.own_folder, ignore_errors=True)
