"""Adding up what engines counted of their prompt caches, over restarts and evictions."""

from meshllm.core.cache_limits import CACHE_LEAST_BYTES
from meshllm.core.cache_use import CacheReading, CacheUse, SlotUse
from meshllm.core.ids import ModelId
from meshllm.core.limits import MIB

NEW = CacheUse(model=ModelId("a"))


def test_readings_of_one_engine_are_counted_once() -> None:
    """Each is a sum since the engine's start; a smaller one is another engine's."""
    first = NEW.read(CacheReading(hit_tokens=10, miss_tokens=90, size_bytes=5))
    second = first.read(CacheReading(hit_tokens=50, miss_tokens=100, size_bytes=7, slots=(SlotUse(slot=0),)))
    other = second.read(CacheReading(hit_tokens=1, miss_tokens=2))

    assert (second.hit_tokens, second.prompt_tokens, second.hit_rate, second.size_bytes) == (50, 150, 0.3333, 7)
    assert (other.hit_tokens, other.prompt_tokens, other.slots) == (51, 153, ())


def test_an_engine_that_does_not_count_has_no_hit_rate() -> None:
    """None is not nothing; and before the first prompt there is none either."""
    assert NEW.read(CacheReading(miss_tokens=5, size_bytes=3)).hit_rate is None
    assert NEW.read(CacheReading(hit_tokens=0, miss_tokens=0)).hit_rate is None
    assert NEW.read(CacheReading(hit_tokens=0, miss_tokens=4)).hit_rate == 0.0


def test_an_eviction_counts_where_it_freed_something() -> None:
    """An engine that had cached nothing, or that ended for another reason, is none."""
    full = NEW.read(CacheReading(hit_tokens=1, miss_tokens=1, size_bytes=100 * MIB))
    noise = NEW.read(CacheReading(hit_tokens=1, miss_tokens=1, size_bytes=CACHE_LEAST_BYTES - 1))

    evicted, ended, empty = (
        full.emptied(is_eviction=True),
        full.emptied(is_eviction=False),
        NEW.emptied(is_eviction=True),
    )

    assert (evicted.evictions, evicted.freed_bytes, evicted.size_bytes) == (1, 100 * MIB, 0)
    assert (ended.evictions, ended.freed_bytes, ended.size_bytes) == (0, 0, 0)
    assert empty.evictions == noise.emptied(is_eviction=True).evictions == 0
    assert evicted.read(CacheReading(hit_tokens=1, miss_tokens=0)).hit_tokens == 2
