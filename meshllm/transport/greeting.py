"""The handshake on a connection's first stream: payloads between a stream and the two state machines of `handshake`.

Owns the bytes of both sides until WELCOME, and their bound. Decides when too much was said. Doesn't know keys, nor who
may come in. What arrives behind WELCOME belongs to the control stream and is kept for it.
"""

import asyncio
from collections.abc import Callable

from meshllm.core.credentials import Claim, RejectCode
from meshllm.core.limits import HANDSHAKE_BYTES
from meshllm.transport.codes import StreamKind
from meshllm.transport.handshake import AcceptorHandshake, DiallerHandshake, HandshakeError, Welcomed
from meshllm.transport.stream import Stream
from meshllm.wire.errors import WireError
from meshllm.wire.frames import FrameReader, frame


class DiallerGreeting(asyncio.Protocol):
    """The side that dialled. `welcomed` is done when the handshake is: with a result, HandshakeError or StreamLost."""

    def __init__(self, stream: Stream, handshake: DiallerHandshake) -> None:
        """Say HELLO on a stream of one's own."""
        self.welcomed: asyncio.Future[Welcomed] = asyncio.get_running_loop().create_future()
        self.reader = FrameReader()
        self.behind: list[bytes] = []
        """Payloads that came after WELCOME."""
        self._stream = stream
        self._handshake = handshake
        stream.set_protocol(self)
        stream.write(bytes([StreamKind.CONTROL]) + frame(handshake.start()))

    def data_received(self, data: bytes) -> None:
        """Take the acceptor's answers."""
        try:
            for payload in self.reader.feed(data):
                self._take(payload)
        except (WireError, HandshakeError) as error:
            self._fail(error)

    def eof_received(self) -> bool:
        """Learn that the acceptor has nothing more to say."""
        self._fail(ConnectionResetError("the peer ended the handshake"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the stream is gone."""
        self._fail(exc or ConnectionResetError("the stream ended"))

    def _take(self, payload: bytes) -> None:
        if self.welcomed.done():
            self.behind.append(payload)
            return
        answer = self._handshake.receive(payload)
        if isinstance(answer, Welcomed):
            self._stream.pause_reading()
            self.welcomed.set_result(answer)
        else:
            self._stream.write(frame(answer))

    def _fail(self, error: Exception) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(error)
            self.welcomed.exception()  # whoever dials may have given up already


class AcceptorGreeting(asyncio.Protocol):
    """The side that was dialled. Exactly one of `on_claim` and `on_failed` is called, or none if the peer goes away."""

    def __init__(
        self, stream: Stream, handshake: AcceptorHandshake,
        on_claim: Callable[["AcceptorGreeting", Claim], None],
        on_failed: Callable[["AcceptorGreeting", HandshakeError], None],
    ) -> None:  # fmt: skip
        """Wait for HELLO."""
        self.stream = stream
        self.handshake = handshake
        self.reader = FrameReader()
        self.behind: list[bytes] = []
        """Payloads that came after AUTH; a peer that waits for its answer sends none."""
        self._on_claim = on_claim
        self._on_failed = on_failed
        self._seen_bytes = 0
        self._is_over = False

    def data_received(self, data: bytes) -> None:
        """Take the dialler's words."""
        self._seen_bytes += len(data)
        if self._seen_bytes > HANDSHAKE_BYTES:
            self._fail(HandshakeError(RejectCode.MALFORMED, "too_long", "the peer says too much before it is let in"))
        if self._is_over:
            return
        try:
            for payload in self.reader.feed(data):
                self._take(payload)
        except HandshakeError as error:
            self._fail(error)
        except WireError as error:
            self._fail(HandshakeError(RejectCode.MALFORMED, str(error.code), error.message))

    def eof_received(self) -> bool:
        """Learn that the dialler says no more: it cannot be a peer."""
        self._fail(HandshakeError(RejectCode.MALFORMED, "truncated", "the peer ended the handshake"))
        return True

    def _take(self, payload: bytes) -> None:
        if self._is_over:
            self.behind.append(payload)
            return
        answer = self.handshake.receive(payload)
        if isinstance(answer, Claim):
            self._is_over = True
            self.stream.pause_reading()
            self._on_claim(self, answer)
        else:
            self.stream.write(frame(answer))

    def _fail(self, error: HandshakeError) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_failed(self, error)
