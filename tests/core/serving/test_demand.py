"""How much models are asked for, and how that is told."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import DEMAND_HALF_LIFE_S, DEMAND_MODELS
from meshllm.core.serving.demand import Demand, MeshDemand, coarse_count, coarse_rate

M = ModelId("m")


def test_a_steady_stream_of_requests_is_its_own_rate() -> None:
    """Twelve a minute for long enough are twelve a minute."""
    demand = Demand()
    for second in range(0, 3600, 5):
        demand.note(M, 1, float(second))

    assert demand.per_minute(M, 3600.0) == pytest.approx(12.0, rel=0.05)


def test_demand_fades_by_half_in_its_half_life() -> None:
    """What was hot an hour ago is not any more."""
    demand = Demand()
    demand.note(M, 100, 0.0)

    now = demand.per_minute(M, 0.0)
    assert demand.per_minute(M, DEMAND_HALF_LIFE_S) == pytest.approx(now / 2)


def test_what_has_faded_is_forgotten() -> None:
    """Names come and go; a counter for each would stay for ever."""
    demand = Demand()
    demand.note(M, 1, 0.0)

    assert [model for model, _ in demand.told(1.0)] == ["m"]
    assert demand.told(3600.0) == ()
    assert demand.per_minute(M, 3600.0) == 0.0


def test_one_more_request_is_rarely_news() -> None:
    """Each change of what is told is a message to everybody."""
    demand, said = Demand(), set()
    for second in range(600):
        demand.note(M, 1, float(second))
        said.add(demand.told(float(second)))

    assert len(said) < 20


def test_only_the_models_most_asked_for_are_told() -> None:
    """A statement has a size."""
    demand = Demand()
    for number in range(DEMAND_MODELS + 10):
        demand.note(ModelId(f"m{number:03d}"), number + 1, 0.0)

    told = demand.told(0.0)
    assert len(told) == DEMAND_MODELS
    assert ("m000" in dict(told), "m073" in dict(told)) == (False, True)


@given(st.floats(0.2, 1e6))
def test_a_coarse_rate_is_near_the_rate(rate: float) -> None:
    """Ties are broken and hosts added by it."""
    assert coarse_rate(rate) == pytest.approx(rate, rel=0.2)


@pytest.mark.parametrize(("count", "told"), [(0, 0), (7, 7), (99, 99), (100, 100), (129, 120), (12_345, 12_000)])
def test_counts_are_exact_while_they_are_small(count: int, told: int) -> None:
    """People look at the first requests; nobody at the thousandth."""
    assert coarse_count(count) == told


RATES = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1e6)), max_size=3, unique_by=lambda told: told[0])


def heard(parts: list[tuple[str, list[tuple[str, float]]]]) -> MeshDemand:
    """Return the demand of a mesh whose members said this, in this order."""
    demand = MeshDemand()
    for node, told in parts:
        demand.hear(NodeId(node), tuple(told))
        demand.sums()
    return demand


@given(st.lists(st.tuples(st.sampled_from("pqrs"), RATES), max_size=12), st.randoms())
def test_the_sum_is_of_what_members_said_last_in_whatever_order(
    parts: list[tuple[str, list[tuple[str, float]]]], chance: random.Random
) -> None:
    """Nodes with the same view come to the same demand, to the last digit, whatever they heard before."""
    last = list(dict(parts).items())
    chance.shuffle(last)

    sums = heard(parts).sums()

    assert list(sums.items()) == list(heard(last).sums().items())
    assert sums.keys() == {model for _, told in last for model, _ in told}


def test_the_sum_is_the_same_object_while_nobody_tells_another_rate() -> None:
    """A view shows it, and a new view is made only where it differs."""
    demand = heard([("p", [("a", 1.0)]), ("q", [("a", 2.0), ("b", 0.5)])])
    before = demand.sums()

    demand.hear(NodeId("p"), (("a", 1.0),))
    same = demand.sums()
    demand.hear(NodeId("p"), ())

    assert (dict(before), same is before, dict(demand.sums())) == ({"a": 3.0, "b": 0.5}, True, {"a": 2.0, "b": 0.5})
