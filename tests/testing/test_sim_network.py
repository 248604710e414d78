"""What happens to packets between simulated nodes."""

import random

from meshllm.core.ids import NodeId
from meshllm.testing.sim_network import SimNetwork, Weather

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def a_network(**weather: float) -> SimNetwork:
    """Return a network with one weather everywhere."""
    return SimNetwork(random.Random(1), Weather(**weather))


def lost(network: SimNetwork, source: NodeId, target: NodeId) -> float:
    """Return the share of packets that vanish."""
    return sum(network.arrives_after_s(source, target) is None for _ in range(2000)) / 2000


def test_losses_are_about_what_was_asked_for() -> None:
    """The weather is chance, not a schedule."""
    assert 0.17 < lost(a_network(loss=0.2), A, B) < 0.23


def test_a_link_has_its_own_weather_in_each_direction() -> None:
    """One-way cuts are what tells detectors apart."""
    network = a_network()

    network.set_link(A, B, loss=1.0)

    assert (lost(network, A, B), lost(network, B, A), lost(network, A, C)) == (1.0, 0.0, 0.0)


def test_a_partition_cuts_between_its_sides_and_healing_ends_all() -> None:
    """Whoever is named nowhere is on the first side."""
    network = a_network(loss=0.1)
    network.set_link(A, C, delay_s=5.0)

    network.divide([A], [B])
    divided = (network.arrives_after_s(A, B), lost(network, A, C) < 0.2)
    network.heal()

    assert divided == (None, True)
    assert (lost(network, A, B), network.arrives_after_s(A, C)) == (0.0, 0.010)


def test_jitter_and_reordering_make_packets_later_never_earlier() -> None:
    """Between once and three times the longest way."""
    network = a_network(delay_s=0.1, jitter_s=0.1, reorder=0.5)

    times_s = [network.arrives_after_s(A, B) or 0.0 for _ in range(500)]

    assert 0.1 <= min(times_s) < 0.2
    assert 0.3 < max(times_s) <= 0.6
