"""What may be wrong with bytes from a peer, as one error with a code that people and peers will see.

Owns the codes. Decides nothing: whoever catches the error answers, counts and closes. Doesn't know what
the bytes were for.
"""

from enum import StrEnum


class WireCode(StrEnum):
    """Why bytes from outside were refused."""

    FRAME_TOO_LARGE = "frame_too_large"
    TRUNCATED = "truncated"
    """The other side ended in the middle of something."""
    MALFORMED = "malformed"
    """Not what the protocol says, in form or in value."""
    UNSUPPORTED = "unsupported"
    """A kind that this program does not know and that its sender marks as needed: to be answered so."""
    UNKNOWN_KIND = "unknown_kind"
    """A kind that this program does not know and may leave out: to be ignored."""
    UNAUTHORIZED = "unauthorized"
    """A signature, an issuer or a right is wrong."""
    EXPIRED = "expired"
    """Signed well, and past its time or before it. No fault of whoever passes it on."""


class WireError(Exception):
    """Bytes from outside cannot be used."""

    def __init__(self, code: WireCode, message: str) -> None:
        """Keep the code beside the words."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
