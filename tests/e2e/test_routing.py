"""Requests among three real daemons that serve the same model: where they land, at whichever node they come in."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.e2e.daemons import Daemon, Reply, until
from tests.e2e.test_mesh import node_id, token_of, until_listed

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
LONG = "word " * 500
TURNS = 5
HEARD_S = 20.0


@dataclass
class Three:
    """Three hosts of one model, and two nodes without an engine."""

    hosts: list[Daemon]
    entries: list[Daemon]

    def name_of(self, reply: Reply) -> int:
        """Return which of the hosts answered, by its number."""
        assert reply.status == 200, reply.body
        return [node_id(host) for host in self.hosts].index(reply.headers["x-mesh-node"])


def hosts_known(node: Daemon) -> int:
    """Return how many hosts of the model a node knows to be ready."""
    return sum(
        any(served["id"] == "tiny" and served["state"] == "ready" for served in member["models"])
        for member in node.get("/api/nodes")["nodes"]
    )


@pytest.fixture
def three(daemon: Make) -> Iterator[Three]:
    """Start them; every engine takes a tenth of a second for its first token and remembers prompts."""
    switches = {"MESH_FAKE_ENGINE": json.dumps({"first_token_s": 0.1, "cached_tokens": -1})}
    with ExitStack() as nodes:

        def start(*arguments: str, models: tuple[str, ...]) -> Daemon:
            made = daemon(*arguments, models=models)
            made.environment |= switches
            return nodes.enter_context(made)

        first = start("--model", "tiny", "--parallel", "4", models=("tiny",))
        until_listed(first, "tiny")
        token = token_of(first)
        more = [start("--model", "tiny", "--parallel", "4", "--join", token, models=("tiny",)) for _ in range(2)]
        entries = [start("--client", "--join", token, models=()) for _ in range(2)]
        for node in entries:
            until(lambda node=node: hosts_known(node) == 3, "three hosts to be known", HEARD_S)  # type: ignore[misc]
        yield Three([first, *more], entries)


@pytest.mark.rows("RTE-5", "AFF-5")
def test_conversations_stay_where_their_prompt_is_cached(three: Three) -> None:
    """Six at once, five turns each, without a word about sessions: what engines report as cached grows."""

    def converse(number: int) -> tuple[set[int], list[int]]:
        messages, places, cached = [{"role": "user", "content": f"{number} {LONG}"}], set(), []
        for turn in range(TURNS):
            reply = three.entries[0].request("POST", "/v1/chat/completions", {"model": "tiny", "messages": messages})
            places.add(three.name_of(reply))
            usage = reply.json["usage"]
            cached.append(usage["prompt_tokens_details"]["cached_tokens"])
            answer = reply.json["choices"][0]["message"]["content"]
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": f"and {turn}?"}]
        return places, cached

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(converse, range(6)))

    assert [len(places) for places, _ in found] == [1] * 6, found
    assert all(cached == sorted(cached) and cached[-1] > cached[1] > 500 for _, cached in found), found
    assert len({place for places, _ in found for place in places}) == 3


@pytest.mark.rows("AFF-1", "AFF-4")
def test_a_session_is_at_the_same_host_whichever_node_it_comes_in_at(three: Three) -> None:
    """By header, for a named model and for `auto`."""

    def place(entry: Daemon, session: str, model: str) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        reply = entry.request("POST", "/v1/chat/completions", body, headers={"X-Session-ID": session})
        assert reply.headers["x-mesh-route-reason"] == "affinity"
        return three.name_of(reply)

    sessions = [f"user-{number}" for number in range(8)]
    for model in ("tiny", "auto"):
        first, second = ([place(entry, session, model) for session in sessions] for entry in three.entries)
        assert first == second
        assert len(set(first)) > 1


@pytest.mark.rows("RTE-4")
def test_a_burst_spreads_before_hosts_say_that_they_are_busy(three: Three) -> None:
    """Thirty requests in one moment: ten for each, give or take what came so late that others had ended."""
    with ThreadPoolExecutor(30) as pool:
        replies = list(pool.map(lambda number: three.entries[0].chat(f"number {number}"), range(30)))

    counts = Counter(three.name_of(reply) for reply in replies)
    assert sorted(counts.values()) == pytest.approx([10, 10, 10], abs=2), counts
