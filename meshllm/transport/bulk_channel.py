"""One connection of the bulk plane: TLS over TCP in a thread of its own, payloads and large blocks with deadlines.

Owns the TLS settings of both sides and the socket. Decides when the other side is too slow, or says too much or too
little. Doesn't know who may do what, nor what the bytes are.

Everything here blocks and belongs to one thread; only `abort` may be called from another one. OpenSSL works outside
the interpreter's lock, so blocks of a megabyte cost the event loop nothing but the processor.
"""

import contextlib
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.serialization import Encoding

from meshllm.core.ids import NodeId
from meshllm.core.limits import BULK_FRAME_BYTES, BULK_READ_BYTES
from meshllm.core.rights import Rights
from meshllm.transport.identity import Identity
from meshllm.wire.bulk_frames import BulkStep, decode_bulk, encode_bulk
from meshllm.wire.errors import WireError
from meshllm.wire.frames import LENGTH_BYTES, frame

ALPN = "meshllm-bulk/1"
_LENGTH = struct.Struct(">I")
_ENDED = "the other side ended the connection"


class BulkCode(StrEnum):
    """The kinds of failure."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    """Too slow, or silent."""
    LOST = "lost"
    """The connection ended before everything had come."""
    PROTOCOL = "protocol"
    """The other side does not keep to the protocol: too much, too little, or something else."""
    REJECTED = "rejected"
    """One side does not let the other in."""
    REFUSED = "refused"
    """The other side said no, and why."""


class BulkError(Exception):
    """A connection is of no more use, or what was asked for is refused: a code for programs, a sentence for people."""

    def __init__(self, code: BulkCode, message: str, reason: str = "") -> None:
        """Keep them, with the other side's word where it gave one."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason


def acceptor_context(identity: Identity) -> ssl.SSLContext:
    """Return TLS 1.3 with a node's key; nobody resumes anything."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    pem = identity.to_pem() + identity.tls_certificate.public_bytes(Encoding.PEM)
    # The library reads keys from files alone. This one exists for a moment, in a folder that only the user can read.
    with tempfile.TemporaryDirectory(prefix="meshllm-") as folder:
        file = Path(folder) / "key.pem"
        file.touch(mode=0o600)
        file.write_bytes(pem)
        context.load_cert_chain(file)
    return context


def dialler_context() -> ssl.SSLContext:
    """Return TLS 1.3 that takes any certificate: its key is compared afterwards with the one that was wanted."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(side: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A connection on which both sides have proved themselves: the socket, and what encrypts for it."""

    socket: socket.socket
    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    peer: NodeId


