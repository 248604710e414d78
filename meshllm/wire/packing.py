"""msgpack under strict limits: bytes to plain values, plain values to dataclasses, and back.

Owns the rules that hold for everything that peers say. Decides what is refused whoever sends it. Doesn't know
any message: the shapes are handed in as dataclasses.

The rules: depth, sizes and counts are bounded; keys are text and occur once; no extension types; no number is
negative, infinite, or 2^63 and more; text is printable, so that nothing from a peer can steer a terminal or forge a
line of a log. Fields that a shape lacks are left out; fields that are missing take their defaults, if they have one.
"""

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, NoReturn, TypeVar

import msgpack
import msgspec

from meshllm.core.limits import (
    CONTROL_FRAME_BYTES,
    MSGPACK_ARRAY_ITEMS,
    MSGPACK_BINARY_BYTES,
    MSGPACK_DEPTH,
    MSGPACK_MAP_ITEMS,
    MSGPACK_MAPS,
    MSGPACK_STRING_BYTES,
    MSGPACK_VALUES,
)
from meshllm.wire.errors import WireCode, WireError

Shape = TypeVar("Shape")

INTEGER_LIMIT = 2**63


def malformed(message: str) -> WireError:
    """Return the error for bytes that are not what the protocol says."""
    return WireError(WireCode.MALFORMED, message)


def unpack(data: bytes, limit_bytes: int = CONTROL_FRAME_BYTES) -> Any:  # noqa: ANN401 - any plain value
    """Return the one value that `data` holds: maps, lists, text, bytes, numbers, booleans, None. Raises WireError."""
    if len(data) > limit_bytes:
        raise WireError(WireCode.FRAME_TOO_LARGE, f"{len(data)} bytes; {limit_bytes} are allowed")
    reading = _Reading()
    try:
        value = msgpack.unpackb(
            data, raw=False, strict_map_key=True, object_pairs_hook=reading.unique, ext_hook=_no_extension,
            max_array_len=MSGPACK_ARRAY_ITEMS, max_map_len=MSGPACK_MAP_ITEMS, max_str_len=MSGPACK_STRING_BYTES,
            max_bin_len=MSGPACK_BINARY_BYTES, max_ext_len=0,
        )  # fmt: skip
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise malformed(f"not msgpack within the limits: {type(error).__name__}") from error
    reading.check(value)
    return value


def unpack_map(data: bytes, limit_bytes: int = CONTROL_FRAME_BYTES) -> dict[str, Any]:
    """Return the map that `data` holds. Raises WireError."""
    value = unpack(data, limit_bytes)
    if not isinstance(value, dict):
        raise malformed("not a map")
    return value


def convert(value: object, shape: type[Shape]) -> Shape:
    """Return plain values as a dataclass, with every type checked. Raises WireError."""
    try:
        return msgspec.convert(value, shape, strict=True, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise malformed(str(error)) from error


def read(data: bytes, shape: type[Shape], limit_bytes: int = CONTROL_FRAME_BYTES) -> Shape:
    """Return what `data` holds as a dataclass. Raises WireError."""
    return convert(unpack_map(data, limit_bytes), shape)


def pack(value: object) -> bytes:
    """Return plain values and dataclasses as bytes. Fields with their default value are left out."""
    packed = msgpack.packb(plain(value), use_bin_type=True)
    assert isinstance(packed, bytes)  # noqa: S101 - the library's types leave it open
    return packed


def plain(value: object) -> Any:  # noqa: ANN401 - any plain value
    """Return a value with its dataclasses turned into maps, without the fields that have their default value."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            name: plain(content)
            for name, default in _defaults(type(value))
            if (content := getattr(value, name)) != default
        }
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


@cache
def _defaults(shape: type) -> tuple[tuple[str, object], ...]:
    """Return the names of a dataclass's fields with their defaults; a field without one differs from anything."""
    return tuple((field.name, object() if field.default is MISSING else field.default) for field in fields(shape))


class _Reading:
    """The checks over one value, with what is left of its counts: a hostile frame costs milliseconds, not a second."""

    __slots__ = ("_maps_left", "_values_left")

    def __init__(self) -> None:
        self._maps_left = MSGPACK_MAPS
        self._values_left = MSGPACK_VALUES

    def unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return a map whose keys differ."""
        self._maps_left -= 1
        found = dict(pairs)
        if self._maps_left < 0 or len(found) != len(pairs):
            raise malformed("too many maps, or a key that occurs twice")
        return found

    def check(self, value: object, depth: int = MSGPACK_DEPTH) -> None:
        """Refuse what msgpack can say and no peer has reason to."""
        match value:
            case bool() | bytes() | None:
                pass
            case str():
                if not value.isprintable():
                    raise malformed("text with control characters")
            case int() | float():
                if not 0 <= value < INTEGER_LIMIT:  # nor NaN: it compares with nothing
                    raise malformed("a number below zero, or 2^63 or more")
            case dict():
                if not all(isinstance(key, str) and key.isprintable() for key in value):
                    raise malformed("a key that is not text")
                self._check_all(list(value.values()), depth)
            case list():
                self._check_all(value, depth)
            case _:
                raise AssertionError("msgpack makes nothing else while extensions are refused")

    def _check_all(self, values: list[object], depth: int) -> None:
        self._values_left -= len(values)
        if depth == 0 or self._values_left < 0:
            raise malformed(f"more than {MSGPACK_DEPTH} levels, or {MSGPACK_VALUES} values")
        for value in values:
            self.check(value, depth - 1)


def _no_extension(code: int, _data: bytes) -> NoReturn:
    raise malformed(f"extension type {code}")
