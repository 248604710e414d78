"""Connections to adopted servers: over TCP or TLS, with the server's own address, key and name of the model.

Owns what of a request is written anew for such a server, and its silence. Decides that an answer of which nothing
comes for long is lost. Doesn't know requests; what comes back goes through `adopted_answers`.

Invariant: the straight lane never comes by, since what it sends goes out as it came (`targets` sees to that).
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from functools import cache
from time import monotonic

from meshllm.core import limits
from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import ModelId
from meshllm.proxy.adopted_answers import AdoptedAnswer
from meshllm.proxy.peek import with_model
from meshllm.proxy.pool import EngineConnection, EnginePool, Errand, Relay
from meshllm.proxy.traffic import ModelTraffic

_HOST = b"\r\nHost: engine\r\n"
_LENGTH = re.compile(rb"\r\nContent-Length: \d+")


class AdoptedConnection(EngineConnection):
    """One connection to an adopted server, one request at a time."""

    __slots__ = ("_answer", "_heard_s", "_owner", "_watch")

    def __init__(self, pool: "AdoptedPool") -> None:
        """Belong to a pool."""
        super().__init__(pool)
        self._owner = pool
        self._answer: AdoptedAnswer | None = None
        self._heard_s = 0.0
        self._watch: asyncio.TimerHandle | None = None

    def send(self, relay: Relay, request: bytes) -> None:
        """Write a request as the server wants it; its answer goes to `relay`, as the mesh wants it."""
        self._answer = AdoptedAnswer(relay, self._owner.traffic.model, self._owner.doubt)
        self._heard_s = monotonic()
        self._watch_on()
        super().send(self._answer, self._owner.rewritten(request))

    @property
    def is_between_events(self) -> bool:
        """Tell whether what was handed out so far ends between events."""
        return self._answer is not None and self._answer.is_between

    def data_received(self, data: bytes) -> None:
        """Read on where the last bytes ended."""
        self._heard_s = monotonic()
        super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Leave the pool; tell the relay if it still waits."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(error)

    def _watch_on(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        due_s = self._heard_s + limits.REMOTE_SILENCE_S - monotonic()
        self._watch = asyncio.get_running_loop().call_later(max(due_s, 0.0), self._look)

    def _look(self) -> None:
        """Give up an answer of which nothing came for too long."""
        self._watch = None
        relay = self.relay
        if relay is None:
            return
        if monotonic() - self._heard_s < limits.REMOTE_SILENCE_S:
            self._watch_on()
            return
        self.cancel()
        self._lose(relay)


class AdoptedPool(EnginePool):
    """The connections to an adopted server that serve one of its models."""

    __slots__ = ("_doubt",)

    def __init__(
        self, endpoint: EngineEndpoint, idle_max: int, traffic: ModelTraffic, doubt: Callable[[ModelId], None]
    ) -> None:
        """Say by `doubt` that the model could not be reached, or was lost."""
        super().__init__(endpoint, idle_max, traffic)
        self._doubt = doubt

    def doubt(self) -> None:
        """Have the server asked how it is."""
        self._doubt(self.traffic.model)

    def rewritten(self, request: bytes) -> bytes:
        """Return a request with the server's path, address and name of the model in the place of ours."""
        endpoint, model = self._endpoint, self.traffic.model
        head, _, body = request.partition(b"\r\n\r\n")
        head = head.replace(_HOST, b"\r\nHost: %b\r\n" % endpoint.authority.encode(), 1)
        if endpoint.prefix:
            head = head.replace(b" /", b" %b/" % endpoint.prefix.encode(), 1)
        if endpoint.served_name != model:
            body = with_model(body, model, endpoint.served_name)
            head = _LENGTH.sub(b"\r\nContent-Length: %d" % len(body), head, count=1)
        return b"%b\r\n\r\n%b" % (head, body)

    async def connect(self, errand: Errand | None = None) -> EngineConnection:  # noqa: ARG002 - told by HTTP
        """Open a connection. Raises OSError, TimeoutError included."""
        endpoint = self._endpoint
        assert endpoint.address is not None  # noqa: S101 - adopted servers have one
        host, port = endpoint.address
        self.opening += 1
        try:
            async with asyncio.timeout(limits.ENGINE_CONNECT_TIMEOUT_S):
                context = await asyncio.to_thread(_trust, ssl.get_default_verify_paths()) if endpoint.is_tls else None
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(
                    lambda: AdoptedConnection(self), host, port, ssl=context, server_hostname=host if context else None
                )
        except OSError as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                _trust.cache_clear()  # whom this machine trusts may be changed by the time of the next request
            self.doubt()
            raise
        finally:
            self.opening -= 1
        return connection


@cache
def _trust(stores: ssl.DefaultVerifyPaths) -> ssl.SSLContext:  # noqa: ARG001 - other stores, another context
    """Return the context of connections to servers that this machine trusts. Reads files: some milliseconds."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
