"""What a request's head alone decides: whether it may come in, which door it takes, what goes on to the engine.

Owns the verdict on a head and the fields that are passed on. Decides before any byte of the body is
read. Doesn't know sockets; pure, so that a verdict can be remembered by the head's exact bytes.
"""

import re
from dataclasses import dataclass, replace
from enum import Enum

from meshllm.core import limits
from meshllm.core.callers import CallerRight
from meshllm.core.routing.priorities import NAMES, Priority
from meshllm.core.routing_config import ConfigFault, Strategy
from meshllm.proxy import paths
from meshllm.proxy.access import Access, AccessRules, check_access
from meshllm.proxy.http1 import HOP_BY_HOP, Head
from meshllm.proxy.openai import Problem
from meshllm.proxy.paths import InferenceDoor

SANE_REQUEST_ID = re.compile(rf"[A-Za-z0-9._:/+=-]{{1,{limits.REQUEST_ID_BYTES}}}")
_LOOSE_TYPES = frozenset({
    "", "application/json", "application/octet-stream", "application/x-www-form-urlencoded", "text/json", "text/plain",
})  # fmt: skip
"""What people send JSON as: curl's default, and those that say nothing. Every other type says that it is none."""
_UTF8_NAMES = frozenset({"utf-8", "utf8"})
_KEPT_FROM_MANAGEMENT = HOP_BY_HOP | {
    "authorization",
    "content-length",
    "cookie",
    "expect",
    "x-api-key",
    "x-mesh-caller",
    "x-request-id",
}
_STRATEGY_FIELD = "x-mesh-strategy"
_STRATEGIES = {strategy.value: strategy for strategy in Strategy}

TRACEPARENT = r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
"""The trace that a request belongs to, as W3C Trace Context writes it."""


_BYPASSES = frozenset({"no-cache", "no-store"})
_NO = frozenset({"off", "false", "0"})


class Door(Enum):
    """The ways through the front door."""

    INFERENCE = "inference"
    MODELS = "models"
    MANAGEMENT = "management"
    PREFLIGHT = "preflight"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """A head with its verdict."""

    head: Head
    door: Door
    refusal: Problem | None = None
    inference: InferenceDoor | None = None
    asked_model: str = ""
    """What follows `/v1/models/`, for that door."""
    cors_lines: bytes = b""
    engine_lines: bytes = b""
    """Request line and fields for the engine or the management app, without key, id and length."""
    keeps_alive: bool = False
    answer_end: bytes = b""
    """The last fields of an answer and the empty line, where the answer keeps what `keeps_alive` says."""
    body_limit_bytes: int = limits.MANAGEMENT_BODY_BYTES
    other_type: str = ""
    """The media type of a body that says to be something else than JSON; accepted when it is JSON all the same."""
    is_repeatable: bool = True
    """Sending it twice does no harm: a completion has no effect but its answer."""
    is_head: bool = False
    has_body: bool = False
    """What goes on has one, if an empty one."""
    is_anthropic: bool = False
    session: str = ""
    """What the client calls its session, as a header says it."""
    strategy: Strategy | None = None
    """How the host of this one request is chosen."""
    priority: Priority = Priority.NORMAL
    """As `X-Priority` says."""
    client: str = ""
    """Whose key it shows, where that is not the node's own: such a client has quotas."""
    shows_key: bool = False
    """It shows the key that administers."""
    may_resume: bool = True
    """As `X-Mesh-Resume` says: another engine may go on with its stream."""
    may_cache: bool = True
    """As `Cache-Control` says: its answer may be one that was kept, and may be kept."""

    @property
    def is_read_only(self) -> bool:
        """Tell whether its method changes nothing."""
        return self.head.method in {"GET", "HEAD"}

    def from_caller(self, address: str, right: CallerRight) -> "Intake":
        """Return the same with who sent it, an address, and by what right: the management app lets in and notes it."""
        line = f"X-Mesh-Caller: {address or 'unknown'} {right}\r\n"
        return replace(self, engine_lines=self.engine_lines + line.encode())


