"""Requests among three real daemons that serve the same model: where they land, at whichever node they come in."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest

from tests.e2e.daemons import Daemon, Reply, until
from tests.e2e.test_mesh import node_id, token_of, until_listed
from tests.inventory import gguf_builder

pytestmark = pytest.mark.e2e

LONG = "word " * 500
TURNS = 5
HEARD_S = 20.0
SERVES = ("--model", "tiny", "--parallel", "4")


@dataclass
class Three:
    """Three hosts of one model, and two nodes without an engine."""

    hosts: list[Daemon]
    entries: list[Daemon]

    def name_of(self, reply: Reply) -> int:
        """Return which of the hosts answered, by its number."""
        assert reply.status == 200, reply.body
        return [node_id(host) for host in self.hosts].index(reply.headers["x-mesh-node"])


def has_heard(node: Daemon) -> bool:
    """Tell whether a node knows that the model is ready at all three."""
    return (
        sum(
            any(served["id"] == "tiny" and served["state"] == "ready" for served in member["models"])
            for member in node.get("/api/nodes")["nodes"]
        )
        == 3
    )


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    """Start them; every engine takes a tenth of a second for its first token and remembers prompts."""
    switches = {"MESH_FAKE_ENGINE": json.dumps({"first_token_s": 0.1, "cached_tokens": -1})}
    folder = tmp_path_factory.mktemp("three")
    with ExitStack() as nodes:

        def start(name: str, *arguments: str) -> Daemon:
            common = ("--engine", "fake", "--threads", "1", "--no-mdns")
            node = Daemon(folder / name, (*arguments, *common), environment=switches)
            if "--client" not in arguments:
                gguf_builder.write(node.models / "tiny.gguf", gguf_builder.llama(**{"general.name": "tiny"}))
            return nodes.enter_context(node)

        first = start("h0", *SERVES)
        until_listed(first, "tiny")
        join = ("--join", token_of(first))
        hosts = [first, *(start(f"h{number}", *SERVES, *join) for number in (1, 2))]
        entries = [start(f"c{number}", "--client", *join) for number in (1, 2)]
        for node in entries:
            until(partial(has_heard, node), "three hosts to be known", HEARD_S)
        yield Three(hosts, entries)


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


@pytest.mark.rows("AFF-4")
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


def test_a_burst_spreads_before_hosts_say_that_they_are_busy(three: Three) -> None:
    """Thirty requests in one moment: ten for each, give or take what came so late that others had ended."""
    with ThreadPoolExecutor(30) as pool:
        replies = list(pool.map(lambda number: three.entries[0].chat(f"number {number}"), range(30)))

    counts = Counter(three.name_of(reply) for reply in replies)
    assert sorted(counts.values()) == pytest.approx([10, 10, 10], abs=2), counts
