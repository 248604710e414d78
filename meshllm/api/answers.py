"""What answers look like: compact JSON, and every error in the envelope that OpenAI's clients understand.

Owns the shapes and the middleware that gives them to errors of the web framework. Doesn't know routes.
"""

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from aiohttp import web

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "body_too_large"}


class ApiError(Exception):
    """A request that is answered with an error; the message is for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the HTTP status, the word for programs, and the parameter at fault."""
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = dict(headers or {})

    def answer(self) -> web.Response:
        """Return it as a response."""
        return json_answer(envelope(self.status, self.code, self.message, self.param), self.status, self.headers)


def json_answer(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return compact JSON that no cache keeps."""
    body = encoded(dumps(document))
    return web.Response(
        body=body,
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def dumps(document: object) -> str:
    """Return compact JSON."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def moment(unix_s: float) -> str:
    """Return a moment as `2026-01-19T08:00:00Z`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encoded(text: str) -> bytes:
    """Return text as UTF-8. Half a character, as paths of odd folders have, becomes a question mark."""
    return text.encode(errors="replace")


def envelope(status: int, code: str, message: str, param: str | None = None) -> dict[str, object]:
    """Return the body of an error."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with the envelope; a mistake of ours with an id and never a traceback."""
    try:
        return await handler(request)
    except ApiError as error:
        return error.answer()
    except web.HTTPException as error:
        return _of_framework(request, error)
    except (ConnectionError, TimeoutError):
        raise  # the client is gone or stuck: there is nobody to answer
    # aiohttp calls handlers through this hook only, and its own last resort answers plain text. Whatever a
    # handler got wrong ends here, in one log line that the id finds.
    except Exception:
        error_id = secrets.token_hex(6)
        log.exception("request failed error_id=%s method=%s path=%s", error_id, request.method, request.path[:200])
        message = f"the node made a mistake; its log tells more under the id {error_id}"
        return json_answer(envelope(500, "internal_error", message), 500)


def _of_framework(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    if error.status < 400:
        raise error
    message, headers = error.reason, {}
    if isinstance(error, web.HTTPNotFound):
        message = f"there is nothing at {request.path[:200]}"
    elif isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message, headers = f"{request.method} is not possible here; use {allowed}", {"Allow": allowed}
    elif isinstance(error, web.HTTPRequestEntityTooLarge):
        message = "the body is too large"
    code = CODES.get(error.status, "bad_request" if error.status < 500 else "internal_error")
    return json_answer(envelope(error.status, code, message), error.status, headers)
