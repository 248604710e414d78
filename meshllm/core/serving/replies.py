"""Effects that tell somebody something: answers to intents, lines for the log."""

from collections.abc import Iterable

from meshllm.core.effects import Answer, Effect, Level, Notify
from meshllm.core.intents import Intent, Outcome, OutcomeCode

Effects = list[Effect]


def taken(waiters: list[str]) -> list[str]:
    """Return what is in a list and leave it empty."""
    taken = list(waiters)
    waiters.clear()
    return taken


def answers(request_ids: Iterable[str], outcome: Outcome) -> Effects:
    """Give one outcome to everybody who waits for it."""
    return [Answer(request_id=request_id, outcome=outcome) for request_id in request_ids]


def answer(intent: Intent, code: OutcomeCode, message: str, model: str = "") -> Effect:
    """Give an intent its outcome."""
    return Answer(request_id=intent.request_id, outcome=Outcome(code=code, message=message, model=model))


def notice(level: Level, message: str, **fields: str | float) -> Notify:
    """Make a log line."""
    return Notify(level=level, message=message, fields=tuple(fields.items()))
