"""Adopted servers, asked for their models: `GET /v1/models`, which every OpenAI-compatible server answers.

Owns the probe and its bounds: a deadline, a size, a number of models. Decides what an answer means: a list, no list,
or a reason why the server cannot be used. Doesn't know what is done with it, nor how requests reach the server.

Redirects are not followed: where requests go is for the configuration to say. Another node of ours is no server to
adopt: what it serves comes through the mesh, and two that adopt each other would pass a request round for ever.
"""

import asyncio
import json
import os
import ssl
from functools import cache
from typing import Any

import aiohttp

from meshllm.core import limits
from meshllm.core.engines import EngineFailure, EngineFault
from meshllm.core.events import RemoteProbed
from meshllm.core.remotes import ListedModel, RemoteBackend, place_of
from meshllm.core.web_trust import SETTING, refused_certificate

OK = 200
_NO_LIST = frozenset({404, 405, 501})
_REFUSED = frozenset({401, 403, 407})
_OUR_HEADER = "X-Mesh-Node"
_CONTEXT_FIELDS = ("context_length", "max_model_len", "max_context_length", "n_ctx")
"""How servers call what one request may use; at the top of an entry or in its `meta`."""


class _NotAdoptableError(Exception):
    """A server cannot be used; `failure` says why."""

    def __init__(self, fault: EngineFault, message: str) -> None:
        super().__init__(message)
        self.failure = EngineFailure(fault=fault, message=message)


async def probe(server: RemoteBackend) -> RemoteProbed:
    """Return which models a server has, or why it cannot be used. Never raises for anything that a server does."""
    name = server.name
    try:
        async with asyncio.timeout(limits.REMOTE_PROBE_TIMEOUT_S):
            models, has_list = await _ask(server)
    except _NotAdoptableError as error:
        return RemoteProbed(server=name, failure=error.failure)
    except TimeoutError:
        message = f"the server {name!r} did not answer in {limits.REMOTE_PROBE_TIMEOUT_S:g} s"
        return RemoteProbed(server=name, failure=EngineFailure(fault=EngineFault.HUNG, message=message))
    except aiohttp.ClientConnectorCertificateError as error:
        message = _refused(name, error.certificate_error)
        return RemoteProbed(server=name, failure=EngineFailure(fault=EngineFault.REFUSED, message=message))
    except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
        message = f"the server {name!r} cannot be reached: {_words(error)}"
        return RemoteProbed(server=name, failure=EngineFailure(fault=EngineFault.UNREACHABLE, message=message))
    return RemoteProbed(server=name, models=models, has_list=has_list)


async def _ask(server: RemoteBackend) -> tuple[tuple[ListedModel, ...], bool]:
    """Return (models, whether there is a list). Raises _NotAdoptableError, aiohttp.ClientError, OSError."""
    place = place_of(server.base_url)
    context = await asyncio.to_thread(_trust, ssl.get_default_verify_paths()) if place.is_tls else True
    headers = {"Authorization": f"Bearer {server.api_key}"} if server.api_key else {}
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.get(f"{place.url}/v1/models", headers=headers, allow_redirects=False, ssl=context) as answer,
    ):
        _check(server, answer)
        if answer.status in _NO_LIST:
            return (), False
        body = bytearray()
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > limits.REMOTE_LIST_BYTES:
                message = f"the list of the server {server.name!r} is longer than {limits.REMOTE_LIST_BYTES} bytes"
                raise _NotAdoptableError(EngineFault.BAD_ANSWER, message)
        return models_of(server.name, bytes(body)), True


@cache
def _trust(stores: ssl.DefaultVerifyPaths) -> ssl.SSLContext:  # noqa: ARG001 - other stores, another context
    """Return what decides whom this machine trusts. The library's own was made before anybody could say so."""
    return ssl.create_default_context()


def _refused(name: str, error: Exception) -> str:
    """Say why a server's certificate is not trusted; whom this machine trusts is read anew for the next question."""
    _trust.cache_clear()
    code, named = getattr(error, "verify_code", 0), os.environ.get(SETTING, "")
    return refused_certificate(f"the server {name!r}", _words(error), code, named)


def _check(server: RemoteBackend, answer: aiohttp.ClientResponse) -> None:
    """Raise _NotAdoptableError for an answer that rules its server out."""
    name, status = server.name, answer.status
    if answer.headers.get(_OUR_HEADER):
        message = f"the server {name!r} is a mesh-llm node: join its mesh, and its models are here too"
        raise _NotAdoptableError(EngineFault.REFUSED, message)
    if status in _REFUSED:
        missing = "does not take the key" if server.api_key else "asks for a key"
        raise _NotAdoptableError(EngineFault.REFUSED, f"the server {name!r} {missing} ({status})")
    if 300 <= status < 400:
        message = f"the server {name!r} sends requests elsewhere ({status}); that is not followed: give its own URL"
        raise _NotAdoptableError(EngineFault.BAD_ANSWER, message)
    if status != OK and status not in _NO_LIST:
        fault = EngineFault.UNREACHABLE if status >= 500 else EngineFault.BAD_ANSWER
        raise _NotAdoptableError(fault, f"the server {name!r} answered {status} when asked for its models")


def models_of(name: str, body: bytes) -> tuple[ListedModel, ...]:
    """Return the models of a list as servers write it, each once. Raises _NotAdoptableError for what is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    entries = document.get("data") if isinstance(document, dict) else document
    if entries is None and isinstance(document, dict) and "data" in document:
        entries = []  # what an empty list becomes in some languages
    if not isinstance(entries, list):
        message = f"the server {name!r} answered something else than a list of models: is this its OpenAI API?"
        raise _NotAdoptableError(EngineFault.BAD_ANSWER, message)
    found = [_model(entry) for entry in entries[: limits.REMOTE_LIST_MODELS]]
    return tuple({model.name: model for model in found if model is not None}.values())


def _model(entry: object) -> ListedModel | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or not entry["id"]:
        return None
    meta: Any = entry.get("meta")
    places = (entry, meta if isinstance(meta, dict) else {})
    known = [place.get(field) for place in places for field in _CONTEXT_FIELDS]
    context = next((value for value in known if type(value) is int and value > 0), 0)
    return ListedModel(name=entry["id"], context_tokens=min(context, 1 << 31))


def _words(error: BaseException) -> str:
    """Return what went wrong, short: the system's own words where there are some."""
    inner = getattr(error, "os_error", None) or error
    number = getattr(inner, "errno", None)
    said = os.strerror(number) if isinstance(number, int) and number > 1 else getattr(inner, "strerror", "")
    text = getattr(inner, "verify_message", "") or said or str(inner)
    return str(text or type(error).__name__)[: limits.REMOTE_ERROR_TEXT_BYTES]