class BulkChannel:
    """Payloads and bytes on one connection. `peer` and `rights` are the other side's, once it has proved itself."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, *, is_dialled: bool) -> None:
        """Take a connected socket; nothing is said yet. Raises BulkError when it is connected no more."""
        with _told(), contextlib.ExitStack() as undo:
            undo.callback(raw.close)
            raw.setblocking(True)
            raw.getpeername()
            undo.pop_all()
        with contextlib.suppress(OSError):  # not every kind of socket has it
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = raw
        # Encrypted bytes pass through memory, many records with one call of the kernel: that halves what they cost.
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=not is_dialled)
        # Once for each 16 KiB, so without a call in between.
        self._read = cast("Callable[[int, memoryview], int]", self._tls.read)
        self._arrived = memoryview(bytearray(BULK_READ_BYTES))
        self._unsent = memoryview(b"")
        self._is_given = False
        self.peer = NodeId("")
        self.rights = Rights.NONE

    def shake_hands(self, deadline_s: float) -> None:
        """Set TLS up. Raises BulkError."""
        with _told():
            while True:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    self._send_sealed(deadline_s)
                    self._fetch(deadline_s)
                except ssl.SSLError:
                    with contextlib.suppress(OSError):
                        self._send_sealed(deadline_s)  # what is wrong with it
                    raise
                else:
                    break
            self._send_sealed(deadline_s)
        if self._tls.selected_alpn_protocol() != ALPN:
            raise BulkError(BulkCode.PROTOCOL, "the other side speaks another protocol")

    @property
    def peer_certificate(self) -> bytes:
        """Return the acceptor's TLS certificate (DER); empty at the acceptor itself."""
        return self._tls.getpeercert(binary_form=True) or b""

    # -- payloads ----------------------------------------------------------------------------------------

    def send(self, payload: bytes, deadline_s: float) -> None:
        """Send a payload. Raises BulkError."""
        self._send_all(frame(payload), deadline_s)

    def receive(self, deadline_s: float, limit_bytes: int = BULK_FRAME_BYTES) -> bytes:
        """Return the next payload. Raises BulkError."""
        head = bytearray(LENGTH_BYTES)
        self.receive_into(memoryview(head), deadline_s)
        (length,) = _LENGTH.unpack(head)
        if not 0 < length <= limit_bytes:
            raise BulkError(BulkCode.PROTOCOL, f"the other side says {length} bytes at once")
        payload = bytearray(length)
        self.receive_into(memoryview(payload), deadline_s)
        return bytes(payload)

    def say(self, step: BulkStep, deadline_s: float) -> None:
        """Send a step. Raises BulkError."""
        self.send(encode_bulk(step), deadline_s)

    def hear(self, deadline_s: float) -> BulkStep:
        """Return the next step. Raises BulkError."""
        try:
            return decode_bulk(self.receive(deadline_s))
        except WireError as error:
            raise BulkError(
                BulkCode.PROTOCOL, f"the other side says what nobody understands: {error.message}"
            ) from error

    # -- bytes of files ----------------------------------------------------------------------------------

    def send_block(self, block: memoryview, deadline_s: float) -> None:
        """Send bytes as they are. Raises BulkError."""
        self._send_all(block, deadline_s)

    def receive_into(self, block: memoryview, deadline_s: float) -> None:
        """Fill a block. Raises BulkError."""
        got, room = 0, len(block)
        with _told():
            while got < room:
                try:
                    count = self._read(room - got, block[got:])
                except ssl.SSLWantReadError:
                    self._fetch(deadline_s)
                    continue
                if not count:
                    raise BulkError(BulkCode.LOST, _ENDED)
                got += count

    # -- without waiting, for a bridge: messages are small and come cold, so there is little on the way ----

    @property
    def bare(self) -> socket.socket:
        """Return the socket itself, to wait for it. Whoever does not want to wait makes it non-blocking."""
        return self._socket

    def seal(self, data: memoryview) -> None:
        """Encrypt bytes; `flush` sends them. Raises BulkError."""
        try:
            sealed = self._tls.write(data)
            while sealed < len(data):
                sealed += self._tls.write(data[sealed:])
        except OSError as error:
            raise _failed(error) from error

    def flush(self) -> bool:
        """Send what can be sent; return whether that was everything. Raises BulkError."""
        try:
            while self._unsent or self._outgoing.pending:
                self._unsent = self._unsent or memoryview(self._outgoing.read())
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return False
        except OSError as error:
            raise _failed(error) from error
        return True

    def take(self, block: memoryview) -> int | None:
        """Put what has come into a block; return how much, 0 for the end, None while there is nothing.

        The block has to have room for `BULK_READ_BYTES` and two records. Raises BulkError.
        """
        try:
            arrived = self._socket.recv_into(self._arrived)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _failed(error) from error
        self._incoming.write(self._arrived[:arrived])
        return self._opened(block) if arrived else 0

    def _opened(self, block: memoryview) -> int | None:
        """Decrypt all that has come; return how much, 0 for the end, None for a record begun. Raises BulkError."""
        got = 0
        try:
            while count := self._read(len(block) - got, block[got:]):
                got += count
        except ssl.SSLWantReadError:
            return got or None
        except OSError as error:
            raise _failed(error) from error
        return got

    # -- the end -----------------------------------------------------------------------------------------

    def hand_over(self) -> "Sealed":
        """Give the connection away, to be used without a thread of its own; this channel is of no more use."""
        self._is_given = True
        return Sealed(
            socket=self._socket, tls=self._tls, incoming=self._incoming, outgoing=self._outgoing, peer=self.peer
        )

    def close(self) -> None:
        """Close the connection, without waiting for anything. For its own thread."""
        if not self._is_given:
            self.abort()
            self._socket.close()

    def abort(self) -> None:
        """Make its thread's calls fail, from another thread."""
        if self._is_given:
            return
        with contextlib.suppress(OSError):
            # Of the socket: the TLS object belongs to the other thread.
            self._socket.shutdown(socket.SHUT_RDWR)

    def _send_all(self, data: bytes | memoryview, deadline_s: float) -> None:
        view = memoryview(data)
        with _told():
            for start in range(0, len(view), BULK_READ_BYTES):
                self.seal(view[start : start + BULK_READ_BYTES])
                self._send_sealed(deadline_s)

    def _send_sealed(self, deadline_s: float) -> None:
        if self._outgoing.pending:
            self._wait_until(deadline_s)
            self._socket.sendall(self._outgoing.read())

    def _fetch(self, deadline_s: float) -> None:
        """Wait for encrypted bytes. Raises BulkError at the end, TimeoutError, OSError."""
        self._wait_until(deadline_s)
        count = self._socket.recv_into(self._arrived)
        if not count:
            raise BulkError(BulkCode.LOST, _ENDED)
        self._incoming.write(self._arrived[:count])

    def _wait_until(self, deadline_s: float) -> None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell what goes wrong in our own words."""
    try:
        yield
    except OSError as error:
        raise _failed(error) from error


def _failed(error: OSError) -> BulkError:
    """Return what went wrong, in our own words."""
    match error:
        case TimeoutError():
            return BulkError(BulkCode.TIMEOUT, "the other side is too slow")
        case ssl.SSLError():
            return BulkError(BulkCode.PROTOCOL, f"TLS failed: {error.reason or type(error).__name__}")
        case _:
            return BulkError(BulkCode.LOST, f"the connection was lost: {error.strerror or error}")
