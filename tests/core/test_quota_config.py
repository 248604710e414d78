"""Quotas as people set them: keys, spellings, bounds, and whose choice counts."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import QUOTA_MODELS
from meshllm.core.quota_config import (
    KEYS,
    NO_QUOTAS,
    UNLIMITED,
    OnLimit,
    QuotaChoice,
    QuotaError,
    QuotaRegister,
    Quotas,
    checked,
    patched,
    shown,
    unwrapped,
)

PHI, ME = ModelId("phi-4"), NodeId("a" * 52)
INNER = {
    "max_ram_mb": 81920, "max_ssd_gb": 200, "hourly_token_limit": 1_000_000, "hourly_request_limit": 10_000,
    "daily_token_limit": 20_000_000, "daily_request_limit": 200_000, "burst_token_limit": 50_000,
    "max_concurrent_requests": 50,
}  # fmt: skip
"""As in the specification."""
RATES = {
    "max_requests_per_second": 0, "max_tokens_per_second": 0, "burst_requests": 0, "action": "reject",
    "grace_period_sec": 0,
}  # fmt: skip


def test_every_field_has_its_key() -> None:
    """In the order of the document."""
    assert tuple(field.name for field in fields(Quotas)) == KEYS


@pytest.mark.rows("QTA-2")
@pytest.mark.parametrize("document", [INNER, {"quotas": INNER}, {"model_id": "phi-4", "quotas": INNER}])
def test_limits_are_taken_alone_or_wrapped(document: dict[str, object]) -> None:
    """And shown in the outer form."""
    register = NO_QUOTAS.changed(PHI, document, ME)

    assert register.shown(PHI, "UTC") == {
        "model_id": "phi-4", "quotas": INNER, "on_limit": "reject", "soft_limits": [80, 85, 90, 95],
        "emergency": False, **RATES, "timezone": "UTC", "version": 1,
    }  # fmt: skip
    assert unwrapped(register.shown(PHI, "UTC")) == {
        **INNER, "on_limit": "reject", "soft_limits": [80, 85, 90, 95], "emergency": False, **RATES,
        "version": 1,
    }  # fmt: skip


@pytest.mark.rows("QTA-1")
def test_other_programs_spellings_are_taken() -> None:
    """One of each, in their units."""
    found = patched(
        UNLIMITED, {"max_tokens_per_hour": 5, "max_requests_per_day": 6, "max_ssd_mb": 2048, "max_concurrent": 7}
    )

    assert found == Quotas(hourly_token_limit=5, daily_request_limit=6, max_ssd_gb=2.0, max_concurrent_requests=7)


@pytest.mark.rows("QTA-1")
def test_a_change_leaves_the_rest_and_null_is_the_default() -> None:
    """0 and null are no limit."""
    first = NO_QUOTAS.changed(PHI, {**INNER, "on_limit": "warn"}, ME)

    second = first.changed(PHI, {"hourly_token_limit": 0, "burst_token_limit": None, "version": 1}, ME)

    assert second.of(PHI) == Quotas(
        **INNER | {"hourly_token_limit": 0, "burst_token_limit": 0},
        on_limit=OnLimit.WARN,  # type: ignore[arg-type]
    )
    assert second.version(PHI) == 2


@pytest.mark.parametrize(
    ("document", "key", "words"),
    [
        ({"hourly_token_limit": -1}, "hourly_token_limit", "a whole number from 0"),
        ({"hourly_token_limit": True}, "hourly_token_limit", "a whole number"),
        ({"hourly_token_limit": 1.5}, "hourly_token_limit", "a whole number"),
        ({"max_ssd_gb": "x"}, "max_ssd_gb", "a number from 0"),
        ({"max_ssd_mb": -1}, "max_ssd_mb", "a number from 0"),
        ({"on_limit": "drop"}, "on_limit", "reject, queue, warn"),
        ({"emergency": 1}, "emergency", "true or false"),
        ({"action": "drop"}, "action", "reject, throttle, queue, warn"),
        ({"soft_limits": [1, 2, 3]}, "soft_limits", "four rising percentages"),
        ({"soft_limits": [1, 2, 3, 101]}, "soft_limits", "four rising percentages"),
        ({"soft_limits": [4, 3, 2, 1]}, "soft_limits", "four rising percentages"),
        ({"hourly_tokens": 1}, "hourly_tokens", "there is no key"),
        ({"quotas": 3}, "quotas", "an object with limits"),
        ({"quotas": {"max_ram_mb": 1}, "max_ram_mb": 1}, "max_ram_mb", "given once"),
        ({"max_concurrent": 1, "max_concurrent_requests": 1}, "max_concurrent_requests", "given once"),
        ({"version": 7}, "version", "at version 0 by now"),
        ({"version": "1"}, "version", "a whole number"),
    ],
)
def test_a_mistake_is_refused_by_its_key(document: dict[str, object], key: str, words: str) -> None:
    """And changes nothing."""
    with pytest.raises(QuotaError) as caught:
        NO_QUOTAS.changed(PHI, document, ME)

    assert caught.value.key == key
    assert words in caught.value.message


def test_what_the_mesh_chose_counts_before_what_a_file_says() -> None:
    """The file has words for one model and for all others."""
    register = QuotaRegister(configured=(("", Quotas(max_ram_mb=1)), ("phi-4", Quotas(max_ram_mb=2))))

    assert [register.of(ModelId(name)).max_ram_mb for name in ("phi-4", "other")] == [2, 1]
    assert register.changed(PHI, {"max_ram_mb": 3}, ME).of(PHI).max_ram_mb == 3
    assert not register.is_limiting
    assert register.changed(PHI, {"emergency": True}, ME).is_limiting


def test_only_so_many_models_have_quotas() -> None:
    """Each is told to every node."""
    register = NO_QUOTAS
    for number in range(QUOTA_MODELS):
        register = register.changed(ModelId(f"m{number}"), {"max_ram_mb": 1}, ME)

    with pytest.raises(QuotaError):
        register.changed(PHI, {"max_ram_mb": 1}, ME)


CHOICES = st.builds(
    QuotaChoice, model=st.sampled_from([PHI, ModelId("b")]), version=st.integers(1, 3),
    author=st.sampled_from([NodeId("a"), NodeId("b")]), quotas=st.builds(Quotas, max_ram_mb=st.integers(0, 2)),
)  # fmt: skip


@given(st.lists(CHOICES), st.lists(CHOICES))
def test_choices_come_to_the_same_in_whatever_order_they_are_heard(
    one: list[QuotaChoice], other: list[QuotaChoice]
) -> None:
    """And hearing them again changes nothing."""
    heard = NO_QUOTAS.with_choices(one).with_choices(other)

    assert heard == NO_QUOTAS.with_choices([*other, *one]) == heard.with_choices(one)


@given(st.builds(Quotas, hourly_token_limit=st.integers(0, 9), on_limit=st.sampled_from(OnLimit)))
def test_what_is_shown_says_the_same_again(quotas: Quotas) -> None:
    """As a peer, or this node's file, has it checked."""
    assert checked(quotas) == quotas
    assert patched(UNLIMITED, shown(quotas)) == quotas
