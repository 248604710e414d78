"""The document that keeps orders from one run to the next."""

import json

import pytest

from meshllm.core.announcement import DefaultChoice, ModelOrder
from meshllm.core.cache_config import CacheConfig
from meshllm.core.effects import KeptOrders
from meshllm.core.ids import ModelId
from meshllm.core.intents import Verb
from meshllm.core.limits import ANNOUNCED_ORDERS, ORDER_VERSION_MAX, QUOTA_MODELS
from meshllm.core.quota_config import QuotaChoice, Quotas
from meshllm.core.quota_use import QuotaUse, Spent
from meshllm.core.routing_config import RoutingChoice
from meshllm.wire.errors import WireError
from meshllm.wire.orders import kept_orders, read_orders
from tests.wire.builders import NODE, ROUTED

ORDER = ModelOrder(model=ModelId("m"), verb=Verb.UNLOAD, version=3, author=NODE, hold=True)
QUOTAS = (QuotaChoice(model=ModelId("m"), quotas=Quotas(hourly_token_limit=5), version=6, author=NODE),)
KEPT = KeptOrders(
    orders=(ORDER,), default=DefaultChoice(model=ModelId("m"), version=4, author=NODE), override=ModelId("o"), clock=9,
    routing=RoutingChoice(config=ROUTED, version=5, author=NODE), routing_here=ROUTED, quotas=QUOTAS,
    quota_uses=(QuotaUse(model=ModelId("m"), hour=Spent(3600, 5, 1), day=Spent(0, 9, 2)),), held=(ModelId("h"),),
    dropped=(ModelId("d"),), pins=((ModelId("p"), True), (ModelId("q"), False)),
    caches=CacheConfig(global_cache_size_gb=2.0, model_priorities=(("m", 3),)),
)  # fmt: skip


def test_what_was_kept_is_read() -> None:
    """Through JSON, as on disk."""
    assert read_orders(json.loads(json.dumps(kept_orders(KEPT)))) == KEPT
    assert read_orders({}) == KeptOrders()


def test_a_model_that_nobody_could_be_told_of_is_not_kept() -> None:
    """The next start would refuse the whole document."""
    odd = ModelOrder(model=ModelId("a\nb"), verb=Verb.UNLOAD, version=3, author=NODE)

    assert read_orders(kept_orders(KeptOrders(orders=(odd, ORDER)))).orders == (ORDER,)


@pytest.mark.parametrize(
    "changes",
    [
        {"orders": "x"}, {"orders": [{**kept_orders(KEPT)["orders"][0], "author": "me"}]},  # type: ignore[index]
        {"orders": [{**kept_orders(KEPT)["orders"][0], "version": ORDER_VERSION_MAX + 1}]},  # type: ignore[index]
        {"orders": [{**kept_orders(KEPT)["orders"][0], "verb": "explode"}]},  # type: ignore[index]
        {"orders": [kept_orders(KEPT)["orders"][0]] * (ANNOUNCED_ORDERS + 1)},  # type: ignore[index]
        {"routing": {"config": {}, "version": 1, "author": "me"}}, {"routing_here": {"max_retries": 99}},
        {"routing": {"config": {}, "version": ORDER_VERSION_MAX + 1, "author": NODE}},
        {"quotas": [{"model": "m", "quotas": {}, "version": ORDER_VERSION_MAX + 1, "author": NODE}]},
        {"quotas": [{"model": "m", "quotas": {"max_ram_mb": -1}, "version": 1, "author": NODE}]},
        {"quotas": [{"model": "m", "quotas": {}, "version": 1, "author": "me"}]},
        {"quotas": [kept_orders(KEPT)["quotas"][0]] * (QUOTA_MODELS + 1)},  # type: ignore[index]
        {"caches": {"min_ram_mb": -1}}, {"caches": {"global_cache_size_gb": 1.0, "allocation_strategy": "x"}},
        {"held": [1]}, {"override": "\ud800x", "held": None},
    ],
)  # fmt: skip
def test_a_document_that_is_none_is_refused(changes: dict[str, object]) -> None:
    """Whoever wrote it."""
    with pytest.raises(WireError):
        read_orders({**kept_orders(KEPT), **changes})


def test_a_clock_out_of_bounds_is_put_right() -> None:
    """A number alone is no reason to forget what was ordered."""
    assert read_orders({**kept_orders(KEPT), "clock": 2**70}).clock == ORDER_VERSION_MAX
