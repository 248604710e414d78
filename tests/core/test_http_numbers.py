"""Answers over HTTP, counted and timed."""

from math import inf

import pytest

from meshllm.core import limits
from meshllm.core.http_numbers import EDGES_S, UNKNOWN_MODEL, HttpNumbers, Timing

CHAT = "/v1/chat/completions"


@pytest.mark.rows("MET-8")
def test_answers_are_counted_by_method_path_model_and_status() -> None:
    """With those that somebody else counted."""
    numbers = HttpNumbers()
    for status in (200, 200, 429):
        numbers.answered("POST", CHAT, "tiny", status, took_s=0.02)

    lane = [(("POST", CHAT, "tiny", 200), 3), (("POST", CHAT, "other", 200), 0)]
    found = numbers.report(lane, {}).requests

    assert found == {("POST", CHAT, "tiny", 200): 5, ("POST", CHAT, "tiny", 429): 1}
    assert dict(numbers.durations[CHAT, "tiny"].steps)[0.025] == 3
    assert numbers.durations[CHAT, "tiny"].sum_s == pytest.approx(0.06)


def test_an_answer_without_a_time_is_counted_alone() -> None:
    """A refusal takes none."""
    numbers = HttpNumbers()

    numbers.answered("GET", "/v1/models", "", 200)

    assert (len(numbers.report((), {}).requests), numbers.durations) == (1, {})


@pytest.mark.rows("MET-8")
def test_streams_say_how_fast_they_are() -> None:
    """As the mean of each; of one event nothing is between."""
    numbers = HttpNumbers()

    numbers.streamed("tiny", 1.0, events=11)
    numbers.streamed("tiny", 1.0, events=1)

    report = numbers.report((), {"tiny": {3: 2}})
    assert report.between_tokens["tiny"].steps[-1] == (inf, 1)
    assert report.between_tokens["tiny"].sum_s == pytest.approx(0.1)
    assert report.first_tokens == {"tiny": {3: 2}}


@pytest.mark.rows("MET-8")
def test_names_are_told_apart_up_to_a_number() -> None:
    """Whatever comes then shares one name, so that nobody fills a collector."""
    numbers = HttpNumbers()

    for number in range(2 * limits.ROUTING_NAMES_COUNTED):
        numbers.answered("POST", CHAT, f"m{number}", 200)

    names = {model for _, _, model, _ in numbers.report((), {}).requests}
    assert len(names) < limits.ROUTING_NAMES_COUNTED
    assert UNKNOWN_MODEL in names


@pytest.mark.parametrize(("took_s", "edge_s"), [(0.0, EDGES_S[0]), (0.05, 0.05), (0.051, 0.1), (1e6, inf)])
def test_a_time_is_counted_up_to_the_end_of_its_step(took_s: float, edge_s: float) -> None:
    """An end belongs to its step; what is longer than all has a step of its own."""
    timing = Timing()

    timing.add(took_s)

    assert next(edge for edge, count in timing.steps if count) == edge_s
