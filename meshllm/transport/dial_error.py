"""Why a dial led nowhere, as one error with a code that the core and people will see.

Owns the codes and which of several outcomes says most. Decides nothing else. Doesn't know how dialling is done.
"""

from collections.abc import Sequence
from enum import StrEnum


class DialCode(StrEnum):
    """Why there is no connection; the one that says most comes first."""

    SELF = "self"
    """The node that was dialled is this one."""
    REJECTED = "rejected"
    VERSION_MISMATCH = "version_mismatch"
    WRONG_IDENTITY = "wrong_identity"
    """Another node answers there."""
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"


_BY_WEIGHT = tuple(DialCode)


class DialError(Exception):
    """A node could not be reached, or not be joined."""

    def __init__(self, code: DialCode, message: str) -> None:
        """Keep the code beside the words."""
        super().__init__(message)
        self.code = code
        self.message = message


def most_telling(errors: Sequence[DialError]) -> DialError:
    """Return one error for several addresses of one node: the weightiest code, with everybody's words."""
    if not errors:
        return DialError(DialCode.UNREACHABLE, "no address is known")
    code = min((error.code for error in errors), key=_BY_WEIGHT.index)
    return DialError(code, "; ".join(dict.fromkeys(error.message for error in errors)))
