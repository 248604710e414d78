"""The numbers that nodes put on the wire of a connection: why it ends, why a stream ends, what a stream is.

Owns the numbers and their names. Decides nothing. Doesn't know who sends them when.

Numbers are never used again for something else: an older node would misread them.
"""

from enum import IntEnum, StrEnum

from aioquic.quic.packet import QuicErrorCode

ALPN = "meshllm/1"
_TLS_ALERTS = QuicErrorCode.CRYPTO_ERROR  # 0x100 + the alert
_BAD_CERTIFICATE = 42
_NO_APPLICATION_PROTOCOL = 120


class CloseCode(IntEnum):
    """Why one side closes a connection. Names in small letters are what events and people see."""

    DONE = 0
    SELF = 1
    """Both ends are the same node."""
    AUTH_TIMEOUT = 2
    """Not admitted in time."""
    UNAUTHORIZED = 3
    REPLACED = 4
    """There is another connection between the two nodes."""
    LEAVING = 5
    REVOKED = 6
    PROTOCOL = 7
    """The other side broke a rule."""
    FRAME_TOO_LARGE = 8
    TRUNCATED = 9
    VERSION_MISMATCH = 10
    WRONG_MESH = 11
    ABUSE = 12
    """Too much of what is refused."""
    DEAD = 13
    """The other side is taken for dead."""
    SPARE = 14
    """Both have enough other connections."""


class StreamCode(IntEnum):
    """Why one side ends a stream before its time."""

    ENOUGH = 0
    """What was sent suffices: no fault, and the other direction goes on."""
    CANCELLED = 1
    UNKNOWN_STREAM = 2
    FORBIDDEN = 3
    MALFORMED = 4
    BUSY = 5
    """Too many at a time."""
    TIMEOUT = 6
    REPLACED = 7
    """Of the control stream: the connection takes no new work and ends with its last tunnel; another one stays."""
    SPARE = 8
    """Of the control stream: the same, since both have enough other connections."""


class StreamKind(IntEnum):
    """The first byte of a stream."""

    CONTROL = 1
    """The handshake, then messages. The dialler's first stream, and the only one of its kind."""
    TUNNEL = 2


class Priority(IntEnum):
    """Whose bytes go first when a connection cannot send all."""

    CONTROL = 0
    TOKENS = 1
    BULK = 2


class Ending(StrEnum):
    """Ends of connections that nobody sent a code for."""

    TIMEOUT = "timeout"
    WRONG_IDENTITY = "wrong_identity"
    TRANSPORT = "transport"


_CLOSE_NAMES = {int(code): code.name.lower() for code in CloseCode}
_STREAM_NAMES = {int(code): code.name.lower() for code in StreamCode}


def stream_name(code: int) -> str:
    """Return the name of the number with which a peer ended a stream."""
    return _STREAM_NAMES.get(code, f"code_{code}")


def close_name(code: int, *, is_application: bool) -> str:
    """Return the name of the number in a close, whoever sent it."""
    if is_application:
        return _CLOSE_NAMES.get(code, f"code_{code}")
    if code == _TLS_ALERTS + _BAD_CERTIFICATE:
        return Ending.WRONG_IDENTITY
    if code == _TLS_ALERTS + _NO_APPLICATION_PROTOCOL:
        return _CLOSE_NAMES[CloseCode.VERSION_MISMATCH]
    return Ending.TRANSPORT
