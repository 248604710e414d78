"""How busy engines are, between what they announce and what was sent since."""

import pytest

from meshllm.core import limits
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.loads import EngineLoad, Loads


def key(name: str) -> tuple[NodeId, ModelId]:
    """Return an engine."""
    return NodeId(name), ModelId("m")


def test_what_was_sent_since_an_announcement_comes_on_top_of_it() -> None:
    """It cannot know; what was sent before it, it counts itself."""
    load = EngineLoad()
    load.begin(0, 0, 0.0)
    load.begin(0, 0, 0.0)

    assert load.in_flight(announced=5, mark=1) == 5
    load.begin(0, 1, 1.0)
    assert load.in_flight(announced=5, mark=1) == 6
    assert load.in_flight(announced=6, mark=2) == 6


def test_what_ended_since_an_announcement_is_taken_off_it() -> None:
    """Never below what this front door itself has there."""
    load = EngineLoad()
    for _ in range(3):
        load.begin(0, 0, 0.0)
    assert load.in_flight(announced=4, mark=1) == 4

    load.end()
    load.end()

    assert load.in_flight(announced=4, mark=1) == 2
    assert load.in_flight(announced=0, mark=2) == 1


def test_prompts_count_as_being_read_until_their_first_byte() -> None:
    """Or until their request is given up."""
    load = EngineLoad()
    load.begin(1000, 0, 0.0)
    load.begin(500, 0, 0.0)

    load.begun(1000, 0.5, 0.5)
    assert load.reading_tokens == 500
    load.gave_up(500)

    assert load.reading_tokens == 0


def test_first_bytes_that_were_seen_long_ago_say_nothing_any_more() -> None:
    """An engine that was slow once is tried again."""
    load = EngineLoad()
    load.begun(0, 0.8, 100.0)

    assert load.first_byte_s == 0.8
    assert 100.0 + 4 * limits.ROUTING_HALF_LIFE_S < load.seen_until_s < 100.0 + 5 * limits.ROUTING_HALF_LIFE_S


def test_speeds_are_of_all_tokens_over_all_seconds() -> None:
    """A long prompt says more about the speed than a short one, and a tiny one nothing."""
    load = EngineLoad()
    load.read(1000, 1.0, 0.0)
    load.read(100, 1.0, 0.0)
    load.read(3, 9.0, 0.0)
    load.read(500, 0.0, 0.0)

    assert load.prefill_tokens_per_s == pytest.approx(550.0)


def test_hits_that_do_not_come_true_cost_trust() -> None:
    """More than expected is no more than right."""
    load = EngineLoad()
    assert load.trust == 1.0

    load.hit(4000, 1000, 0.0)
    assert load.trust == 1.0
    load.hit(0, 1000, 0.0)

    assert load.trust == 0.5


def test_engines_that_are_gone_are_forgotten_when_nothing_is_under_way_there() -> None:
    """A request that is under way has to end somewhere."""
    loads = Loads()
    for name in ("gone", "kept", "working"):
        loads.opened(key(name))
    loads.opened(key("working")).begin(0, 0, 0.0)

    loads.keep([key("kept")])

    assert loads.of(key("gone")) is None
    assert loads.of(key("kept")) is loads.opened(key("kept"))
    assert loads.of(key("working")) is not None


def test_memory_is_bounded() -> None:
    """The idle ones that were used least lately go."""
    loads = Loads(most=16)
    for number in range(100):
        loads.opened(key(f"n{number}")).begin(0, 0, float(number))
        loads.opened(key(f"n{number}")).end()

        assert len(loads) <= 16

    assert loads.of(key("n99")) is not None
    assert loads.of(key("n0")) is None
