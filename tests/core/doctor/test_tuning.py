"""What can be tuned."""

import pytest

from meshllm.core import cache_config, quota_config, routing_config
from meshllm.core.doctor.tuning import Tuning, tunables

ALL = Tuning(
    routing=routing_config.shown(routing_config.DEFAULT),
    caches=cache_config.shown(cache_config.DEFAULT),
    settings={"max_vram": "90%", "ctx_size": None, "log_level": "info"},
    quotas={"tiny": quota_config.shown(quota_config.UNLIMITED)},
    hit_rate=0.25,
    evictions=7,
)


@pytest.mark.rows("OPS-9")
def test_everything_that_can_be_tuned_is_listed_with_its_value() -> None:
    """Caches and evictions, soft limits, affinity of conversations, and the rest."""
    found = {one.name: one for one in tunables(ALL)}

    assert found["routing: affinity_timeout_sec"].value == 300.0
    assert found["routing: strategy"].value == "cache_aware"
    assert found["cache: global_cache_size_gb"].value == 0
    assert found["cache: evictions since the start"].value == 7
    assert found["cache: hit rate"].value == 0.25
    assert found["quotas of tiny: soft_limits"].value == [80, 85, 90, 95]
    assert found["node: max_vram"].value == "90%"
    assert found["node: ctx_size"].value == ""
    assert all(one.meaning and one.how and "{" not in one.how for one in found.values())
    assert found["quotas of tiny: soft_limits"].how == "`mesh-llm quota set tiny soft_limits=…`"


def test_every_key_of_the_list_is_one_that_there_is() -> None:
    """A key that was renamed would show an empty value for ever."""
    keys = {"routing": ALL.routing, "cache": ALL.caches, "quotas of tiny": ALL.quotas["tiny"]}

    names = [one.name.split(": ") for one in tunables(ALL) if one.how != "measured"]

    assert [key for where, key in names if where in keys and key not in keys[where]] == []


def test_what_nobody_measured_is_left_out() -> None:
    """Without a node there is nothing to count."""
    found = tunables(Tuning(routing={}, caches={}, settings={}, quotas={}))

    assert [one.name for one in found if one.how == "measured"] == []
