"""Who goes first: four policies over the same models."""

import pytest

from meshllm.core.cache_config import EvictionPolicy
from meshllm.core.caches.victims import WHY, Occupant, in_order
from meshllm.core.ids import NO_MODEL, ModelId

OCCUPANTS = (
    Occupant(model=ModelId("a"), last_used_s=30.0, requests=5, size_bytes=300),
    Occupant(model=ModelId("b"), last_used_s=10.0, requests=9, size_bytes=200),
    Occupant(model=ModelId("c"), last_used_s=20.0, requests=5, size_bytes=100),
)


@pytest.mark.rows("CAC-3", "CAC-13")
@pytest.mark.parametrize(
    ("policy", "last", "order"),
    [
        (EvictionPolicy.LRU, "", "bca"),
        (EvictionPolicy.LFU, "", "cab"),
        (EvictionPolicy.SMALLEST_MODEL_FIRST, "", "cba"),
        (EvictionPolicy.ROUND_ROBIN, "", "abc"),
        (EvictionPolicy.ROUND_ROBIN, "a", "bca"),
        (EvictionPolicy.ROUND_ROBIN, "c", "abc"),
    ],
)
def test_each_policy_has_its_order(policy: EvictionPolicy, last: str, order: str) -> None:
    """Of those used alike often, the one used longest ago goes first."""
    found = in_order(reversed(OCCUPANTS), policy, ModelId(last) if last else NO_MODEL)

    assert "".join(one.model for one in found) == order
    assert policy in WHY
