"""What routing makes of conversations that share beginnings: cached prompts found, and work shared out."""

import pytest

from meshllm.core.routing_config import Strategy
from tests.sim.conversations import Load, Outcome, Pick, Routed, World, careful_oracle, oracle

SEED = 3
THREE = Load(hosts=3, conversations=300, arrivals_per_s=0.5, topics=12, cache_blocks=300)
MANY = Load(hosts=200, conversations=2000, arrivals_per_s=45.0, topics=100, cache_blocks=200)


def outcome(load: Load, pick: Pick, seed: int = SEED) -> Outcome:
    """Return what a way of picking makes of a load."""
    return World(load, seed, pick).run()


def best_oracle(load: Load) -> Outcome:
    """Return the better of two that know every cache: one for which nothing else counts, one that shuns queues."""
    return max((outcome(load, oracle), outcome(load, careful_oracle)), key=lambda one: one.hit_rate)


@pytest.mark.rows("CAC-12")
@pytest.mark.parametrize("seed", [3, 4])
def test_three_hosts_find_most_prompts_cached_and_share_the_work(seed: int) -> None:
    """What can be found is found, whatever the caches forget, and nobody pays for it with a queue."""
    found = outcome(THREE, Routed(Strategy.CACHE_AWARE, seed), seed)
    even = outcome(THREE, Routed(Strategy.ROUND_ROBIN, seed), seed)
    best = max(outcome(THREE, oracle, seed).hit_rate, outcome(THREE, careful_oracle, seed).hit_rate)

    assert found.hit_rate >= 0.9 * best
    assert found.hit_rate >= even.hit_rate + 0.15
    assert found.fullest <= 1.25
    assert found.first_byte_s < even.first_byte_s


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_hundred_hosts_find_most_prompts_cached_and_share_the_work() -> None:
    """With more hosts each has less of what is asked, and a wrong guess costs more."""
    found = outcome(MANY, Routed(Strategy.CACHE_AWARE, SEED))
    best = best_oracle(MANY)

    assert found.hit_rate >= 0.9 * best.hit_rate
    assert found.fullest <= 1.25


def test_a_burst_spreads_before_anybody_announces_anything() -> None:
    """Reservations of the front door itself count at once: thirty requests within a second, gossip after ten."""
    burst = Load(hosts=3, conversations=30, arrivals_per_s=60.0, topics=1, turns=1, gossip_s=10.0)

    found = outcome(burst, Routed(Strategy.CACHE_AWARE, SEED))

    assert found.fullest <= 1.2


def test_a_single_conversation_stays_where_its_prompt_is() -> None:
    """Balance is no reason to read a prompt anew while nobody else wants the host."""
    alone = Load(hosts=3, conversations=1, arrivals_per_s=1.0, topics=1, turns=40, topic_blocks=4, cache_blocks=4000)

    found = outcome(alone, Routed(Strategy.CACHE_AWARE, SEED), seed=5)

    assert found.requests > 10
    assert found.fullest == 3.0
