"""The side of the bulk plane that is dialled: one TCP port, on which members alone get past the handshake.

Owns the listening socket and a thread for each connection. Decides how many there may be, and which networks get no
answer after too many failures. Doesn't know who may do what: it asks `judge` and `refusal`, on that thread.

To a stranger the port is TLS that closes after five seconds at most: it says nothing before it knows who asks.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from meshllm.core.announcement import Address
from meshllm.core.credentials import Claim, RejectCode
from meshllm.core.ids import NodeId, short
from meshllm.core.limits import BULK_CONNECTIONS, BULK_CONNECTIONS_PER_PEER, BULK_HANDSHAKE_S, HANDSHAKE_BYTES
from meshllm.core.members.admission import Failures
from meshllm.core.rights import Rights
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError, acceptor_context
from meshllm.transport.handshake import AcceptorHandshake, Credentials, HandshakeError, Terms
from meshllm.transport.identity import Identity
from meshllm.wire.bulk_frames import Purpose, Ready, refused

log = logging.getLogger(__name__)

_PAUSE_S = 1.0
"""After the machine could not give another connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkUser:
    """What the port needs of its node. All but `start_task` is called on threads."""

    credentials: Callable[[], Credentials]
    terms: Callable[[], Terms]
    judge: Callable[[Claim], Rights | str]
    """Return the rights of whoever dialled, or why it gets nowhere."""
    refusal: Callable[[str, Rights], str]
    """Return why a connection may not be for a use; empty where it may."""
    serve: Mapping[str, Callable[[BulkChannel], None]]
    """By use: serves a connection to its end. Raises BulkError."""
    start_task: Callable[[str, Coroutine[object, object, None]], asyncio.Task[None]]


