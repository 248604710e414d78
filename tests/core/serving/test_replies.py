"""Everybody who waits is told, once."""

from meshllm.core.effects import Answer, Level
from meshllm.core.intents import Outcome, OutcomeCode
from meshllm.core.serving.replies import answers, notice, taken

DONE = Outcome(code=OutcomeCode.DONE, message="done")


def test_waiters_are_told_once() -> None:
    """Taking empties the list, so a second end of the same thing tells nobody."""
    waiters = ["a", "b"]

    first, second = answers(taken(waiters), DONE), answers(taken(waiters), DONE)

    assert first == [Answer(request_id="a", outcome=DONE), Answer(request_id="b", outcome=DONE)]
    assert second == []


def test_a_log_line_keeps_the_order_of_its_fields() -> None:
    """The model first, as people read it."""
    assert notice(Level.INFO, "x", model="m", load_s=1.0).fields == (("model", "m"), ("load_s", 1.0))
