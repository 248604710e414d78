"""When a model gets another host, when it loses one, and what makes room."""

from collections.abc import Callable

from meshllm.core.caches.victims import Occupant
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import COOL_PER_SLOT, COOL_S, HOT_PER_SLOT, HOT_S
from meshllm.core.serving.rebalance import Heat, Load, may_go, victims

M = ModelId("m")


def a_load(per_slot: float, slots: int = 4, **changes: int) -> Load:
    """Return so many requests a minute for each slot."""
    return Load(per_minute=per_slot * slots, slots=slots, **changes)


def test_a_model_is_hot_when_it_has_been_for_a_while() -> None:
    """A burst is none."""
    heat = Heat()

    heat.look({M: a_load(HOT_PER_SLOT + 1)}, {}, 0.0)
    early = heat.hot(HOT_S - 1)

    assert (early, heat.hot(HOT_S), heat.next_s(0.0)) == (frozenset(), {M}, HOT_S)


def test_a_burst_that_ends_makes_nothing_hot() -> None:
    """The clock begins anew."""
    heat = Heat()
    for now_s, load in ((0.0, HOT_PER_SLOT + 1), (20.0, HOT_PER_SLOT - 1), (25.0, HOT_PER_SLOT + 1)):
        heat.look({M: a_load(load)}, {}, now_s)

    assert heat.hot(HOT_S) == frozenset()


def test_after_a_host_was_added_the_clock_begins_anew() -> None:
    """It has to show first whether that was enough."""
    heat = Heat()
    heat.look({M: a_load(3 * HOT_PER_SLOT, slots=4)}, {}, 0.0)
    heat.look({M: a_load(1.5 * HOT_PER_SLOT, slots=8)}, {}, HOT_S + 1)

    assert heat.hot(HOT_S + 2) == frozenset()
    assert heat.hot(2 * HOT_S + 1) == {M}


def test_a_queue_as_long_as_the_slots_is_heat() -> None:
    """Slow answers make few requests a minute, and long queues."""
    heat = Heat()
    heat.look({M: a_load(1, busy=4, queued=4)}, {}, 0.0)

    assert heat.hot(HOT_S) == {M}


def test_an_added_host_goes_only_after_a_long_calm() -> None:
    """And only where the others could easily do it all."""
    heat, spare = Heat(), {M: 4}
    heat.look({M: a_load(COOL_PER_SLOT / 4, slots=8)}, spare, 0.0)

    assert heat.cool(COOL_S - 1) == frozenset()
    assert heat.cool(COOL_S) == {M}
    heat.look({M: a_load(HOT_PER_SLOT / 2, slots=8)}, spare, COOL_S)
    assert heat.cool(2 * COOL_S) == frozenset()


def test_no_load_is_both_hot_with_a_host_and_cool_without_it() -> None:
    """Hysteresis: adding a host and taking it away again cannot follow from one load."""
    for slots in (1, 2, 4, 8):
        for more in (1, 2, 4, 8):
            for per_minute in range(0, 1000, 7):
                is_hot = Load(per_minute=per_minute, slots=slots).is_high
                is_cool = Load(per_minute=per_minute, slots=slots + more).is_low_without(more)
                assert not (is_hot and is_cool)


def test_what_is_served_no_more_is_forgotten() -> None:
    """Models come and go."""
    heat = Heat()
    heat.look({M: a_load(HOT_PER_SLOT + 1)}, {}, 0.0)

    heat.look({}, {}, 1.0)

    assert (heat.hot(HOT_S), heat.next_s(2.0)) == (frozenset(), None)


def test_hosts_never_fall_below_the_floor_although_all_want_to_go() -> None:
    """All decide at the same moment, by the same rule."""
    ready = [NodeId(f"n{number}") for number in range(5)]
    for floor in range(6):
        staying = [node for node in ready if not may_go(node, ready, M, floor)]

        assert len(staying) == min(floor, 5)


def enough(*needed: str) -> Callable[[frozenset[ModelId]], bool]:
    """Return a test for whether certain models are gone."""
    return lambda gone: set(map(ModelId, needed)) <= gone


def test_what_was_used_longest_ago_goes_first() -> None:
    """And no more than it takes."""
    occupants = [
        Occupant(model=ModelId(model), last_used_s=used) for model, used in (("a", 3.0), ("b", 1.0), ("c", 2.0))
    ]

    assert victims(occupants, lambda gone: len(gone) >= 2) == ("b", "c")
    assert victims(occupants, lambda gone: True) == ()
    assert victims(occupants, lambda gone: len(gone) >= 4) is None


def test_what_turns_out_not_to_be_in_the_way_stays() -> None:
    """Small ones that were picked early."""
    occupants = [Occupant(model=ModelId(model), last_used_s=used) for model, used in (("small", 1.0), ("large", 2.0))]

    assert victims(occupants, enough("large")) == ("large",)
