"""Kept completions with real daemons: an entry node tells again what a host has said, to it or to another one."""

import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from meshllm.core.cache_limits import COMPLETION_SHARED_BYTES
from tests.e2e.daemons import Daemon, Reply, until
from tests.e2e.test_mesh import node_id, token_of, until_listed

pytestmark = pytest.mark.e2e
Make = Callable[..., Daemon]


def cached(reply: Reply) -> tuple[int, str | None]:
    """Return the status of an answer and what it says of memory."""
    return reply.status, reply.headers.get("x-cache")


@pytest.mark.rows("CAC-8", "CAC-10", "T28")
def test_a_host_is_asked_once_for_what_leaves_nothing_to_chance(daemon: Make, tmp_path: Path) -> None:
    """The entry node keeps it, also as a stream, and tells it while the host's engine runs as it did."""
    config = tmp_path / "c.toml"
    config.write_text('[cache]\ncompletions = "on"\n', encoding="utf-8")
    with (
        daemon("--model", "tiny") as host,
        daemon("--join", token_of(host), "--config", str(config), models=()) as entry,
    ):
        until_listed(entry, "tiny")

        def keeps() -> bool:
            return cached(entry.chat("warm", seed=1)) == (200, "hit")

        until(keeps, "the host's recipe to be known at the entry node")
        first, second = entry.chat("a", temperature=0), entry.chat("a", temperature=0)
        streams = [entry.chat("b", seed=3, stream=True) for _ in range(2)]
        sampled = [entry.chat("c") for _ in range(2)]
        at_host = [host.chat("a", temperature=0) for _ in range(2)]

        assert [cached(reply) for reply in (first, second)] == [(200, None), (200, "hit")]
        assert second.json == first.json | {"cached": True}
        assert (first.headers["x-mesh-node"], second.headers["x-mesh-node"]) == (node_id(host), node_id(entry))
        assert [cached(reply) for reply in streams] == [(200, None), (200, "hit")]
        assert streams[1].text == streams[0].text
        assert streams[1].events[-1] == streams[0].events[-1]
        assert [cached(reply) for reply in (*sampled, *at_host)] == [(200, None)] * 4

        changed = entry.request("POST", "/cache/allocation", {"completions": "off"})
        off = [entry.chat("a", temperature=0) for _ in range(2)]

        assert changed.status == 200
        assert entry.get("/cache/allocation")["completions"] == "off"
        assert [cached(reply) for reply in off] == [(200, None)] * 2


# -- at their owners -----------------------------------------------------------------------------------


def counted(node: Daemon, name: str) -> float:
    """Return what a node counted of kept answers."""
    lines = node.request("GET", "/metrics").body.decode().splitlines()
    found = [line.split()[1] for line in lines if line.startswith(f"meshllm_completion_cache_{name}")]
    return float(found[0]) if found else 0.0


def keeps(tmp_path: Path) -> str:
    """Return a configuration that keeps answers."""
    config = tmp_path / "keeps.toml"
    config.write_text('[cache]\ncompletions = "on"\n', encoding="utf-8")
    return str(config)


def owner_of(reply: Reply) -> str | None:
    """Return at which other node an answer was found."""
    return reply.headers.get("x-cache-owner")


def until_found(entry: Daemon, giver: Daemon, owner: Daemon, what: str) -> None:
    """Let one node be given answers until another one finds one at their owner; a busy machine may be late for some."""
    texts = (f"{what} {number}" for number in count())

    def is_found() -> bool:
        text = next(texts)
        taken = counted(owner, "taken")
        first = giver.chat(text, temperature=0)
        assert cached(first) == (200, None)
        if owner is not giver:
            until(lambda: counted(owner, "taken") > taken or counted(giver, "unsent") > 0, "the answer at its owner")
        second = entry.chat(text, temperature=0)
        assert second.status == 200
        if owner_of(second) is None:
            return False
        assert second.json == first.json | {"cached": True}
        assert (owner_of(second), cached(second)) == (node_id(owner), (200, "hit"))
        return True

    until(is_found, "an answer at its owner")


@pytest.mark.rows("CAC-9")
def test_what_one_entry_node_was_told_another_finds_at_its_owner(daemon: Make, tmp_path: Path) -> None:
    """Two clients and a node that owns all; whoever may not host finds answers there and leaves none."""
    with (
        daemon("--model", "tiny", "--config", keeps(tmp_path)) as owner,
        daemon("--client", "--join", token_of(owner), "--config", keeps(tmp_path), models=()) as left,
        daemon(
            "--client", "--join", token_of(owner, "--client-only"), "--config", keeps(tmp_path), models=()
        ) as right,
    ):  # fmt: skip
        until_listed(left, "tiny")
        until_listed(right, "tiny")

        until_found(left, owner, owner, "of the owner's own clients")
        until_found(right, left, owner, "of another entry node")
        taken, unsent = counted(owner, "taken"), counted(right, "unsent")
        alone = right.chat("only there", temperature=0)
        until(lambda: counted(right, "unsent") > unsent, "the owner to refuse it")
        again = [right.chat("only there", temperature=0), left.chat("only there", temperature=0)]
        streams = [left.chat("long", temperature=0, stream=True, max_tokens=3000) for _ in range(2)]

        assert [cached(reply) for reply in (alone, *again)] == [(200, None), (200, "hit"), (200, None)]
        assert owner_of(again[0]) is None
        assert [cached(reply) for reply in streams] == [(200, None), (200, "hit")]
        assert len(streams[0].body) > COMPLETION_SHARED_BYTES
        assert (
            counted(owner, "taken") <= taken + 1
        )  # what `left` was told of the same; nothing large, nothing of `right`


@pytest.mark.rows("CAC-9")
def test_an_owner_that_stands_still_or_is_gone_costs_no_answer(daemon: Make, tmp_path: Path) -> None:
    """A request waits for it as long as a lookup may take, and the next ones not at all."""
    with (
        daemon("--model", "tiny") as host,
        daemon("--join", token_of(host), "--config", keeps(tmp_path), "--assign", "off", models=()) as owner,
        daemon("--client", "--join", token_of(host), "--config", keeps(tmp_path), models=()) as entry,
        daemon("--client", "--join", token_of(host), "--config", keeps(tmp_path), models=()) as other,
    ):
        for node in (entry, other):
            until_listed(node, "tiny")
        until_listed(owner, "tiny")
        until_found(other, entry, owner, "before")
        asked, texts = counted(entry, "owner_misses"), count()

        def is_heard() -> bool:
            entry.chat(f"something else {next(texts)}", temperature=0)
            return counted(entry, "owner_misses") > asked

        until(is_heard, "a lookup in time")
        failures = counted(entry, "owner_failures")

        owner.signal(signal.SIGSTOP)
        slow = [entry.chat(f"while it stands {number}", temperature=0) for number in range(3)]
        still = counted(entry, "owner_failures") - failures
        owner.process.kill()
        gone = [entry.chat(f"after it was killed {number}", temperature=0) for number in range(3)]

        assert [cached(reply) for reply in (*slow, *gone)] == [(200, None)] * 6
        assert {reply.headers["x-mesh-node"] for reply in (*slow, *gone)} == {node_id(host)}
        assert still >= 1
        assert cached(entry.chat("while it stands 0", temperature=0)) == (200, "hit")
