"""Two real daemons tell a real collector of one request that came in at the one and was answered by the other."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.e2e.daemons import Daemon, until
from tests.e2e.test_mesh import node_id, token_of, until_listed

pytestmark = pytest.mark.e2e

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STEPS = ["routing_decision", "cache_lookup", "quota_check", "model_execution"]

Maker = Callable[..., Daemon]


class Collector(ThreadingHTTPServer):
    """Keeps the spans that it is sent, with the node that each is of."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.spans: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Return its base."""
        return f"http://127.0.0.1:{self.server_port}"


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        """Take a batch."""
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for of_node in document["resourceSpans"]:
            node = {one["key"]: one["value"] for one in of_node["resource"]["attributes"]}["service.instance.id"]
            spans = [span for scope in of_node["scopeSpans"] for span in scope["spans"]]
            self.server.spans += [span | {"node": node["stringValue"]} for span in spans]
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run one."""
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.rows("T17", "TRC-1", "TRC-2", "RTE-24")
def test_a_collector_gets_one_trace_over_two_nodes(daemon: Maker, collector: Collector) -> None:
    """The five spans of the entry node in their order, and those of the host below its execution."""
    with daemon("--model", "tiny", "--trace-endpoint", collector.url) as host:
        until_listed(host, "tiny")
        entry = daemon("--client", "--join", token_of(host))
        entry.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        with entry:
            until_listed(entry, "tiny")
            asked = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
            traced = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            reply = entry.request("POST", "/v1/chat/completions", asked, headers=traced)
            names = {*STEPS, "request", "tunnel", "engine"}
            until(lambda: {span["name"] for span in collector.spans} == names, "all spans of both nodes")
            nodes = (node_id(entry), node_id(host))

    assert reply.status == 200
    spans = {span["name"]: span for span in collector.spans}
    assert {span["traceId"] for span in spans.values()} == {TRACE}
    root = spans["request"]
    below = sorted((spans[name] for name in STEPS), key=lambda span: int(span["startTimeUnixNano"]))
    assert [span["name"] for span in below] == STEPS
    assert {span["parentSpanId"] for span in below} == {root["spanId"]}
    assert root["parentSpanId"] == CALLER
    assert spans["tunnel"]["parentSpanId"] == spans["model_execution"]["spanId"]
    assert spans["engine"]["parentSpanId"] == spans["tunnel"]["spanId"]
    assert {spans[name]["node"] for name in ("request", *STEPS)} == {nodes[0]}
    assert {spans[name]["node"] for name in ("tunnel", "engine")} == {nodes[1]}
