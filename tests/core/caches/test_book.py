"""The division in force: when it is made anew, what each strategy goes by, what is remembered and counted."""

from dataclasses import replace

import pytest

from meshllm.core.cache_config import DEFAULT, AllocationStrategy, CacheConfig
from meshllm.core.cache_limits import CACHE_DIVIDE_S
from meshllm.core.cache_use import CacheReading
from meshllm.core.caches.book import CacheBook, Standing
from meshllm.core.ids import ModelId
from meshllm.core.intents import OutcomeCode
from meshllm.core.limits import GIB, MIB

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")
WHOLE = CacheConfig(global_cache_size_gb=1.0, min_ram_mb=0)


def resolve(name: str) -> ModelId | None:
    """Know models by their ids alone, and a by an alias."""
    return {"a": A, "alias-of-a": A, "b": B, "c": C}.get(name)


def divided(book: CacheBook, *standings: Standing, now_s: float = 0.0) -> dict[str, int]:
    """Divide, and return the shares in megabytes."""
    book.divide(standings, resolve, now_s)
    return {str(model): size // MIB for model, size in book.shares.items()}


def standing(model: ModelId, requests: int = 0, used_s: float | None = None, per_minute: float = 0.0) -> Standing:
    """Return a model that takes part."""
    return Standing(model=model, requests=requests, last_used_s=used_s, per_minute=per_minute)


@pytest.mark.rows("CAC-1")
def test_each_strategy_goes_by_something_else() -> None:
    """Nothing, use, written priorities, demand."""
    models = (
        standing(A, requests=30, used_s=98.0, per_minute=1.0),
        standing(B, requests=10, used_s=99.0, per_minute=4.0),
    )
    said = replace(WHOLE, model_priorities=(("alias-of-a", 1), ("nobody", 10)))

    found = {
        strategy: divided(CacheBook(None, replace(said, allocation_strategy=strategy)), *models, now_s=100.0)
        for strategy in AllocationStrategy
    }

    assert found == {
        AllocationStrategy.FAIR_SHARE: {"a": 512, "b": 512},
        AllocationStrategy.PROPORTIONAL: {"a": 682, "b": 341},  # 30 / 3 s to 10 / 2 s
        AllocationStrategy.PRIORITY_BASED: {"a": 170, "b": 853},  # 1 to 5
        AllocationStrategy.DYNAMIC: {"a": 204, "b": 819},
    }


@pytest.mark.rows("CAC-1")
def test_a_dynamic_division_is_made_anew_every_minute_where_that_is_worth_it() -> None:
    """Not before, and not for less than a tenth; who comes or goes changes it at once."""
    book = CacheBook(None, replace(WHOLE, allocation_strategy=AllocationStrategy.DYNAMIC))
    first = divided(book, standing(A, per_minute=1.0), standing(B, per_minute=1.0))
    early = divided(book, standing(A, per_minute=9.0), standing(B, per_minute=1.0), now_s=CACHE_DIVIDE_S - 1)
    small = divided(book, standing(A, per_minute=1.05), standing(B, per_minute=1.0), now_s=CACHE_DIVIDE_S)
    later = divided(book, standing(A, per_minute=3.0), standing(B, per_minute=1.0), now_s=2 * CACHE_DIVIDE_S)
    due_s = book.next_s()
    joined = divided(book, standing(A, per_minute=1.0), standing(B, per_minute=1.0), standing(C), now_s=130.0)

    assert first == early == small == {"a": 512, "b": 512}
    assert later == {"a": 768, "b": 256}
    assert due_s == 3 * CACHE_DIVIDE_S
    assert joined == {"a": 512, "b": 512, "c": 0}


def test_a_fair_division_is_never_looked_at_again() -> None:
    """Only who takes part changes it."""
    book = CacheBook(None, WHOLE)

    assert divided(book, standing(A), standing(B)) == divided(book, standing(A, 9), standing(B), now_s=999.0)
    assert book.next_s() is None


@pytest.mark.rows("CAC-13")
def test_floors_are_kept_for_all_and_for_one() -> None:
    """256 MB where nobody says anything else."""
    said = CacheConfig(
        global_cache_size_gb=2.0, allocation_strategy=AllocationStrategy.DYNAMIC, model_floors_mb=(("b", 700),),
        model_sizes_mb=(("c", 100),),
    )  # fmt: skip
    book = CacheBook(None, said)

    shares = divided(book, standing(A, per_minute=99.0), standing(B), standing(C))

    assert shares == {"a": 1248, "b": 700, "c": 100}
    assert (
        divided(CacheBook(None, replace(said, model_floors_mb=())), standing(A), standing(B, per_minute=1.0))["a"]
        == 256
    )


def test_nothing_is_divided_without_a_whole() -> None:
    """Each engine then has what the arithmetic gives it."""
    book = CacheBook()

    assert divided(book, standing(A)) == {}
    assert book.allowed(A, 0) is None


@pytest.mark.rows("CAC-2")
def test_an_engine_may_start_with_its_share_as_far_as_others_leave_it() -> None:
    """Those that run already may have more than theirs."""
    book = CacheBook(None, WHOLE)
    divided(book, standing(A), standing(B))

    allowed = [book.allowed(A, others) for others in (0, GIB // 2, GIB - 5, 2 * GIB)]

    assert allowed == [GIB // 2, GIB // 2, 5, 0]
    assert book.allowed(C, 0) == GIB // 3


def test_a_change_is_answered_and_remembered() -> None:
    """A refused one changes nothing; what the configuration says is not written down again."""
    book = CacheBook(None, WHOLE)
    refused = book.change({"global_cache_size_gb": "x"})
    before = book.remembered
    done = book.change({"cache": {"global_cache_size_gb": 2}})
    (line,) = book.taken_notices()

    assert (refused.code, refused.param, before) == (OutcomeCode.INVALID_VALUE, "global_cache_size_gb", None)
    assert done.is_done
    assert dict(line.fields) == {"module": "audit", "global_cache_size_gb": "1 -> 2"}
    assert book.remembered == replace(WHOLE, global_cache_size_gb=2.0)
    assert book.change({}).is_done
    assert book.taken_notices() == []
    assert CacheBook(book.remembered).config == book.config
    assert CacheBook(book.remembered, WHOLE).config == WHOLE
    assert CacheBook().config == DEFAULT


@pytest.mark.rows("CAC-7")
def test_evictions_count_when_bytes_were_freed() -> None:
    """An hour later they are not counted as late ones any more."""
    book = CacheBook(None, WHOLE)
    book.going |= {A, B}
    book.read(A, CacheReading(hit_tokens=1, miss_tokens=3, size_bytes=5 * MIB))

    for model in (A, B, C):
        book.emptied(model, 50.0)

    assert book.uses[A].evictions == 1
    assert (book.going, set(book.uses)) == (set(), {A})
    assert [dict(line.fields) for line in book.taken_notices()] == [{"model": "a", "freed_mb": 5}]
    assert book.picture(100.0).evictions_lately == 1
    assert book.picture(3700.0).evictions_lately == 0
    book.emptied(A, 60.0)
    assert book.uses[A].evictions == 1
