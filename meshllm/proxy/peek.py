"""The few fields of a body that routing needs, and the rules that every body must keep.

Owns the reading of JSON bodies: one pass that finds what is malformed, typed checks that name the bad
`param`, and the byte-exact replacement of the model's name. Decides what is refused with 400. Doesn't
know routes or engines; pure. The body itself is passed on as it came.

Invariant: no key is there twice at any depth, so that the front door and an engine, which may prefer
the first or the last of two, read the same request.
"""

import json
import re
from collections.abc import Collection
from typing import NoReturn

import msgspec

from meshllm.core import limits
from meshllm.core.routing.routes import NO_WISHES, Wishes
from meshllm.proxy import json_rules
from meshllm.proxy.openai import INVALID_JSON
from meshllm.proxy.shapes import OWN_FIELDS, Chat, Common, PlainChat

_ANY = msgspec.json.Decoder()
_PLAIN_CHAT = msgspec.json.Decoder(PlainChat)
_AT_PATH = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_MISSING = re.compile(r"required field `([^`]+)`")
_PADDED_COLONS = (b" :", b"\t:", b"\n:", b"\r:")
_KEY = re.compile(rb'\s*"(?:[^"\\]|\\.)*"\s*:\s*', flags=re.DOTALL)
"""A member up to its value."""
_NEXT = re.compile(rb"\s*,")
_RUN_CHARS = 8
_RUN = re.compile(rf"(.)\1{{{_RUN_CHARS - 1},}}", flags=re.DOTALL)
_SLICE_CHARS = 4096
"""Of a text at a time: in one piece, a run of millions of characters would take seconds."""
_SMALL_BYTES = 16 * limits.KIB
_BOM = b"\xef\xbb\xbf"


class BodyError(Exception):
    """A body that is refused with 400, with the field that is wrong where there is one."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_request") -> None:
        """Remember what to tell the client."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class Peek(msgspec.Struct, frozen=True, gc=False):
    """What the front door knows of a body."""

    model: str | None
    """As the client wrote it; None where it wrote none."""
    is_stream: bool
    body: bytes
    """As it goes on: without the fields that speak to the mesh alone, every other byte as it came."""
    wishes: Wishes = NO_WISHES
    """What the model has to be like."""
    session_id: str = ""
    may_resume: bool = True
    """False: the client would rather have a broken answer than one that another host goes on with."""
    may_cache: bool = True
    """False: it is neither answered from memory, nor is its answer kept."""
    is_open: bool = False
    """The client left its model open; `model` is the one that was chosen for it."""
    is_compared: bool = False
    """It is one of several that are compared."""

    @property
    def document(self) -> dict[str, object]:
        """Return the parsed body, for the rare questions that come after routing."""
        return msgspec.json.decode(self.body.removeprefix(_BOM), type=dict[str, object])


NOTHING_SEEN = Peek(None, is_stream=False, body=b"")
"""What is known of a body that nobody looked at."""


def peek(body: bytes, shape: type[Common]) -> Peek:
    """Read a body of that shape. Raises BodyError."""
    plain = plain_chat(body) if shape is Chat else None
    if plain is not None:
        return Peek(plain.get("model"), plain.get("stream") is True, body)
    return peek_fully(body, shape)


def peek_fully(body: bytes, shape: type[Common]) -> Peek:
    """Do what `peek` does, for any body. Raises BodyError."""
    document = _parse(body)
    try:
        request = msgspec.convert(document, shape)
    except msgspec.ValidationError as error:
        _refuse_shape(str(error))
    try:
        has_images = json_rules.check(document, request)
    except json_rules.RuleError as error:
        raise BodyError(error.message, error.param) from None
    if not has_images and OWN_FIELDS.isdisjoint(document):
        return Peek(request.model, request.stream is True, body)
    return Peek(
        request.model, request.stream is True, without(body, OWN_FIELDS), _wishes(request, has_images),
        request.session_id or "", request.resume is not False, request.cache is not False,
    )  # fmt: skip


def _wishes(request: Common, has_images: bool) -> Wishes:  # noqa: FBT001
    wishes = Wishes(
        capabilities=tuple(sorted(set(request.capabilities or ()))),
        preferred=tuple(sorted(set(request.preferred_capabilities or ()))),
        min_context=request.min_context or 0, has_images=has_images,
    )  # fmt: skip
    return NO_WISHES if wishes == NO_WISHES else wishes


def plain_chat(body: bytes) -> PlainChat | None:
    """Read a small body if it is surely a good and plain one; None means that `peek` has to look at it.

    One typed pass, then the proof that no key is there twice: every key is followed by a colon, so where
    there are as many colons as different keys, or as colons after quotes, none of them is a second one.
    """
    if len(body) > _SMALL_BYTES:
        return None
    try:
        document = _PLAIN_CHAT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    keys = len(document) + 2 * len(document["messages"])
    return document if body.count(b":") == keys or _most_keys(body) == keys else None


def _parse(body: bytes) -> dict[str, object]:
    """Parse a body, refusing what is not one unambiguous JSON object of bearable size."""
    if body.startswith(_BOM):
        body = body[3:]
    if len(body) > limits.JSON_VALUES and body.count(b",") + body.count(b"{") + body.count(b"[") > limits.JSON_VALUES:
        msg = f"the body has more than {limits.JSON_VALUES} values"
        raise BodyError(msg)
    try:
        document = _ANY.decode(body)
        if type(document) is not dict:
            msg = "the body must be a JSON object"
            raise BodyError(msg)
        if _most_keys(body) != _count_keys(document, limits.JSON_DEPTH):
            _find_duplicate(body)
    except RecursionError:
        msg = f"the body is nested more than {limits.JSON_DEPTH} deep"
        raise BodyError(msg) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"the body is not valid JSON: {error}"
        raise BodyError(msg, code=INVALID_JSON) from None
    return document


