"""Why requests went where they went, for as long as it is remembered."""

from typing import Any

from meshllm.core import limits
from meshllm.core.ids import ModelId
from meshllm.core.routing.explain import Amount, Decision, Decisions, shown
from meshllm.core.routing.strategies import Rejected
from meshllm.core.routing_config import Strategy
from tests.core.routing.routed import a_rating


def a_decision(number: int = 1, model: str = "m") -> Decision:
    """Return a choice between two."""
    return Decision(
        request_id=f"r{number}", model=ModelId(model), at_s=float(number), strategy=Strategy.CACHE_AWARE,
        reason=Strategy.LEAST_LOADED, ratings=(a_rating("a", load=0.25, hit_share=0.5), a_rating("b")),
        rejected=(Rejected(name="c", why="unhealthy"),),
    )  # fmt: skip


def test_a_decision_shows_every_candidate_and_what_became_of_it() -> None:
    """Who asks sees what spoke for each."""
    decisions = Decisions()
    kept = decisions.add(a_decision(), took_s=0.0000421)
    before = shown(kept)
    kept.sent("a", 0.001)
    kept.came_back("a", "lost")
    kept.sent("b", 0.2)
    kept.went, kept.is_ok, kept.first_byte_s = "b", True, 0.25
    kept.amount = Amount(prompt_tokens=100, cached_tokens=60, made_tokens=5, wrote_s=0.25)

    document: Any = shown(kept)

    assert (before["went"], before["ok"], before["first_byte_s"], before["usage"]) == (None, None, None, None)
    assert {name: value for name, value in document.items() if name != "candidates"} == {
        "request_id": "r1", "model_id": "m", "at_s": 1.0, "strategy": "cache_aware", "reason": "least_loaded",
        "picked": "a", "rebound": False, "routing_time_us": 42.1,
        "rejected": [{"candidate": "c", "why": "unhealthy"}], "went": "b", "ok": True, "first_byte_s": 0.25,
        "attempts": [
            {"candidate": "a", "after_s": 0.001, "setback": "lost"},
            {"candidate": "b", "after_s": 0.2, "setback": None},
        ],
        "usage": {"prompt_tokens": 100, "cached_tokens": 60, "completion_tokens": 5, "tokens_per_s": 20.0},
    }  # fmt: skip
    assert document["candidates"][0] == {
        "candidate": "a", "score": 0.6, "load": 0.25, "cache_hit": 0.5, "predicted_first_token_s": 0.0,
        "queue_wait_s": 0.0, "first_byte_s": None, "recent": 0.0, "over_share": False, "suspect": False, "here": False,
        "health": "healthy",
    }  # fmt: skip


def test_the_first_attempts_are_remembered_and_a_setback_belongs_to_its_own() -> None:
    """A request that wanders takes no more memory than others."""
    kept = Decisions().add(a_decision(), took_s=0.0)

    kept.came_back("a", "lost")
    for number in range(100):
        kept.sent(f"n{number}", float(number))
    kept.came_back("n99", "lost")

    assert [one.node for one in kept.attempts] == [f"n{number}" for number in range(limits.ATTEMPTS_SHOWN)]
    assert not any(one.setback for one in kept.attempts)


def test_the_newest_thousand_are_kept() -> None:
    """Newest first, of one model or of all."""
    decisions = Decisions()
    for number in range(1500):
        decisions.add(a_decision(number, "even" if number % 2 == 0 else "odd"), 0.0)

    newest = [kept.decision.request_id for kept in decisions.newest(ModelId("even"), most=3)]

    assert len(decisions) == 1000
    assert newest == ["r1498", "r1496", "r1494"]
    assert sum(1 for _ in decisions.newest()) == 1000


def test_a_decision_without_candidates_picked_nobody() -> None:
    """All were unhealthy."""
    assert Decision(
        request_id="", model=ModelId("m"), at_s=0.0, strategy=Strategy.RANDOM, reason="random", ratings=()
    ).picked == ""  # fmt: skip
