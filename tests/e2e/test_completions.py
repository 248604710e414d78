"""Kept completions with real daemons: an entry node tells again what a host that it asked has said."""

from collections.abc import Callable
from pathlib import Path

import pytest

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
