"""Spans reach a real collector over HTTP; where it is gone nothing waits, and nothing grows without bound."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.traces import Span, TraceContext
from meshllm.daemon.trace_export import Collector, TraceExport, collector_of
from tests.proxy.certificates import an_issued_certificate

WITHIN_S = 30.0
RESOURCE = {"service.name": "mesh-llm"}


@dataclass
class CollectorDouble:
    """An HTTP server that keeps what it is sent."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    """What to answer the next requests with; 200 to all others."""
    bodies: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")
        )
        self.paths.append(head.split(" ")[1])
        body = json.loads(await reader.readexactly(length))
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.bodies.append(body)
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
        await writer.drain()
        writer.close()
        self.came.set()

    @property
    def names(self) -> list[str]:
        """Return the names of the spans that were taken."""
        return [
            span["name"] for body in self.bodies for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"]
        ]  # fmt: skip


@asynccontextmanager
async def a_collector(*statuses: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[CollectorDouble]:
    """Open one."""
    double = CollectorDouble(statuses=list(statuses))
    server = await asyncio.start_server(double.serve, "127.0.0.1", 0, ssl=tls)
    double.port = server.sockets[0].getsockname()[1]
    async with server:
        yield double


def a_span(name: str = "request") -> Span:
    """Return a span."""
    return Span(name=name, context=TraceContext("a" * 32, "b" * 16), began_ns=1, ended_ns=2)


def an_export(port: int) -> TraceExport:
    """Return what sends to a port here."""
    return TraceExport(collector_of(f"http://127.0.0.1:{port}"), RESOURCE)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("http://collector/otlp", "http://collector:80/otlp/v1/traces"),
        ("https://u:secret@collector/v1/traces", "https://collector:443/v1/traces"),
    ],
)
def test_a_base_and_a_whole_path_name_the_same_place(url: str, name: str) -> None:
    """As the two variables that everybody knows do; and no secret is in the name."""
    assert collector_of(url).name == name


@pytest.mark.rows("TRC-1")
async def test_spans_are_sent_as_a_collector_takes_them() -> None:
    """One request with all of them, that says which node it is."""
    async with a_collector() as collector:
        export = an_export(collector.port)
        for name in ("request", "engine"):
            export.take(a_span(name))
        await export.send()

    assert (collector.paths, collector.names) == (["/v1/traces"], ["request", "engine"])
    resource = collector.bodies[0]["resourceSpans"][0]["resource"]["attributes"]
    assert resource == [{"key": "service.name", "value": {"stringValue": "mesh-llm"}}]
    assert export.counters() == {"trace_spans_exported": 2, "trace_spans_dropped": 0}


async def test_many_spans_go_in_several_requests() -> None:
    """Each of a size that collectors take."""
    async with a_collector() as collector:
        export = an_export(collector.port)
        for _ in range(limits.TRACE_BATCH_SPANS + 1):
            export.take(a_span())
        await export.send()

    assert len(collector.bodies) == 2
    assert len(collector.names) == limits.TRACE_BATCH_SPANS + 1


async def test_enough_spans_go_at_once() -> None:
    """Without waiting for the interval, which is what `run` does otherwise."""
    async with a_collector() as collector:
        export = an_export(collector.port)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(export.run())
            for _ in range(limits.TRACE_BATCH_SPANS):
                export.take(a_span())
            async with asyncio.timeout(WITHIN_S):
                await collector.came.wait()
            running.cancel()

    assert len(collector.names) == limits.TRACE_BATCH_SPANS


async def test_spans_wait_for_a_collector_that_may_come_back(caplog: pytest.LogCaptureFixture) -> None:
    """That it is gone is logged once, and that it is back."""
    caplog.set_level(logging.INFO, "meshllm")
    async with a_collector(503, 429) as collector:
        export = an_export(collector.port)
        export.take(a_span())
        await export.send()
        await export.send()
        before = export.counters()
        await export.send()

    assert before == {"trace_spans_exported": 0, "trace_spans_dropped": 0}
    assert collector.names == ["request"]
    assert [record.getMessage() for record in caplog.records] == ["traces are not taken", "traces are taken again"]


async def test_spans_that_a_collector_never_takes_are_dropped() -> None:
    """A wrong path would hold them for ever."""
    async with a_collector(404) as collector:
        export = an_export(collector.port)
        export.take(a_span("first"))
        await export.send()
        export.take(a_span("second"))
        await export.send()

    assert collector.names == ["second"]
    assert export.counters() == {"trace_spans_exported": 1, "trace_spans_dropped": 1}


async def test_what_is_too_much_is_dropped_and_counted(unused_tcp_port: int) -> None:
    """A collector that is gone costs a bounded queue, not the memory of the node."""
    export = an_export(unused_tcp_port)
    for _ in range(limits.TRACE_QUEUE_SPANS + 7):
        export.take(a_span())

    await export.send()

    assert export.counters() == {"trace_spans_exported": 0, "trace_spans_dropped": 7}


async def test_the_last_word_is_sent_at_the_end_and_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """A collector that takes a connection and says nothing does not keep a node from leaving."""
    async with a_collector() as collector:
        export = an_export(collector.port)
        export.take(a_span())
        await export.last_word()
    monkeypatch.setattr(limits, "TRACE_LAST_WORD_S", 0.05)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", unused_tcp_port)
    async with server, asyncio.timeout(WITHIN_S):
        silent = TraceExport(Collector("127.0.0.1", unused_tcp_port, "/v1/traces", is_secure=False), RESOURCE)
        silent.take(a_span())
        await silent.last_word()

    assert collector.names == ["request"]
    assert silent.counters()["trace_spans_exported"] == 0


async def test_a_collector_that_nobody_vouches_for_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the setting; once that names who vouches, what waited is sent without a restart."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    authority, tls = an_issued_certificate(tmp_path)
    async with a_collector(tls=tls) as collector:
        export = TraceExport(collector_of(f"https://localhost:{collector.port}"), RESOURCE)
        export.take(a_span())
        with caplog.at_level(logging.WARNING):
            await export.send()
        before = list(collector.names)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))

        await export.send()

    whose = f"https://localhost:{collector.port}/v1/traces"
    cause = f"the certificate of {whose} is not trusted: unable to get local issuer certificate"
    assert [record.fields["why"] for record in caplog.records] == [  # type: ignore[attr-defined]
        f"{cause}; SSL_CERT_FILE can name a file with those to trust"
    ]
    assert (before, collector.names) == ([], ["request"])
