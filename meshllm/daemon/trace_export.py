"""Spans on their way to a collector: OTLP over HTTP, in JSON.

Owns the queue of spans, which is bounded, and the requests to the collector, each with a deadline. Decides what becomes
of spans that cannot be delivered: they wait while the collector may come back and there is room, then they are dropped
and counted. Doesn't know what spans mean; nothing that answers clients ever waits for this.
"""

import asyncio
import contextlib
import json
import logging
import os
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlsplit

from meshllm import __version__
from meshllm.config import Config
from meshllm.core import limits
from meshllm.core.ids import NodeId
from meshllm.core.traces import Span, Value, otlp
from meshllm.core.web_trust import SETTING, refused_certificate
from meshllm.proxy.tracing import Collecting

log = logging.getLogger(__name__)

_PATH = "/v1/traces"
_COME_AGAIN = frozenset({429, 502, 503, 504})
_ANSWER_BYTES = 64 * limits.KIB


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans are sent."""

    host: str
    port: int
    path: str
    is_secure: bool

    @property
    def name(self) -> str:
        """Return `http://host:port/path`, without what may be secret in it."""
        return f"{'https' if self.is_secure else 'http'}://{self.host}:{self.port}{self.path}"


class RefusedError(Exception):
    """A collector does not take spans; `is_final` where it never will take these."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        """Say why."""
        super().__init__(message)
        self.is_final = is_final


def collector_of(url: str) -> Collector:
    """Return the collector at a URL: the base of one, or the whole path to where it takes traces."""
    parts = urlsplit(url)
    is_secure = parts.scheme == "https"
    base = parts.path.rstrip("/")
    path = base if base.endswith(_PATH) else base + _PATH
    return Collector(parts.hostname or "", parts.port or (443 if is_secure else 80), path, is_secure)


def export_of(config: Config, node: NodeId) -> "TraceExport | None":
    """Return what sends this node's spans; None where nobody collects them."""
    if not config.trace_endpoint:
        return None
    resource: dict[str, Value] = {
        "service.name": "mesh-llm", "service.version": __version__, "service.instance.id": node,
        "host.name": config.name,
    }  # fmt: skip
    return TraceExport(collector_of(config.trace_endpoint), resource)


class TraceExport:
    """Sends spans, in batches."""

    def __init__(self, collector: Collector, resource: Mapping[str, Value]) -> None:
        """Send to `collector`; `resource` says which node this is."""
        self._collector = collector
        self._resource = resource
        self._waiting: deque[Span] = deque()
        self._has_enough = asyncio.Event()
        self._sending = asyncio.Lock()
        self._context: ssl.SSLContext | None = None
        self._is_down = False
        self._exported = self._dropped = 0

    def collecting(self, share: float) -> Collecting:
        """Return what the front door gives its spans to."""
        return Collecting(take=self.take, share=share)

    def take(self, span: Span) -> None:
        """Take a span that is over; never waits."""
        if len(self._waiting) >= limits.TRACE_QUEUE_SPANS:
            self._dropped += 1
            return
        self._waiting.append(span)
        if len(self._waiting) >= limits.TRACE_BATCH_SPANS:
            self._has_enough.set()

    def counters(self) -> dict[str, float]:
        """Return what was counted since the start, by name."""
        return {"trace_spans_exported": self._exported, "trace_spans_dropped": self._dropped}

    async def run(self) -> None:
        """Send what comes, every few seconds or when there is enough; less often while nobody takes it."""
        pause_s = limits.TRACE_INTERVAL_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._has_enough.wait()
            if self._is_down:
                pause_s = min(2 * pause_s, limits.TRACE_RETRY_MOST_S)
                self._has_enough.clear()
            await self.send()
            if not self._is_down:
                pause_s = limits.TRACE_INTERVAL_S

    async def last_word(self) -> None:
        """Send what is left, within a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.TRACE_LAST_WORD_S):
                await self.send()

    async def send(self) -> None:
        """Send what waits, batch by batch, until one does not arrive."""
        self._has_enough.clear()
        async with self._sending:
            await self._send_all()

    async def _send_all(self) -> None:
        while self._waiting:
            batch = list(islice(self._waiting, limits.TRACE_BATCH_SPANS))
            try:
                async with asyncio.timeout(limits.TRACE_EXPORT_TIMEOUT_S):
                    await self._post(batch)
            except (OSError, RefusedError, asyncio.IncompleteReadError) as error:
                self._note(is_down=True, why=self._why(error))
                if not (isinstance(error, RefusedError) and error.is_final):
                    return
                self._dropped += len(batch)
            else:
                self._note(is_down=False)
                self._exported += len(batch)
            for _ in batch:
                self._waiting.popleft()

    def _why(self, error: Exception) -> str:
        """Say why spans do not arrive; whom this machine trusts is read anew after a refused certificate."""
        if not isinstance(error, ssl.SSLCertVerificationError):
            return str(error) or type(error).__name__
        self._context = None
        named = os.environ.get(SETTING, "")
        return refused_certificate(self._collector.name, error.verify_message, error.verify_code, named)

    def _note(self, *, is_down: bool, why: str = "") -> None:
        """Log when the collector stops taking spans, and when it takes them again."""
        if is_down == self._is_down:
            return
        self._is_down = is_down
        fields = {"collector": self._collector.name} | ({"why": why} if why else {})
        log.log(
            logging.WARNING if is_down else logging.INFO,
            "traces are not taken" if is_down else "traces are taken again", extra={"fields": fields},
        )  # fmt: skip

    async def _post(self, batch: Sequence[Span]) -> None:
        """Send one batch. Raises OSError, IncompleteReadError and RefusedError."""
        to = self._collector
        body = json.dumps(otlp(batch, self._resource), separators=(",", ":")).encode()
        head = (
            f"POST {to.path} HTTP/1.1\r\nHost: {to.host}:{to.port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        if to.is_secure and self._context is None:
            self._context = await asyncio.to_thread(ssl.create_default_context)
        reader, writer = await asyncio.open_connection(to.host, to.port, ssl=self._context)
        try:
            writer.write(head.encode() + body)
            await writer.drain()
            status_line = (await reader.readuntil(b"\r\n")).decode("latin-1").split(" ", 2)
            await reader.read(_ANSWER_BYTES)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        status = int(status_line[1]) if len(status_line) > 1 and status_line[1].isdigit() else 0
        if not 200 <= status < 300:
            raise RefusedError(f"the collector answered with {status}", is_final=status not in _COME_AGAIN)
