"""The eight strategies, each by the rule that people know it by."""

import random
from collections import Counter

import pytest

from meshllm.core.routing.ratings import Rating
from meshllm.core.routing.strategies import AFFINITY, Occasion, fit, order
from meshllm.core.routing_config import DEFAULT, RoutingConfig, Strategy, patched
from tests.core.routing.routed import a_candidate, a_rating, an_occasion

HIT = 0.9


def names(ratings: list[Rating], strategy: Strategy, occasion: Occasion | None = None) -> list[str]:
    """Return the order in which candidates are tried."""
    return [rating.name for rating in order(ratings, strategy, occasion or an_occasion())[0]]


def reason(ratings: list[Rating], strategy: Strategy, occasion: Occasion | None = None) -> str:
    """Return the rule that decided."""
    return order(ratings, strategy, occasion or an_occasion())[1]


def idle(*of: str) -> list[Rating]:
    """Return ratings of idle engines."""
    return [a_rating(name) for name in of]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_every_candidate_is_tried_once_and_suspects_last(strategy: Strategy) -> None:
    """Whatever the strategy, at whatever chance."""
    suspect = a_rating("a", candidate={"is_suspect": True}, hit_share=1.0, predicted_s=0.0)

    for seed in range(20):
        tried = names([suspect, *idle("b", "c")], strategy, an_occasion(seed=seed, session="s", turn=seed))

        assert sorted(tried) == ["a", "b", "c"]
        assert tried[-1] == "a"


@pytest.mark.parametrize("strategy", list(Strategy))
def test_one_candidate_or_none_needs_no_strategy(strategy: Strategy) -> None:
    """The common case costs nothing."""
    assert names(idle("a"), strategy) == ["a"]
    assert names([], strategy) == []


def test_round_robin_takes_turns_over_a_sorted_list() -> None:
    """Three hundred requests on three are a hundred each."""
    counts = Counter(names(idle("c", "a", "b"), Strategy.ROUND_ROBIN, an_occasion(turn=turn))[0] for turn in range(300))

    assert counts == {"a": 100, "b": 100, "c": 100}
    assert names(idle("c", "a", "b"), Strategy.ROUND_ROBIN, an_occasion(turn=1)) == ["b", "c", "a"]


@pytest.mark.rows("RTE-4")
def test_least_loaded_takes_the_least_loaded() -> None:
    """Above the threshold only when all are."""
    ratings = [a_rating("a", load=0.5), a_rating("b", load=0.9), a_rating("c", load=0.1)]

    assert names(ratings, Strategy.LEAST_LOADED) == ["c", "a", "b"]
    low = an_occasion(patched(DEFAULT, {"max_load_threshold": 0.3}))
    assert names([a_rating("a", load=0.9), a_rating("b", load=0.5)], Strategy.LEAST_LOADED, low) == ["b", "a"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (a_rating("z", candidate={"is_here": True}), a_rating("a")),
        (a_rating("a", recent=9.0, is_over=False), a_rating("b", is_over=True, candidate={"is_here": True})),
        (a_rating("b", recent=0.0), a_rating("a", recent=1.0)),
        (a_rating("b", candidate={"rtt_s": 0.001}), a_rating("a", candidate={"rtt_s": 0.1})),
        (a_rating("a"), a_rating("b")),
    ],
    ids=["here", "unless it had too much", "who had less", "near", "by name"],
)
def test_among_equals(first: Rating, second: Rating) -> None:
    """This node's own engine, the one that had less, the near one."""
    assert names([second, first], Strategy.LEAST_LOADED) == [first.name, second.name]


def test_cache_aware_takes_who_answers_soonest() -> None:
    """A cached prompt is worth the wait for it that is shorter than reading it anew."""
    cached = a_rating("a", hit_share=HIT, predicted_s=0.2)

    assert names([*idle("b"), cached], Strategy.CACHE_AWARE)[0] == "b"  # nothing to read there at all
    slow = a_rating("b", predicted_s=1.0)
    assert names([slow, cached], Strategy.CACHE_AWARE) == ["a", "b"]
    waits = cached._replace(predicted_s=3.0, load=2.0)
    assert names([slow, waits], Strategy.CACHE_AWARE) == ["b", "a"]


def test_below_the_least_hit_rate_load_decides() -> None:
    """A little of a prompt is no reason to go anywhere."""
    ratings = [a_rating("a", hit_share=0.29, predicted_s=0.1, load=0.5), a_rating("b", predicted_s=0.2)]

    assert names(ratings, Strategy.CACHE_AWARE) == ["b", "a"]
    assert reason(ratings, Strategy.CACHE_AWARE) == Strategy.LEAST_LOADED
    low = an_occasion(patched(DEFAULT, {"min_cache_hit_rate": 0.2}))
    assert names(ratings, Strategy.CACHE_AWARE, low) == ["a", "b"]
    assert reason(ratings, Strategy.CACHE_AWARE, low) == Strategy.CACHE_AWARE


def test_predictions_that_are_about_the_same_leave_it_to_load() -> None:
    """A few milliseconds of prediction are noise; a request that runs there is not."""
    quick = a_rating("a", hit_share=HIT, predicted_s=1.0, load=0.5)
    free = a_rating("b", hit_share=HIT, predicted_s=1.05)

    assert names([quick, free], Strategy.CACHE_AWARE) == ["b", "a"]


def test_a_new_conversation_goes_to_nobody_who_had_more_than_its_share() -> None:
    """Its prompt is read elsewhere once, and then is there too."""
    full = a_rating("a", hit_share=HIT, predicted_s=0.1, is_over=True)
    other = a_rating("b", predicted_s=2.0)

    assert names([full, other], Strategy.CACHE_AWARE) == ["b", "a"]
    assert names([full, other], Strategy.CACHE_AWARE, an_occasion(is_first=False)) == ["a", "b"]


