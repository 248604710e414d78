"""`quota`: what the node is asked, what people are told."""

import json

import pytest

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.quota_config import NO_QUOTAS
from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode

LIMITS = NO_QUOTAS.changed(ModelId("tiny"), {"hourly_token_limit": 1000}, NodeId("me")).shown(ModelId("tiny"), "UTC")
REPORT = {
    "model_id": "tiny", "mode": "soft_limit", "binding": "hourly_tokens",
    "windows": {
        "hourly_tokens": {"used": 850, "limit": 1000, "percent": 85.0, "resets_at": "2026-01-19T09:00:00Z"},
        "hourly_requests": {"used": 3, "limit": None, "percent": 0.0, "resets_at": "2026-01-19T09:00:00Z"},
    },
    "concurrent": {"used": 1, "limit": 4},
}  # fmt: skip


def test_quota_shows_every_model_that_has_some(shell: Shell, node: ScriptedNode) -> None:
    """On stdout: it is data."""
    node.answers["GET /metrics/quotas"] = (200, {"per_model": {"tiny": REPORT}})

    assert shell("quota", "--port", node.port) == 0

    assert "850 of 1000 tokens, 3 requests" in shell.out
    assert "hourly tokens" in shell.out
    assert shell("quota", "--json", "--port", node.port) == 0
    assert json.loads(shell.out) == {"per_model": {"tiny": REPORT}}


def test_quota_says_where_there_is_none(shell: Shell, node: ScriptedNode) -> None:
    """Beside the data."""
    node.answers["GET /metrics/quotas"] = (200, {"per_model": {}})

    assert shell("quota", "--port", node.port) == 0

    assert shell.err == "no model has quotas\n"


def test_show_puts_limits_and_use_together(shell: Shell, node: ScriptedNode) -> None:
    """Names of models may have slashes."""
    node.answers["GET /quotas/a%2Ftiny"] = (200, LIMITS)
    node.answers["GET /quotas/a%2Ftiny/report"] = (200, REPORT)

    assert shell("quota", "show", "a/tiny", "--port", node.port) == 0

    assert "85.0 %" in shell.out
    assert "no limit" in shell.out
    assert shell("quota", "show", "a/tiny", "--json", "--port", node.port) == 0
    assert json.loads(shell.out) == {**LIMITS, "report": REPORT}


def test_set_sends_what_was_said_and_no_more(shell: Shell, node: ScriptedNode) -> None:
    """Values are JSON where they can be."""
    node.answers["POST /quotas/tiny"] = (200, LIMITS)

    words = ("quota", "set", "tiny", "hourly_token_limit=1000", "on_limit=queue", "daily_token_limit=null")
    assert shell(*words, "--port", node.port) == 0

    assert node.bodies("POST /quotas/tiny") == [
        {"hourly_token_limit": 1000, "on_limit": "queue", "daily_token_limit": None}
    ]
    assert shell.err == "done: the quotas of tiny, version 1\n"
    assert shell(*words, "--json", "--port", node.port) == 0
    assert json.loads(shell.out) == LIMITS


@pytest.mark.parametrize("words", [("set", "tiny", "x"), ("--json", "show", "tiny")])
def test_a_mistake_is_refused_before_anything_is_asked(
    shell: Shell, node: ScriptedNode, words: tuple[str, ...]
) -> None:  # fmt: skip
    """With exit code 2."""
    assert shell("quota", *words, "--port", node.port) == 2
    assert node.asked == []
