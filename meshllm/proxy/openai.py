"""What the front door itself says, in OpenAI's words: error documents and their HTTP status.

Owns the one shape of errors and the meaning of every refusal in HTTP. Decides nothing about requests.
Doesn't know connections; pure.
"""

from dataclasses import dataclass

import msgspec

from meshllm.core import limits
from meshllm.core.routing.routes import Refusal, RefusalCode

CONTEXT_TOO_LONG = RefusalCode.CONTEXT_TOO_LONG.value
INVALID_JSON = "invalid_json"
"""The code of a body that is not JSON at all."""
MODEL_LOADING = "model_loading"
LEAVING = RefusalCode.LEAVING.value
HOST_LOST = "host_lost"
QUOTA_EXCEEDED = "quota_exceeded"
ENGINE_LOST = "engine_lost"
"""What one node tells another; a client hears of it as `host_lost`."""
_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "invalid_request_error",
    408: "timeout_error", 413: "request_too_large", 429: "rate_limit_error",
}  # fmt: skip
_ANTHROPIC_TYPES = _TYPES | {404: "not_found_error", 503: "overloaded_error"}
_REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 409: "Conflict", 413: "Content Too Large", 414: "URI Too Long",
    415: "Unsupported Media Type", 417: "Expectation Failed", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip
_STATUS = {
    RefusalCode.MODEL_NOT_FOUND: 404, RefusalCode.AMBIGUOUS_MODEL: 409, RefusalCode.NO_DEFAULT_MODEL: 503,
    RefusalCode.CAPABILITY_NOT_SUPPORTED: 400, RefusalCode.NO_CAPABLE_MODEL: 400, RefusalCode.CONTEXT_TOO_LONG: 400,
    RefusalCode.NO_CAPACITY: 503, RefusalCode.MODEL_HELD: 503,
    RefusalCode.MODEL_DISABLED: 403, RefusalCode.MODEL_NOT_LOADED: 503, RefusalCode.MODEL_UNLOADED: 503,
    RefusalCode.MODEL_FAILED: 503, RefusalCode.LEAVING: 503,
}  # fmt: skip
_ABOUT_THE_MODEL = frozenset({
    RefusalCode.MODEL_NOT_FOUND, RefusalCode.AMBIGUOUS_MODEL, RefusalCode.CAPABILITY_NOT_SUPPORTED,
    RefusalCode.MODEL_DISABLED,
})  # fmt: skip
_WORTH_A_RETRY = frozenset({RefusalCode.NO_CAPACITY, RefusalCode.LEAVING, RefusalCode.MODEL_FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error as the client will see it."""

    status: int
    code: str
    message: str
    param: str | None = None
    type: str = ""
    """OpenAI's error type; empty for the usual one of the status."""
    retry_after_s: int | None = None
    allow: str = ""
    """Methods for `Allow`, with a 405."""


def error_document(problem: Problem, *, anthropic: bool = False) -> bytes:
    """Return the JSON of an error.

    Anthropic's SDK looks for a top-level `type`, for types of its own, and else for the same `error` object.
    """
    kind = _anthropic_type(problem.status) if anthropic else problem.type or _type(problem.status)
    error = {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}
    return msgspec.json.encode({"type": "error", "error": error} if anthropic else {"error": error})


def _type(status: int) -> str:
    return _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")


def _anthropic_type(status: int) -> str:
    return _ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")


def has_type(status: int) -> bool:
    """Tell whether a status has an error type of its own."""
    return status in _TYPES


def reason_phrase(status: int) -> str:
    """Return the words behind a status code."""
    return _REASONS.get(status, "Error")


def refused(refusal: Refusal, retry_after_s: int) -> Problem:
    """Return the HTTP meaning of a routing refusal."""
    return Problem(
        status=_STATUS[refusal.code], code=refusal.code.value, message=refusal.message,
        param=refusal.param or ("model" if refusal.code in _ABOUT_THE_MODEL else None),
        retry_after_s=retry_after_s if refusal.code in _WORTH_A_RETRY else None,
    )  # fmt: skip


def unknown_model(asked: str) -> Problem:
    """Return the refusal of a name that is too long to be one."""
    message = f"the model {asked[:64]!r}… does not exist: names have at most {limits.MODEL_NAME_BYTES} bytes"
    return Problem(status=404, code="model_not_found", message=message, param="model")


def bad_body(message: str, code: str, param: str | None, other_type: str) -> Problem:
    """Return the refusal of a body: of the type that it says it has only where it is no JSON at all."""
    if other_type and code == INVALID_JSON:
        message = f"the body must be application/json, not {other_type!r}"
        return Problem(status=415, code="unsupported_media_type", message=message)
    return Problem(status=400, code=code, message=message, param=param)


class _Envelope(msgspec.Struct):
    message: str
    code: str
    param: str | None = None
    type: str = ""


class _EnvelopeDocument(msgspec.Struct):
    error: _Envelope


_ENVELOPES = msgspec.json.Decoder(_EnvelopeDocument)


def far_problem(status: int, body: bytes) -> Problem | None:
    """Return another node's error answer as it said it; None where that is not in our shape."""
    try:
        error = _ENVELOPES.decode(body).error
    except (msgspec.DecodeError, RecursionError):
        return None
    return Problem(
        status=status, code=error.code[: limits.REMOTE_ERROR_TEXT_BYTES], message=error.message, param=error.param,
        type=error.type,
    )  # fmt: skip
