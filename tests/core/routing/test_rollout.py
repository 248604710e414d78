"""When a new model gets more of the requests, and when none any more."""

import pytest

from meshllm.core import limits
from meshllm.core.ids import ModelId
from meshllm.core.routing.experiments import Figures, Trial, Trials
from meshllm.core.routing.rollout import Rollouts, regression
from meshllm.core.routing_config import DEFAULT, Rollout, patched

OLD, NEW = ModelId("old"), ModelId("new")
STEPS = [["1%", "10m"], ["10%", "1h"], ["100%"]]
ENOUGH = limits.ROLLOUT_REQUESTS


def a_plan(**changes: object) -> Rollout:
    """Return the plan that most tests follow."""
    plan = patched(DEFAULT, {"rollout": {"of": "old", "to": "new", "steps": STEPS} | changes}).rollout
    assert plan is not None
    return plan


def ended(trials: Trials, model: ModelId, count: int, *, is_ok: bool = True, first_byte_s: float = 0.1) -> None:
    """Let some requests of a model end."""
    for _ in range(count):
        trials.ended(model, Trial(is_ok=is_ok, took_s=1.0, first_byte_s=first_byte_s if is_ok else None))


@pytest.mark.rows("EXP-6")
def test_a_new_model_gets_more_with_each_step_and_all_in_the_end() -> None:
    """By the clock, from the first request that the plan was there for."""
    rollouts, trials, plan = Rollouts(), Trials(), a_plan()

    shares = [rollouts.share(plan, (OLD, NEW), trials, 50.0 + at_s) for at_s in (0, 599, 600, 4199, 4200, 1e6)]

    assert shares == [0.01, 0.01, 0.1, 0.1, 1.0, 1.0]
    assert rollouts.shown() == {"of": "old", "to": "new", "step": 3, "steps": 3, "share": 1.0, "halted": None}
    assert [one.message for one in rollouts.taken_news()] == ["rollout began", "rollout goes on", "rollout goes on"]
    assert rollouts.taken_news() == []


@pytest.mark.rows("EXP-6")
@pytest.mark.parametrize(
    ("worse", "reason"),
    [
        ({"is_ok": False}, f"100.0% of {ENOUGH} requests failed, 0.0% of the old model's"),
        ({"first_byte_s": 0.2}, "answers began after 200 ms, the old model's after 100 ms"),
    ],
)
def test_a_new_model_that_does_worse_gets_nothing_more_until_the_plan_changes(
    worse: dict[str, object], reason: str
) -> None:
    """However long it would have gone on."""
    rollouts, trials, plan = Rollouts(), Trials(), a_plan()
    rollouts.share(plan, (OLD, NEW), trials, 0.0)
    ended(trials, OLD, ENOUGH)
    ended(trials, NEW, ENOUGH - 1, **worse)  # type: ignore[arg-type]
    before = rollouts.share(plan, (OLD, NEW), trials, 1.0)

    ended(trials, NEW, 1, **worse)  # type: ignore[arg-type]
    shares = [rollouts.share(plan, (OLD, NEW), trials, at_s) for at_s in (2.0, 1e6)]
    halted = rollouts.shown()
    again = rollouts.share(a_plan(steps=[[0.5]]), (OLD, NEW), trials, 1e6)

    assert (before, shares, again) == (0.01, [0.0, 0.0], 0.5)
    assert halted is not None
    assert (halted["halted"], halted["share"], halted["step"]) == (reason, 0.0, 1)
    assert [(one.level, one.message) for one in rollouts.taken_news()][1] == ("warning", "rollout halted")


def test_a_step_is_judged_by_itself_too() -> None:
    """What was good with few requests does not hide what happens with many; a long past does not count at all."""
    rollouts, trials, plan = Rollouts(), Trials(), a_plan()
    ended(trials, NEW, 500, is_ok=False)
    rollouts.share(plan, (OLD, NEW), trials, 0.0)
    ended(trials, OLD, 1000)
    ended(trials, NEW, 1000)
    first, second = (rollouts.share(plan, (OLD, NEW), trials, at_s) for at_s in (1.0, 600.0))

    ended(trials, NEW, ENOUGH, is_ok=False)

    assert (first, second) == (0.01, 0.1)
    assert rollouts.share(plan, (OLD, NEW), trials, 601.0) == 0.0


def test_who_wants_no_rollout_has_none() -> None:
    """And the next one begins anew."""
    rollouts, trials = Rollouts(), Trials()
    rollouts.share(a_plan(), (OLD, NEW), trials, 0.0)

    rollouts.end()

    assert rollouts.shown() is None
    assert rollouts.share(a_plan(), (OLD, NEW), trials, 5000.0) == 0.01


def test_too_little_seen_is_no_verdict() -> None:
    """Of either model, as far as each matters."""
    few, many = Trials(), Trials()
    ended(few, OLD, ENOUGH - 1, first_byte_s=0.01)
    ended(many, NEW, ENOUGH)

    assert regression(Figures(), few.of(OLD)) == ""
    assert regression(few.of(OLD), many.of(NEW)) == ""
    assert regression(Figures(), many.of(NEW)) == ""
