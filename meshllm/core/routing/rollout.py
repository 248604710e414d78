"""How far a new model is on its way to taking over from an old one: by steps, halted when it does worse.

Owns the step that a rollout is at, and the figures that it is judged by. Decides when the next step begins and when the
new model gets nothing more. Doesn't know which requests there are, nor their sessions; what came of them is counted in
`experiments`. Pure, with the time as an argument.

Invariant: a rollout that was halted stays so until somebody changes it.
"""

from dataclasses import dataclass, field
from itertools import accumulate

from meshllm.core import limits
from meshllm.core.effects import Level, Notify
from meshllm.core.ids import ModelId
from meshllm.core.routing.experiments import Figures, Trials
from meshllm.core.routing_config import Rollout
from meshllm.core.serving.replies import notice


@dataclass(slots=True)
class _Course:
    """One rollout under way."""

    plan: Rollout
    old: ModelId
    new: ModelId
    began_s: float
    began: tuple[Figures, Figures]
    """Of both models, as they were then."""
    step: int = 0
    at_step: tuple[Figures, Figures] = field(default_factory=lambda: (Figures(), Figures()))
    """The same, when this step began."""
    judged: int = -1
    """How many requests of the new model had ended when it was looked at last."""
    halted: str = ""
    """Why the new model gets nothing more; empty while it does."""

    @property
    def share(self) -> float:
        """Return what the new model gets."""
        return 0.0 if self.halted else self.plan.steps[self.step][0]


class Rollouts:
    """The rollout of one front door."""

    def __init__(self) -> None:
        """Start without one."""
        self._course: _Course | None = None
        self._news: list[Notify] = []

    def share(self, plan: Rollout, models: tuple[ModelId, ModelId], trials: Trials, now_s: float) -> float:
        """Return which part of the requests the new one of two models gets now; 0 once it was halted.

        Another plan, or names that mean other models than before, begin with the first step.
        """
        course = self._course
        if course is None or course.plan != plan or (course.old, course.new) != models:
            figures = _both(models, trials)
            course = self._course = _Course(plan, *models, now_s, figures, at_step=figures)
            self._say(Level.INFO, "rollout began", course)
        if not course.halted:
            self._judge(course, trials)
            self._advance(course, trials, now_s)
        return course.share

    def end(self) -> None:
        """Forget the rollout: nobody wants one any more."""
        self._course = None

    def shown(self) -> dict[str, object] | None:
        """Return how far it is, as a document; None without one."""
        course = self._course
        if course is None:
            return None
        return {
            "of": course.plan.of, "to": course.plan.to, "step": course.step + 1, "steps": len(course.plan.steps),
            "share": course.share, "halted": course.halted or None,
        }  # fmt: skip

    def taken_news(self) -> list[Notify]:
        """Return what is to be logged, once."""
        news, self._news = self._news, []
        return news

    def _judge(self, course: _Course, trials: Trials) -> None:
        """Halt where the new model does worse than the old one: in this step, or in all of them together."""
        old, new = _both((course.old, course.new), trials)
        if new.requests == course.judged:
            return
        course.judged = new.requests
        before = old.since(course.began[0])
        for since in (course.at_step[1], course.began[1]):
            course.halted = regression(before, new.since(since))
            if course.halted:
                self._say(Level.WARNING, "rollout halted", course)
                return

    def _advance(self, course: _Course, trials: Trials, now_s: float) -> None:
        """Go to the step whose time it is."""
        ends = accumulate(seconds for _, seconds in course.plan.steps[:-1])
        step = sum(now_s - course.began_s >= end_s for end_s in ends)
        if step != course.step and not course.halted:
            course.step, course.at_step = step, _both((course.old, course.new), trials)
            self._say(Level.INFO, "rollout goes on", course)

    def _say(self, level: Level, message: str, course: _Course) -> None:
        fields: dict[str, str | float] = {
            "of": course.old, "to": course.new, "step": course.step + 1, "share": course.share
        }  # fmt: skip
        if course.halted:
            fields["reason"] = course.halted
        self._news.append(notice(level, message, **fields))


def regression(old: Figures, new: Figures) -> str:
    """Return why a new model is worse than an old one, in words; empty while it is not, or too little was seen.

    Errors count against what the old one has, also where that answered nothing; how soon answers begin only where
    enough of both was seen.
    """
    if new.requests < limits.ROLLOUT_REQUESTS:
        return ""
    if new.error_share > old.error_share + limits.ROLLOUT_MORE_ERRORS:
        return f"{new.error_share:.1%} of {new.requests} requests failed, {old.error_share:.1%} of the old model's"
    was_s, is_s = old.mean_first_byte_s, new.mean_first_byte_s
    if was_s is None or is_s is None or old.first_bytes < limits.ROLLOUT_REQUESTS:
        return ""
    if is_s > was_s * limits.ROLLOUT_SLOWER:
        return f"answers began after {is_s * 1000:.0f} ms, the old model's after {was_s * 1000:.0f} ms"
    return ""


def _both(models: tuple[ModelId, ModelId], trials: Trials) -> tuple[Figures, Figures]:
    old, new = models
    return trials.of(old), trials.of(new)
