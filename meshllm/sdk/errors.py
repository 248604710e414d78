"""What can go wrong with a node within a program.

Owns the two kinds: it cannot start, or a request is refused. Decides nothing.
"""

from collections.abc import Mapping


class MeshNodeError(Exception):
    """Something that a program asked of its node did not work; the message is for people."""

    def __init__(self, message: str) -> None:
        """Keep the sentence."""
        super().__init__(message)
        self.message = message


class NodeStartError(MeshNodeError):
    """The node cannot be what was asked for: a setting is wrong, or it cannot start."""


class RequestError(MeshNodeError):
    """The node refused a request, or broke off while it answered."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        """Keep the HTTP status (0 where nobody answered), the word for programs, and the part at fault."""
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def refusal_of(status: int, document: Mapping[str, object]) -> RequestError:
    """Return the error that an answer tells of: by the envelope of errors, or by the lifecycle's words."""
    error = document.get("error")
    if isinstance(error, dict):
        param = error.get("param")
        message = str(error.get("message", ""))
        return RequestError(status, str(error.get("code") or ""), message, None if param is None else str(param))
    return RequestError(status, str(document.get("status", "")), str(error or f"the node answered {status}"))