def _most_keys(body: bytes) -> int:
    """Return a number that the keys of all objects together cannot exceed: each is followed by a colon.

    A quote inside a string is escaped, so `":` is a key except in texts that quote JSON.
    """
    most = body.count(b'":')
    if most == body.count(b":"):
        return most
    return most + sum(body.count(colon) for colon in _PADDED_COLONS)


def _count_keys(value: dict[str, object] | list[object], depth: int) -> int:
    """Return how many different keys the objects have. Raises RecursionError below `depth`."""
    if depth == 0:
        raise RecursionError
    if type(value) is dict:
        count, children = len(value), value.values()
    else:
        count, children = 0, value  # type: ignore[assignment]
    for child in children:
        if type(child) is dict or type(child) is list:
            count += _count_keys(child, depth - 1)
    return count


def _find_duplicate(body: bytes) -> None:
    """Look for a key that is there twice, exactly and slowly."""

    def once(pairs: list[tuple[str, object]]) -> None:
        seen = set()
        for key, _ in pairs:
            if key in seen:
                msg = f"the key {key[:64]!r} is there twice"
                raise BodyError(msg, param=key[:64])
            seen.add(key)

    json.loads(body.decode(), object_pairs_hook=once, parse_int=len, parse_float=len)


def _refuse_shape(message: str) -> NoReturn:
    """Turn the complaint of a type check into a refusal that names the field."""
    found = _AT_PATH.search(message)
    param = found[1] if found else ""
    what = message[: found.start()] if found else message
    if missing := _MISSING.search(what):
        param = f"{param}.{missing[1]}" if param else missing[1]
    raise BodyError(f"{what[0].lower()}{what[1:]}: {param}" if param else what, param or None)


def with_model(body: bytes, asked: str | None, model: str) -> bytes:
    """Return the body with the name of the model replaced, every other byte as it was.

    Engines answer with the name that they were asked for; the answer must name the model really used.
    """
    if asked == model:
        return body
    name = msgspec.json.encode(model)
    members = msgspec.json.decode(body.removeprefix(_BOM), type=dict[str, msgspec.Raw])
    if "model" not in members:
        start = body.index(b"{") + 1
        comma = b"," if members else b""
        return b'%b"model":%b%b%b' % (body[:start], name, comma, body[start:])
    return with_member(body, members, "model", name)


def with_member(body: bytes, members: dict[str, msgspec.Raw], key: str, value: bytes) -> bytes:
    """Return an object with the value of one of its members replaced, every other byte as it was where that is plain.

    `members` are those of `body`, and change with it; `value` is JSON.
    """
    old = re.escape(bytes(members[key]))
    found = list(re.finditer(rb'"%b"\s*:\s*(%b)' % (key.encode(), old), body))
    if len(found) == 1:
        return body[: found[0].start(1)] + value + body[found[0].end(1) :]
    members[key] = msgspec.Raw(value)
    return msgspec.json.encode(members)


def without(body: bytes, keys: Collection[str]) -> bytes:
    """Return an object without some of its members, every other byte as it was."""
    members = msgspec.json.decode(body.removeprefix(_BOM), type=dict[str, msgspec.Raw])
    if members.keys().isdisjoint(keys):
        return body
    at = body.index(b"{") + 1
    pieces, between, last = [body[:at]], b"", b""
    for number, (key, value) in enumerate(members.items()):
        found = _KEY.match(body, at)
        assert found is not None  # noqa: S101 - the decoder has read the same
        end = found.end() + len(memoryview(value))
        if key not in keys:
            pieces += [between, body[at:end]] if len(pieces) > 1 else [body[at:end]]
        after = _NEXT.match(body, end)
        if number < len(members) - 1 and after is not None:
            between, at = after[0], after.end()
        last = body[end:]
    return b"".join((*pieces, last))


def prompt_bytes(document: dict[str, object], enough_bytes: int) -> int:
    """Return the bytes of a request's text, or a number of them over `enough_bytes`; never more than there are.

    Runs of one character count as eight: a vocabulary may have those. The loop stands still meanwhile, so no more is
    looked at than the answer needs, and never more than `PROMPT_LOOK_BYTES`.
    """
    found = looked = 0
    for text in _texts(document):
        for start in range(0, len(text), _SLICE_CHARS):
            if found > enough_bytes or looked > limits.PROMPT_LOOK_BYTES:
                return found
            part = text[start : start + _SLICE_CHARS]
            looked += len(part)
            if part.count(part[0]) == len(part):
                found += min(len(part), _RUN_CHARS) * len(part[0].encode())
            else:
                found += len(_RUN.sub(r"\1" * _RUN_CHARS, part).encode())
    return found


def tokens_at_least(size_bytes: int) -> int:
    """Return how many tokens a text of this size has at the very least."""
    return -(-size_bytes // limits.PROMPT_BYTES_PER_TOKEN)


def _texts(document: dict[str, object]) -> list[str]:
    """Return the texts that an engine will tokenise: no images, no settings."""
    found: list[str] = []
    pending: list[object] = [document.get(key) for key in ("messages", "prompt", "input", "content", "system")]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, dict):
            pending += [value.get("content"), value.get("text")]
    return found
