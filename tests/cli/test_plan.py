"""`plan`: where a request would go, as people read it."""

import json

import pytest

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode

EXPLAINED = {
    "model_id": "tiny", "strategy": "cache_aware", "reason": "least_loaded", "picked": "a" * 32, "waits": False,
    "message": None, "code": None,
    "candidates": [
        {"candidate": "a" * 32, "node": "studio", "score": 0.6, "load": 0.25, "predicted_first_token_s": 0.02,
         "recent": 1.5, "health": "healthy", "suspect": False, "over_share": False, "here": True},
        {"candidate": "b" * 32, "node": "attic", "score": 0.5, "load": 0, "predicted_first_token_s": 0.1,
         "recent": 0, "health": "degraded", "suspect": True, "over_share": True, "here": False},
    ],
    "rejected": [{"candidate": "c" * 32, "node": None, "why": "is loading it"}],
    "decisions": [
        {"request_id": "r1", "picked": "b" * 32, "went": "b" * 32, "ok": True, "strategy": "random", "reason": "x"},
        {"request_id": "r2", "picked": "d" * 32, "went": None, "ok": None, "strategy": "random", "reason": "random"},
    ],
}  # fmt: skip


def answers(node: ScriptedNode, **changes: object) -> None:
    """Let the node answer both questions."""
    node.answers["GET /api/explain"] = (200, {**EXPLAINED, **changes})
    node.answers["GET /api/models/tiny"] = (200, {"memory": {"fits": "yes"}})


def test_plan_says_where_why_and_why_not(shell: Shell, node: ScriptedNode) -> None:
    """Line by line, best first."""
    answers(node)

    assert shell("plan", "tiny", "--port", node.port) == 0

    lines = [" ".join(line.split()) for line in shell.out.splitlines()]
    assert lines == [
        "model tiny", "request goes to studio (this node)", "strategy cache_aware, decided by least_loaded",
        "memory: fits yes", "",
        "NODE LOAD FIRST TOKEN LATELY SCORE REMARKS", "studio 25% 20 ms 1.5 a slot 0.60 -",
        "attic 0% 100 ms 0.0 a slot 0.50 degraded, suspect, had more than its share lately", "",
        "NOT BECAUSE", "cccccccc is loading it", "",
        "LAST REQUESTS WENT TO STRATEGY REASON", "r1 attic, answered random x",
        "r2 dddddddd, under way random random",
    ]  # fmt: skip


def test_plan_asks_with_the_context_that_is_needed(shell: Shell, node: ScriptedNode) -> None:
    """And prints the document for programs, the memory with it."""
    answers(node)

    assert shell("plan", "tiny", "--tokens", "9000", "--json", "--port", node.port) == 0

    assert node.asked[0][0] == "GET /api/explain?model=tiny&tokens=9000&count=5"
    assert json.loads(shell.out) == {**EXPLAINED, "memory": {"fits": "yes"}}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"waits": True, "message": "nobody has it loaded"}, "waits: nobody has it loaded"),
        ({"code": "no_capacity", "message": "needs 9 GB"}, "is refused, no_capacity: needs 9 GB"),
    ],
)
def test_plan_says_what_a_request_is_told_that_goes_nowhere(
    shell: Shell, node: ScriptedNode, changes: dict[str, object], line: str
) -> None:
    """In the words that it would be given."""
    answers(node, **changes, candidates=[], rejected=[], decisions=[])

    assert shell("plan", "tiny", "--port", node.port) == 0
    assert line in shell.out


SPLIT = {
    "runs": False, "possible": False, "message": "no split: nobody can", "supposing": "all had it", "host": "a" * 32,
    "shares": [
        {"candidate": "b" * 32, "node": "attic", "is_host": False, "first_layer": 0, "layers": 24,
         "memory_bytes": 12_000_000_000, "rtt_s": 0.0004},
        {"candidate": "a" * 32, "node": "studio", "is_host": True, "first_layer": 24, "layers": 16,
         "memory_bytes": 9_000_000_000, "rtt_s": None},
    ],
    "nodes": [
        {"candidate": "a" * 32, "node": "studio", "lack": "no_rpc", "why": "cannot", "help": None},
        {"candidate": "b" * 32, "node": "attic", "lack": "no_right", "why": "may not", "help": "mesh-llm token"},
    ],
    "token_bytes": 32_768, "token_wait_s": 0.0124, "context_tokens": 4096,
}  # fmt: skip


def test_plan_says_what_a_split_would_be_and_why_there_is_none(shell: Shell, node: ScriptedNode) -> None:
    """Who would take which layers; what is in whose way; and in the node's words that nothing runs it."""
    answers(node, split=SPLIT, candidates=[], rejected=[], decisions=[])

    assert shell("plan", "tiny", "--port", node.port) == 0

    lines = [" ".join(line.split()) for line in shell.out.splitlines()]
    assert lines[4:] == [
        "split no split: nobody can", "split: below what it would be if all had it",
        "split: network 32.8 kB and at least 12 ms a token, with 4096 of context", "",
        "WOULD SHARE LAYERS MEMORY ROUND TRIP", "attic 1 to 24 12.0 GB 0.4 ms",
        "studio (host) 25 to 40, and the output 9.0 GB -", "",
        "NO SPLIT WITH BECAUSE WOULD HELP", "studio cannot -", "attic may not mesh-llm token",
    ]  # fmt: skip


def test_a_host_may_have_the_output_alone(shell: Shell, node: ScriptedNode) -> None:
    """Its memory has room for no layer."""
    host = {**SPLIT["shares"][1], "layers": 0}  # type: ignore[index, dict-item]
    answers(node, split={**SPLIT, "shares": [host], "nodes": [], "supposing": None})

    assert shell("plan", "tiny", "--port", node.port) == 0

    assert "none, and the output" in shell.out
    assert "NO SPLIT WITH" not in shell.out


def test_plan_for_a_model_that_nobody_has_fails(shell: Shell, node: ScriptedNode) -> None:
    """With the node's words."""
    node.answers["GET /api/explain"] = (404, {"error": {"message": "there is no model 'x'"}})

    assert shell("plan", "x", "--port", node.port) == 1
    assert "there is no model 'x'" in shell.err