def take_in(head: Head, rules: AccessRules | None, local_address: str, *, is_leaving: bool = False) -> Intake:
    """Return the verdict on a head. `local_address` is the IP that the client connected to.

    No `rules`: whoever sends it was let in before, as a peer.
    """
    access = check_access(head, rules, local_address) if rules is not None else Access(None)
    door, inference, asked = _door(head)
    refusal = access.refusal or (_refusal_of_inference(head) if door is Door.INFERENCE else None)
    if refusal is None and door is Door.MODELS and head.method not in {"GET", "HEAD"}:
        refusal = _wrong_method("GET, HEAD")
    if refusal is not None:
        door = Door.REFUSED
    limit = limits.HTTP_BODY_BYTES if door is Door.INFERENCE else limits.MANAGEMENT_BODY_BYTES
    keeps_alive = head.keeps_alive and not is_leaving
    has_body = head.method not in {"GET", "HEAD"} and (head.is_chunked or head.get("content-length") is not None)
    return Intake(
        head=head, door=door, refusal=refusal, inference=inference, asked_model=asked, client=access.client,
        shows_key=access.shows_key,
        cors_lines=access.cors, engine_lines=_engine_lines(head, inference), body_limit_bytes=limit,
        keeps_alive=keeps_alive,
        answer_end=access.cors + connection_line(head.minor, keeps_alive=keeps_alive) + b"\r\n",
        other_type=_other_type(head),
        is_repeatable=inference is not None or head.method in {"GET", "HEAD"},
        is_head=head.method == "HEAD", has_body=has_body or door is Door.INFERENCE,
        is_anthropic=inference is not None and inference.is_anthropic, priority=_priority(head) or Priority.NORMAL,
        session=(head.get("x-session-id") or "").strip(), strategy=_STRATEGIES.get(head.get(_STRATEGY_FIELD) or ""),
        may_resume=(head.get("x-mesh-resume") or "").strip().lower() not in _NO,
        may_cache=_BYPASSES.isdisjoint(re.findall(r"[a-z-]+", (head.get("cache-control") or "").lower())),
    )  # fmt: skip


def connection_line(minor: int, *, keeps_alive: bool) -> bytes:
    """Return the field that says what becomes of the connection, where the version does not say it."""
    if not keeps_alive:
        return b"Connection: close\r\n"
    return b"" if minor else b"Connection: keep-alive\r\n"


def _door(head: Head) -> tuple[Door, InferenceDoor | None, str]:
    inference = paths.INFERENCE.get(head.path)
    if head.method == "OPTIONS" and head.get("origin") is not None:
        return Door.PREFLIGHT, inference, ""
    if inference is not None:
        return Door.INFERENCE, inference, ""
    asked = paths.asked_model(head.path)
    if asked is None or (asked != "" and head.method not in {"GET", "HEAD"}):
        return Door.MANAGEMENT, None, ""
    return Door.MODELS, None, asked


def _refusal_of_inference(head: Head) -> Problem | None:
    """Refuse what no body could make good: method, compression, another encoding than UTF-8."""
    if head.method != "POST":
        return _wrong_method("POST")
    encoding = (head.get("content-encoding") or "identity").lower()
    if encoding != "identity":
        message = f"bodies are taken as they are, not encoded as {encoding[:32]!r}"
        return Problem(status=415, code="unsupported_content_encoding", message=message)
    parameters = (head.get("content-type") or "").partition(";")[2]
    charset = parameters.partition("charset=")[2].strip(' "').lower()
    if charset and charset not in _UTF8_NAMES:
        message = f"the body must be UTF-8, not {charset[:32]!r}"
        return Problem(status=415, code="unsupported_media_type", message=message)
    strategy = head.get(_STRATEGY_FIELD)
    if strategy is not None and strategy not in _STRATEGIES:
        message = f"the strategy {strategy[:32]!r} is none; there are: {', '.join(_STRATEGIES)}"
        return Problem(status=400, code=ConfigFault.INVALID_STRATEGY, message=message, param="X-Mesh-Strategy")
    if _priority(head) is None:
        message = f"X-Priority is one of {', '.join(NAMES)}"
        return Problem(status=400, code="invalid_priority", message=message, param="X-Priority")
    return None


def _priority(head: Head) -> Priority | None:
    """Return how urgent a request is; None where its word for that is none."""
    return NAMES.get((head.get("x-priority") or "normal").strip().lower())


def _other_type(head: Head) -> str:
    kind = (head.get("content-type") or "").partition(";")[0].strip().lower()
    return "" if kind in _LOOSE_TYPES or kind.endswith("+json") else kind[:64]


def _wrong_method(allow: str) -> Problem:
    return Problem(status=405, code="method_not_allowed", message=f"this path takes {allow}", allow=allow)


def _engine_lines(head: Head, inference: InferenceDoor | None) -> bytes:
    """Return the head that goes on: a small one of our own to engines, a filtered one to management."""
    if inference is not None:
        accept = head.get("accept") or "*/*"
        return (
            b"POST %b HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nAccept: %b\r\n"
            % (inference.path, accept.encode("latin-1"))
        )  # fmt: skip
    target = f"{head.path}?{head.query}" if head.query else head.path
    lines = [f"{head.method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in head.fields if name not in _KEPT_FROM_MANAGEMENT]
    if head.get("host") is None:
        lines.append("host: localhost")
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")