def test_a_conversation_leaves_a_host_that_had_too_much_and_still_has_more_than_others() -> None:
    """As long as nothing else runs there it stays."""
    full = a_rating("a", hit_share=HIT, predicted_s=0.1, is_over=True, load=0.5)
    other = a_rating("b", predicted_s=2.0)

    assert names([full, other], Strategy.CACHE_AWARE, an_occasion(is_first=False)) == ["b", "a"]


def test_quota_aware_keeps_away_from_limits() -> None:
    """Most left first; ninety per cent used only when all are; not at all when checks are off."""
    ratings = [a_rating(name, candidate={"quota_left": left}) for name, left in (("a", 0.05), ("b", 0.5), ("c", 0.9))]

    assert names(ratings, Strategy.QUOTA_AWARE) == ["c", "b", "a"]
    off = an_occasion(patched(DEFAULT, {"enable_quota_checks": False}))
    assert names(ratings, Strategy.QUOTA_AWARE, off) == ["a", "b", "c"]


@pytest.mark.rows("RTE-7")
def test_random_is_even_over_many() -> None:
    """And the same seed gives the same picks."""
    rng = random.Random(1)
    counts = Counter(names(idle("a", "b", "c"), Strategy.RANDOM, an_occasion_with(rng))[0] for _ in range(3000))

    assert all(900 < count < 1100 for count in counts.values())
    first, second = (names(idle("a", "b", "c"), Strategy.RANDOM, an_occasion(seed=7)) for _ in range(2))
    assert first == second


def an_occasion_with(rng: random.Random, config: RoutingConfig = DEFAULT) -> Occasion:
    """Return an occasion that draws from a source that goes on."""
    return Occasion(config=config, rng=rng)


@pytest.mark.rows("RTE-8")
def test_weighted_random_keeps_to_weights() -> None:
    """Who has none beside others that have some is the last resort."""
    config = patched(DEFAULT, {"weights": {"a": 7, "b": 3}})
    rng = random.Random(1)
    tried = [names(idle("a", "b", "c"), Strategy.WEIGHTED_RANDOM, an_occasion_with(rng, config)) for _ in range(5000)]

    counts = Counter(one[0] for one in tried)

    assert 0.68 < counts["a"] / 5000 < 0.72
    assert {one[-1] for one in tried} == {"c"}


@pytest.mark.rows("RTE-8")
def test_weighted_random_without_weights_goes_by_score() -> None:
    """Twice the score, twice the requests."""
    ratings, rng = [a_rating("a", score=0.6), a_rating("b", score=0.3), a_rating("c", score=0.0)], random.Random(1)

    counts = Counter(names(ratings, Strategy.WEIGHTED_RANDOM, an_occasion_with(rng))[0] for _ in range(3000))

    assert 0.64 < counts["a"] / 3000 < 0.69
    assert counts["c"] == 0


def test_latency_based_takes_the_quick_one_and_looks_at_the_other_now_and_then() -> None:
    """Two hundred milliseconds more: at least nine of ten go to the quick one, and some do not."""
    ratings, rng = [a_rating("slow", first_byte_s=0.25), a_rating("quick", first_byte_s=0.05)], random.Random(1)

    counts = Counter(names(ratings, Strategy.LATENCY_BASED, an_occasion_with(rng))[0] for _ in range(2000))

    assert 0.9 <= counts["quick"] / 2000 < 1.0
    assert counts["slow"] > 40


def test_latency_based_counts_the_queue_and_tries_who_was_not_seen() -> None:
    """Who was not seen lately is tried when it is idle, and taken for quick otherwise."""
    quick, full = a_rating("quick", first_byte_s=0.1), a_rating("full", first_byte_s=0.05, wait_s=1.0)
    calm = an_occasion_with(Never())

    assert names([full, quick], Strategy.LATENCY_BASED, calm) == ["quick", "full"]
    assert names([quick, a_rating("unseen")], Strategy.LATENCY_BASED, calm) == ["unseen", "quick"]
    tried = a_rating("unseen", load=0.25)
    assert names([tried, quick], Strategy.LATENCY_BASED, calm) == ["quick", "unseen"]


class Never(random.Random):
    """Never looks elsewhere."""

    def random(self) -> float:
        """Return the largest number there is."""
        return 1.0 - 2**-53


def test_affinity_based_gives_a_session_its_host_and_others_the_least_loaded() -> None:
    """The same one whatever the loads, below the bound."""
    ratings = [a_rating("a", load=0.5), a_rating("b"), a_rating("c", load=0.25)]

    firsts = {names(ratings, Strategy.AFFINITY_BASED, an_occasion(session=f"s{number}"))[0] for number in range(50)}

    assert firsts == {"a", "b", "c"}
    assert reason(ratings, Strategy.AFFINITY_BASED, an_occasion(session="s")) == AFFINITY
    assert names(ratings, Strategy.AFFINITY_BASED) == ["b", "c", "a"]


def test_unhealthy_hosts_are_left_out_unless_nobody_checks() -> None:
    """Degraded ones are not; and when all are unhealthy there is nobody."""
    well, degraded, ill = (a_candidate(name, health=name) for name in ("healthy", "degraded", "unhealthy"))

    able, rejected = fit([well, degraded, ill], DEFAULT)

    assert able == [well, degraded]
    assert [(one.name, one.why) for one in rejected] == [("unhealthy", "unhealthy")]
    assert fit([ill], DEFAULT)[0] == []
    assert fit([well, ill], patched(DEFAULT, {"enable_health_checks": False})) == ([well, ill], ())
