"""What is said on the bulk plane between the bytes of files: what a connection is for, which bytes are wanted.

Owns the form of it. Decides what has the right form. Doesn't know sockets, and never sees the bytes of a file: they
follow a `Piece` as they are, exactly as many as it says.

The first payload of a connection is a `Purpose`, so that other uses than files can share the plane.
"""

from dataclasses import dataclass

from meshllm.core.limits import BULK_FRAME_BYTES, BULK_PIECE_BYTES
from meshllm.wire.names import check_digest, check_model, check_text, check_word, fit_text
from meshllm.wire.packing import convert, malformed, pack, plain, unpack_map

_KIND = "k"
EPOCH_MAX = 2**53
"""What every reader of numbers takes; nobody counts so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """The dialler says what the connection is for."""

    use: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The acceptor serves that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """The dialler asks for a range of the file with this digest."""

    digest: str
    """`sha256:<64 hex>`."""
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The range follows, `length` bytes as they are in the file."""

    offset: int
    length: int
    size_bytes: int
    """Of the whole file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """The dialler is the host of a split, and wants the server that the acceptor runs for it.

    After `Ready` no more is said on the connection: it is that server's own from there.
    """

    model: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """It is not served, and why."""

    code: str
    message: str = ""


BulkStep = Purpose | Ready | Want | Piece | Join | Refused

_KINDS: dict[str, type[BulkStep]] = {
    "purpose": Purpose, "ready": Ready, "want": Want, "piece": Piece, "join": Join, "refused": Refused,
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode_bulk(step: BulkStep) -> bytes:
    """Return a step as a payload."""
    return pack({_KIND: _NAMES[type(step)], **plain(step)})


def decode_bulk(payload: bytes) -> BulkStep:
    """Return the step that a payload holds. Raises WireError."""
    content = unpack_map(payload, BULK_FRAME_BYTES)
    name = content.pop(_KIND, None)
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise malformed("nothing that is said on the bulk plane")
    step = convert(content, kind)
    _check(step)
    return step


def refused(code: str, message: str) -> Refused:
    """Return a refusal that the other side takes."""
    return Refused(code=code, message=fit_text(message))


def _check(step: BulkStep) -> None:
    match step:
        case Purpose():
            check_word(step.use)
        case Want():
            check_digest(step.digest)
            if not step.digest:
                raise malformed("a file without a digest")
            _check_length(step.length)
        case Piece():
            _check_length(step.length)
            if step.offset + step.length > step.size_bytes:
                raise malformed("a piece beyond the end of its file")
        case Join():
            check_model(step.model)
            if not 0 < step.epoch <= EPOCH_MAX:
                raise malformed("not the epoch of a split")
        case Refused():
            check_word(step.code)
            check_text(step.message)
        case Ready():
            pass


def _check_length(length: int) -> None:
    if not 0 < length <= BULK_PIECE_BYTES:
        raise malformed("a piece of nothing, or a larger one than any")
