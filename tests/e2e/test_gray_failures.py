"""Hosts that are neither well nor gone: stopped processes and engines that stand still, with real daemons."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse

import pytest

from tests.e2e.daemons import BUSY_MACHINE_S, Daemon, Reply, until
from tests.e2e.test_mesh import listed, node_id, token_of, until_listed

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
SILENCE_S = 10.0
BACK_S = 10.0 + BUSY_MACHINE_S
SLOW_STREAM = 'fake:{"token_s": 0.05}'


@contextmanager
def two_hosts_and_an_entry(daemon: Make, first: str = SLOW_STREAM, **facts: object) -> Iterator[tuple[Daemon, ...]]:
    """Start two daemons that serve the same model, and one that serves none."""
    with (
        daemon("--model", "tiny", engine=first, **facts) as one,
        daemon("--model", "tiny", "--join", token_of(one), engine=SLOW_STREAM) as two,
        daemon("--join", token_of(one), "--assign", "off", models=()) as entry,
    ):
        until(lambda: len(entry.get("/v1/models/tiny").get("nodes", ())) == 2, "two replicas")
        yield one, two, entry


def last_event(answer: HTTPResponse) -> str:
    """Read a stream to its end and return its last event."""
    return [line[6:] for line in answer.read().decode().split("\n") if line.startswith("data: ")][-1]


@pytest.mark.timeout(240)
def test_a_stopped_host_costs_its_streams_a_pause_and_the_others_nothing(daemon: Make) -> None:
    """F4: its port answers nothing and refuses nothing; ten seconds of silence tell, and it comes back by itself."""
    with two_hosts_and_an_entry(daemon) as (one, two, entry), entry.streaming("hello", max_tokens=120) as answer:
        host, other = (one, two) if answer.headers["x-mesh-node"] == node_id(one) else (two, one)
        answer.readline()
        host.signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        try:
            replies = [entry.chat(timeout_s=SILENCE_S + BUSY_MACHINE_S) for _ in range(3)]
            news = next(line for line in answer if line.startswith(b": resumed") or b"host_lost" in line)
            lost_s = time.monotonic() - stopped_s
            event = last_event(answer) if news.startswith(b":") else ""
        finally:
            host.signal(signal.SIGCONT)
        until_listed(host, "tiny", BACK_S)

        assert [reply.status for reply in replies] == [200] * 3, [reply.body for reply in replies]
        assert {reply.headers["x-mesh-node"] for reply in replies} == {node_id(other)}
        assert (news.startswith(b": resumed on "), event) == (True, "[DONE]")
        assert lost_s < SILENCE_S + BUSY_MACHINE_S
        until(lambda: len(entry.get("/v1/models/tiny").get("nodes", ())) == 2, "both hosts again", BACK_S)
        until(lambda: len(host.get("/v1/models/tiny").get("nodes", ())) == 2, "its own view to be right", BACK_S)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_entry_node_that_was_stopped_itself_goes_on_with_its_streams(daemon: Make) -> None:
    """What came meanwhile lies unread: nobody else was silent, and nobody is accused."""
    with two_hosts_and_an_entry(daemon) as (_, _, entry), entry.streaming("hello", max_tokens=300) as answer:
        answer.readline()
        entry.signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        until(lambda: time.monotonic() - stopped_s > SILENCE_S + 2, "more time than silence may last", 60)
        entry.signal(signal.SIGCONT)

        assert last_event(answer) == "[DONE]"
        assert listed(entry) == {"tiny"}


@pytest.mark.rows("PRX-8")
def test_an_engine_that_stands_still_at_a_host_is_replaced_and_its_requests_move(daemon: Make) -> None:
    """F6: the host lives and says so; its watch over the engine's progress is what ends the waiting."""
    with two_hosts_and_an_entry(daemon, 'fake:{"trouble": "hang"}', stall_s=1.0) as (one, two, entry):
        began_s = time.monotonic()
        replies = [entry.chat() for _ in range(4)]

        assert [reply.status for reply in replies] == [200] * 4
        assert {reply.headers["x-mesh-node"] for reply in replies} == {node_id(two)}
        assert time.monotonic() - began_s < 4 * 3 + BUSY_MACHINE_S
        until(lambda: one.model("tiny")["restarts"] >= 1, "the engine that hung to be replaced")


def asked_twice(entry: Daemon) -> Reply | None:
    """Send a request, and return its answer if it was at two hosts."""
    reply = entry.chat(timeout_s=60)
    return reply if reply.headers["x-mesh-attempts"] == "2" else None


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_engine_that_is_busy_with_nothing_is_left_for_another_host(daemon: Make) -> None:
    """F6: its watch gives it two minutes, since it may read a long prompt; who waits for it goes elsewhere before."""
    with two_hosts_and_an_entry(daemon, 'fake:{"trouble": "burn:0"}') as (one, two, entry):
        pid = one.model("tiny")["pid"]
        reply = until(lambda: asked_twice(entry), "a request that moves", 120)

        assert (reply.status, reply.headers["x-mesh-node"]) == (200, node_id(two))
        assert one.model("tiny")["pid"] == pid


def test_a_client_that_hangs_up_frees_the_slot_at_the_host(daemon: Make) -> None:
    """F30: within a second, and what the status shows of it within the next two."""
    with (
        daemon("--model", "tiny", engine=SLOW_STREAM) as host,
        daemon("--join", token_of(host), models=()) as entry,
    ):
        until_listed(entry, "tiny")
        with entry.streaming("hello", max_tokens=2_000) as answer:
            answer.readline()
            until(lambda: host.model("tiny")["in_flight"] == 1, "the stream to be seen at its host")

        until(lambda: host.model("tiny")["in_flight"] == 0, "the slot to be free", 1.0 + 2.0 + BUSY_MACHINE_S)
        assert entry.chat().status == 200
