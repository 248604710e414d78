"""Plain prompts, in the words of older servers: `/v1/generate`, `/v1/generate/batch` and `/v1/stream`.

Owns the translation to `/v1/completions` and back. Decides nothing: each prompt is a request of its own at the front
door. Doesn't know models or engines.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import ClientResponse, web

from meshllm.api.answers import ApiError, dumps, json_answer
from meshllm.api.bodies import Body, read_body
from meshllm.api.deps import ManagementDeps
from meshllm.api.own_door import OwnDoor
from meshllm.core import limits

_COMPLETIONS: Final = "/v1/completions"
_LARGE: Final = 1e9
_TOLD: Final = ("X-Mesh-Node", "X-Mesh-Model", "X-Mesh-Route-Reason", "X-Mesh-Attempts", "Retry-After")
"""What the front door says of its answer besides the body."""
_DATA: Final = b"data: "
_DONE: Final = b"[DONE]"


class Generate:
    """The handlers."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Ask the front door of `deps`."""
        self.door = OwnDoor(deps)

    async def one(self, request: web.Request) -> web.Response:
        """Answer one prompt: `{"model","output","cached"}`."""
        body = await read_body(request)
        answer, headers = await self._complete(request, _completion(body, _prompt(body)))
        return json_answer({"model": answer["model"], **_result(answer)}, headers=headers)

    async def batch(self, request: web.Request) -> web.Response:
        """Answer several prompts side by side, in their order; the first one that is refused refuses all."""
        body = await read_body(request)
        prompts = body.texts("prompts") or ()
        if not 0 < len(prompts) <= limits.GENERATE_PROMPTS or not all(prompts):
            message = f"prompts has to be a list of 1 to {limits.GENERATE_PROMPTS} texts"
            raise ApiError(400, "invalid_value", message, param="prompts")
        room = asyncio.Semaphore(limits.GENERATE_AT_ONCE)

        async def answered(prompt: str) -> dict[str, Any]:
            async with room:
                return (await self._complete(request, _completion(body, prompt)))[0]

        try:
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(answered(prompt)) for prompt in prompts]
        except* ApiError as group:
            raise _first(group) from None
        answers = [task.result() for task in asked]
        return json_answer({"model": answers[0]["model"], "results": [_result(answer) for answer in answers]})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Answer one prompt piece by piece: events `{"model","output"}`, then `[DONE]`."""
        body = await read_body(request)
        document = _completion(body, _prompt(body)) | {"stream": True}
        async with self.door.ask(request, _COMPLETIONS, document) as found:
            await _accept(found)
            answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", **_told(found)})
            await answer.prepare(request)
            async for line in found.content:
                await answer.write(_piece(line))
            return answer

    async def _complete(
        self, request: web.Request, document: Mapping[str, object]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return (a completion, what the front door says of it). Raises ApiError with the front door's refusal."""
        async with self.door.ask(request, _COMPLETIONS, document) as found:
            await _accept(found)
            answer = await found.json()
        if not isinstance(answer, dict) or not answer.get("choices"):
            raise ApiError(502, "engine_error", "the engine's answer is no completion")
        return answer, _told(found)


def _prompt(body: Body) -> str:
    prompt = body.text("prompt")
    if not prompt:
        raise ApiError(400, "missing_parameter", "prompt is missing", param="prompt")
    return prompt


def _completion(body: Body, prompt: str) -> dict[str, object]:
    """Return the body of a completion. Raises ApiError 400."""
    tokens = body.key("max_new_tokens", "max_tokens")
    given: dict[str, object] = {
        "max_tokens": body.whole(tokens, 1, 1 << 24), "temperature": body.number("temperature", 0, 2),
        "top_p": body.number("top_p", 0, 1), "top_k": body.whole("top_k", 0, 1 << 24),
        "seed": body.number("seed", -_LARGE, _LARGE),
        "stop": [body.text("stop")] if body.is_text("stop") else list(body.texts("stop") or ()) or None,
    }  # fmt: skip
    named = {"model": body.name("model")} if body.text("model") else {}
    return {"prompt": prompt, **named, **{key: value for key, value in given.items() if value is not None}}


def _result(answer: Mapping[str, Any]) -> dict[str, object]:
    """Return what is told of one completion."""
    usage = answer.get("usage") or {}
    return {
        "output": answer["choices"][0].get("text") or "", "cached": False,
        "prompt_tokens": usage.get("prompt_tokens"), "completion_tokens": usage.get("completion_tokens"),
    }  # fmt: skip


async def _accept(found: ClientResponse) -> None:
    """Raise ApiError for a refusal, in the words of the front door."""
    if found.status == web.HTTPOk.status_code:
        return
    try:
        error = (await found.json())["error"]
        code, message, param = str(error["code"]), str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError):
        code, message, param = "engine_error", "the engine gave no answer", None
    raise ApiError(found.status, code, message, param=param, headers=_told(found))


def _told(found: ClientResponse) -> dict[str, str]:
    return {name: found.headers[name] for name in _TOLD if name in found.headers}


def _piece(line: bytes) -> bytes:
    """Return a line of a completion's stream in our words; comments, errors and the end as they are."""
    if not line.startswith(_DATA) or line[len(_DATA) :].strip() == _DONE:
        return line
    try:
        event = json.loads(line[len(_DATA) :])
        document = {"model": event["model"], "output": event["choices"][0].get("text") or ""}
    except (ValueError, KeyError, IndexError, TypeError):
        return line
    return _DATA + dumps(document).encode() + b"\n"


def _first(group: BaseExceptionGroup[ApiError]) -> ApiError:
    """Return one of the refusals of a batch."""
    first = group.exceptions[0]
    return first if isinstance(first, ApiError) else _first(first)
