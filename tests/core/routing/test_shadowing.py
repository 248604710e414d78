"""Which requests are copied, where to, and how both answers compare."""

import pytest

from meshllm.core import limits
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.experiments import Trial
from meshllm.core.routing.ratings import DEGRADED, Candidate
from meshllm.core.routing.shadowing import Shadows, host_of
from meshllm.core.routing_config import Shadow

TENTH = Shadow(of="old", to="new", sample=0.1)
ALL = Shadow(of="old", to="other", sample=1.0)
ORIGINAL = Trial(is_ok=True, took_s=1.0, first_byte_s=0.25, prompt_tokens=10, cached_tokens=5, made_tokens=20)


def a_host(name: str, **changes: object) -> Candidate:
    """Return a host of the model that is tried."""
    return Candidate(node=NodeId(name), model=ModelId("new"), **{"slots": 4} | changes)  # type: ignore[arg-type]


@pytest.mark.rows("EXP-5")
def test_a_share_of_requests_is_copied_in_an_even_sequence() -> None:
    """Each pair by itself; a share of nothing is nothing."""
    shadows = Shadows()
    never = Shadow(of="old", to="never", sample=0.0)

    found = [shadow.to for _ in range(40) for shadow in shadows.due((TENTH, ALL, never), 100)]

    assert (found.count("new"), found.count("other"), found.count("never")) == (4, 40, 0)


@pytest.mark.rows("EXP-5")
def test_only_a_host_with_little_to_do_takes_a_copy() -> None:
    """The one with the least; half of its slots may be taken, and no more."""
    half, three, quick = a_host("a", busy=2), a_host("b", busy=3), a_host("c", busy=1)

    assert host_of([half, three, quick]) is quick
    assert host_of([half, three]) is half
    assert host_of([three, a_host("d", slots=1, busy=1), a_host("e", pressure=0.9)]) is None
    assert host_of([a_host("f", is_suspect=True), a_host("g", health=DEGRADED)]) is None
    assert host_of([]) is None


@pytest.mark.rows("EXP-5")
def test_both_sides_of_what_was_copied_are_compared() -> None:
    """What was dropped counts on neither side."""
    shadows = Shadows()
    copy = Trial(is_ok=False, took_s=3.0, prompt_tokens=10, made_tokens=5)
    for outcome in (copy, None):
        shadows.begun()
        shadows.ended(ALL, ORIGINAL, outcome)
    shadows.dropped(ALL)

    [shown] = shadows.shown()

    assert (shown["of"], shown["to"], shown["copied"], shown["dropped"]) == ("old", "other", 1, 2)
    assert shown["diff"] == {
        "error_rate": 1.0, "avg_first_byte_ms": None, "avg_latency_ms": 2000.0, "completion_tokens": -15,
        "cache_hit_rate": -0.5,
    }  # fmt: skip
    assert shadows.under_way == 0


def test_there_is_an_end_to_copies_and_to_what_is_remembered_of_them() -> None:
    """Too many at once, too large a one, more pairs than may be told of."""
    shadows = Shadows()
    too_large = shadows.due((ALL,), limits.SHADOW_BODY_BYTES + 1)
    taken = 0
    for _ in range(limits.SHADOW_REQUESTS + 2):
        for _due in shadows.due((ALL,), 10):
            shadows.begun()
            taken += 1
    [full] = shadows.shown()
    for number in range(limits.ROUTING_SHADOWS):
        shadows.due((Shadow(of="old", to=f"m{number}", sample=0.5),), 10)

    assert (too_large, taken, full["dropped"]) == ([], limits.SHADOW_REQUESTS, 3)
    assert len(shadows.shown()) == limits.ROUTING_SHADOWS
    assert "other" not in {shown["to"] for shown in shadows.shown()}
