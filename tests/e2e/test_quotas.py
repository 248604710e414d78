"""Quotas of a mesh of real daemons: chosen at one, kept by the host, seen at all, and still counted after a restart."""

from collections.abc import Callable

import pytest

from tests.e2e.daemons import Daemon, until
from tests.e2e.test_mesh import token_of

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
HEARD_S = 60.0
"""Counters are told now and then, like loads."""
CHAT = "/v1/chat/completions"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


@pytest.mark.rows("QTA-15")
def test_a_quota_counts_at_every_node_and_outlives_a_restart(daemon: Make) -> None:
    """Requests enter at a node without engines; its host refuses what is above, and has not forgotten it later."""
    with daemon("--model", "tiny", models=("tiny",)) as host:
        host.until_model("tiny", phase="ready")
        with daemon("--join", token_of(host), "--client", models=()) as entry:
            until(lambda: entry.get("/v1/models")["data"], "the entry node knows the model", within_s=HEARD_S)
            done = host.run("quota", "set", "tiny", "daily_request_limit=2", "daily_token_limit=100000")
            assert done.returncode == 0, done.stderr
            until(lambda: entry.get("/quotas/tiny")["version"] == 1, "the entry node hears", within_s=HEARD_S)

            replies = [entry.request("POST", CHAT, BODY) for _ in range(3)]

            assert [reply.status for reply in replies] == [200, 200, 429]
            assert replies[2].error["code"] == "quota_exceeded"
            until(lambda: _used(entry) == _used(host) == 2, "both count the same", within_s=HEARD_S)
            report = entry.get("/quotas/tiny/report")
            assert report["binding"] == "daily_requests"
            assert "2 of 2 requests" in host.run("quota").stdout
    with host:
        host.until_model("tiny", phase="ready")
        assert host.get("/quotas/tiny")["quotas"]["daily_request_limit"] == 2
        assert _used(host) >= 1


def _used(node: Daemon) -> int:
    used: int = node.get("/quotas/tiny/report")["windows"]["daily_requests"]["used"]
    return used
