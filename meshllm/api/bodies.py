"""Reading the small JSON bodies of management requests, and naming what is wrong with them.

Owns the checks of shape and type. Doesn't know what a value is for.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import NoReturn

from aiohttp import web

from meshllm.api.answers import ApiError
from meshllm.core.limits import HTTP_BODY_TIMEOUT_S, MODEL_NAME_BYTES

_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""What JSON can write and no encoding of text can: its `\\ud800` without the other half."""


class Body:
    """The JSON object of a request."""

    def __init__(self, values: Mapping[str, object]) -> None:
        """Take the parsed object."""
        self._values = values

    def key(self, *keys: str) -> str:
        """Return the first of several names of one parameter that is given, or the first of all."""
        return next((each for each in keys if each in self._values), keys[0])

    def has(self, *keys: str) -> bool:
        """Tell whether a parameter is given by one of these names."""
        return self._values.get(self.key(*keys)) is not None

    @property
    def values(self) -> Mapping[str, object]:
        """Return everything that was sent."""
        return self._values

    def name(self, *keys: str) -> str:
        """Return a required, non-empty string, given by one of these names. Raises ApiError 400."""
        found = self.key(*keys)
        if self._values.get(found) is None:
            _refuse(found, "missing_parameter", f"{found} is missing")
        value = self.text(found)
        if not value.strip():
            _refuse(found, "invalid_value", f"{found} is empty")
        if len(value.encode()) > MODEL_NAME_BYTES:
            _refuse(found, "invalid_value", f"{found} is longer than {MODEL_NAME_BYTES} bytes")
        return value.strip()

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return an optional boolean. Raises ApiError 400."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            _refuse(key, "invalid_type", f"{key} has to be true or false")
        return value

    def text(self, key: str, default: str = "") -> str:
        """Return an optional string. Raises ApiError 400."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            _refuse(key, "invalid_type", f"{key} has to be a string")
        if _SURROGATE.search(value) is not None:
            _refuse(key, "invalid_value", f"{key} holds half a character, a lone surrogate")
        return value

    def is_null(self, key: str) -> bool:
        """Tell whether a parameter is given as `null`."""
        return key in self._values and self._values[key] is None

    def is_text(self, key: str) -> bool:
        """Tell whether a parameter is given as a string, where it may be something else."""
        return isinstance(self._values.get(key), str)

    def number(self, key: str, least: float, most: float) -> float | None:
        """Return an optional number within bounds. Raises ApiError 400."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse(key, "invalid_type", f"{key} has to be a number")
        if not least <= value <= most:
            _refuse(key, "invalid_value", f"{key} has to be from {least:.15g} to {most:.15g}")
        return value

    def whole(self, key: str, least: int, most: int) -> int | None:
        """Return an optional whole number within bounds. Raises ApiError 400."""
        value = self.number(key, least, most)
        if value is not None and not isinstance(value, int):
            _refuse(key, "invalid_type", f"{key} has to be a whole number")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Return an optional list of strings. Raises ApiError 400."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            _refuse(key, "invalid_type", f"{key} has to be a list of strings")
        return tuple(Body({key: item if item is not None else 0}).text(key) for item in value)


async def arrived(request: web.Request) -> bytes:
    """Return a request's body when all of it is there; later calls have it from memory. Raises ApiError 408, or 413."""
    try:
        async with asyncio.timeout(HTTP_BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise ApiError(408, "timeout", "the body did not arrive in time") from None


async def read_body(request: web.Request) -> Body:
    """Return a request's JSON object. Raises ApiError 400 or 408, and aiohttp's 413."""
    content = await arrived(request)
    if not content.strip():
        raise ApiError(400, "invalid_json", "the body is empty; a JSON object is needed")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "invalid_json", f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(values, dict):
        raise ApiError(400, "invalid_json", "the body has to be a JSON object")
    return Body(values)


def _refuse(key: str, code: str, message: str) -> NoReturn:
    raise ApiError(400, code, message, param=key)
