"""Requests among three real daemons that serve the same model: where they land, at whichever node they come in."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count

import pytest

from tests.e2e.daemons import Daemon, Reply, until
from tests.e2e.test_mesh import node_id, token_of, until_listed
from tests.inventory import gguf_builder

pytestmark = pytest.mark.e2e

LONG = "word " * 500
TURNS = 5
MOVES = 2
HEARD_S = 20.0
SERVES = ("--model", "tiny", "--parallel", "4")


@dataclass
class Three:
    """Three hosts of one model, and who starts a node without an engine that remembers nothing yet."""

    hosts: list[Daemon]
    entry: Callable[[], AbstractContextManager[Daemon]]

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

        def made(name: str, *arguments: str) -> Daemon:
            common = ("--engine", "fake", "--threads", "1", "--no-mdns")
            return Daemon(folder / name, (*arguments, *common), environment=switches)

        def start(name: str, *arguments: str) -> Daemon:
            node = made(name, *arguments)
            gguf_builder.write(node.models / "tiny.gguf", gguf_builder.llama(**{"general.name": "tiny"}))
            return nodes.enter_context(node)

        first = start("h0", *SERVES)
        until_listed(first, "tiny")
        join = ("--join", token_of(first))
        hosts = [first, *(start(f"h{number}", *SERVES, *join) for number in (1, 2))]
        numbers = count()

        @contextmanager
        def entry() -> Iterator[Daemon]:
            with made(f"c{next(numbers)}", "--client", *join) as node:
                until(partial(has_heard, node), "three hosts to be known", HEARD_S)
                yield node

        yield Three(hosts, entry)


@pytest.mark.rows("RTE-5", "AFF-5")
def test_conversations_stay_where_their_prompt_is_cached(three: Three) -> None:
    """Six at once, five turns each, without a word about sessions: what engines report as cached grows."""

    def converse(entry: Daemon, number: int) -> tuple[set[int], list[int]]:
        messages, places, cached = [{"role": "user", "content": f"{number} {LONG}"}], set(), []
        for turn in range(TURNS):
            reply = entry.request("POST", "/v1/chat/completions", {"model": "tiny", "messages": messages})
            places.add(three.name_of(reply))
            usage = reply.json["usage"]
            cached.append(usage["prompt_tokens_details"]["cached_tokens"])
            answer = reply.json["choices"][0]["message"]["content"]
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": f"and {turn}?"}]
        return places, cached

    with three.entry() as entry, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(partial(converse, entry), range(6)))

    # A host that has more to do than the others may send a conversation away once; its prompt is read anew then.
    assert sum(len(places) - 1 for places, _ in found) <= MOVES, found
    for places, cached in found:
        if len(places) == 1:
            assert cached == sorted(cached), found
            assert cached[-1] > cached[1] > 500, found
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
    with three.entry() as one, three.entry() as other:
        for model in ("tiny", "auto"):
            first, second = ([place(entry, session, model) for session in sessions] for entry in (one, other))
            assert first == second
            assert len(set(first)) > 1


def test_a_burst_spreads_before_hosts_say_that_they_are_busy(three: Three) -> None:
    """Thirty requests in one moment: ten for each, on a busy machine about so; never most of them at one host."""
    with three.entry() as entry, ThreadPoolExecutor(30) as pool:
        replies = list(pool.map(lambda number: entry.chat(f"number {number}"), range(30)))
        assert {reply.status for reply in replies} == {200}, "\n".join(node.log for node in (entry, *three.hosts))

    counts = Counter(three.name_of(reply) for reply in replies)
    assert len(counts) == 3, counts
    assert max(counts.values()) <= 20, counts