class BulkListener:
    """The port, while `run` runs. `close` ends every connection."""

    def __init__(self, sock: socket.socket, identity: Identity, user: BulkUser) -> None:
        """Serve what comes to a listening socket."""
        self._socket = sock
        self._context = acceptor_context(identity)
        self._user = user
        self._threads = ThreadPoolExecutor(BULK_CONNECTIONS, thread_name_prefix="bulk")
        self._failures = Failures()
        self._unserved: set[socket.socket] = set()
        """Taken, and not yet on a thread."""
        self._open: set[BulkChannel] = set()
        self._by_peer: Counter[NodeId] = Counter()
        self._lock = threading.Lock()
        self._under_way = 0
        self._is_closed = False

    @classmethod
    def open(cls, host: str, port: int, identity: Identity, user: BulkUser) -> Self:
        """Listen at an address, empty for all, and a port, where that is free; else at any. Raises OSError."""
        try:
            sock = _listening(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            sock = _listening(host, 0)
        sock.setblocking(False)
        return cls(sock, identity, user)

    @property
    def port(self) -> int:
        """Return the TCP port."""
        return int(self._socket.getsockname()[1])

    @property
    def connections(self) -> int:
        """Return how many connections are open, greeted or not."""
        return self._under_way

    async def run(self) -> None:
        """Take connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                raw, place = await loop.sock_accept(self._socket)
            except OSError as error:  # the machine has no descriptors left
                log.warning("no connection taken on the bulk plane: %s", error.strerror or error)
                await asyncio.sleep(_PAUSE_S)
                continue
            address = Address(str(place[0]), int(place[1]))
            if self._under_way >= BULK_CONNECTIONS or self._failures.is_silent(address, loop.time()):
                raw.close()
                continue
            self._under_way += 1
            self._unserved.add(raw)
            self._user.start_task(f"bulk:{address.host}", self._attend(raw, address))

    async def close(self) -> None:
        """End everything, and wait for the threads."""
        self._socket.close()
        with self._lock:
            self._is_closed = True
            for channel in self._open:
                channel.abort()
            for raw in self._unserved:
                raw.close()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def _attend(self, raw: socket.socket, address: Address) -> None:
        loop = asyncio.get_running_loop()
        if self._is_closed:
            return
        try:
            # Every wait on that thread has a deadline, and `close` aborts it.
            problem = await asyncio.shield(loop.run_in_executor(self._threads, self._serve, raw))
        finally:
            self._under_way -= 1
        if problem:
            log.info("a bulk connection was turned away address=%s: %s", address.host, problem)
            self._failures.note(address, loop.time())

    # -- on a connection's own thread ----------------------------------------------------------------------

    def _serve(self, raw: socket.socket) -> str:
        """Greet and serve one connection; return why somebody was not let in."""
        with self._lock:
            self._unserved.discard(raw)
        try:
            channel = BulkChannel(raw, self._context, is_dialled=False)
        except BulkError:
            return ""  # it has gone again
        with self._lock:
            self._open.add(channel)
            is_late = self._is_closed
        try:
            if is_late:
                return ""
            try:
                self._greet(channel)
            except BulkError as error:
                return "" if error.code is BulkCode.LOST else error.message
            self._serve_peer(channel)
            return ""
        finally:
            with self._lock:
                self._open.discard(channel)
            channel.close()

    def _greet(self, channel: BulkChannel) -> None:
        """Find out who it is. Raises BulkError, after having said no."""
        deadline_s = time.monotonic() + BULK_HANDSHAKE_S
        channel.shake_hands(deadline_s)
        handshake = AcceptorHandshake(self._user.credentials(), self._user.terms())
        try:
            while not isinstance(answer := handshake.receive(channel.receive(deadline_s, HANDSHAKE_BYTES)), Claim):
                channel.send(answer, deadline_s)
            rights = self._user.judge(answer)
            if isinstance(rights, str):
                error = HandshakeError(RejectCode.UNAUTHORIZED, rights, f"{short(answer.node)} is not let in: {rights}")
                error.reply = handshake.refuse(error.code)
                raise error
            channel.send(handshake.welcome(), deadline_s)
        except ValueError as error:  # this node has no certificate: nobody is let in
            raise BulkError(BulkCode.REJECTED, "this node is no member yet") from error
        except HandshakeError as error:
            with contextlib.suppress(BulkError):
                channel.send(error.reply, deadline_s)
            raise BulkError(BulkCode.REJECTED, error.message, error.reason) from error
        channel.peer, channel.rights = answer.node, rights

    def _serve_peer(self, channel: BulkChannel) -> None:
        """Serve a member what it came for."""
        with self._lock:
            self._by_peer[channel.peer] += 1
            is_too_much = self._by_peer[channel.peer] > BULK_CONNECTIONS_PER_PEER
        try:
            if (use := self._agreed(channel, is_too_much=is_too_much)) is not None:
                self._user.serve[use](channel)
        except BulkError as error:
            log.info("bulk connection ended node=%s: %s", short(channel.peer), error.message)
        finally:
            with self._lock:
                self._by_peer[channel.peer] -= 1
                self._by_peer += Counter()  # keeps no zeros

    def _agreed(self, channel: BulkChannel, *, is_too_much: bool) -> str | None:
        """Return what the connection is for, or None after having said no. Raises BulkError."""
        deadline_s = time.monotonic() + BULK_HANDSHAKE_S
        said = channel.hear(deadline_s)
        if not isinstance(said, Purpose):
            raise BulkError(BulkCode.PROTOCOL, "the peer does not say what for")
        code = "busy" if is_too_much else self._user.refusal(said.use, channel.rights)
        code = code or ("" if said.use in self._user.serve else "not_served")
        if code:
            channel.say(refused(code, f"this node does not serve {said.use} to the peer: {code}"), deadline_s)
            return None
        channel.say(Ready(), deadline_s)
        return said.use


def _listening(host: str, port: int) -> socket.socket:
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BULK_CONNECTIONS)
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BULK_CONNECTIONS
            )
    return socket.create_server(("", port), backlog=BULK_CONNECTIONS)
