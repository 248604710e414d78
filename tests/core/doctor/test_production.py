"""The list for production, point by point."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from meshllm.core.doctor.findings import Finding, Result
from meshllm.core.doctor.production import ModelInUse, SetUp, production

GOOD_QUOTAS: Mapping[str, object] = {
    "max_requests_per_second": 5, "hourly_token_limit": 100_000, "on_limit": "reject",
}  # fmt: skip
GOOD_SETTINGS: Mapping[str, object] = {
    "api_key": "(set)", "admin_key": "(set)", "host": "10.0.0.5", "log_level": "info", "log_file": "/var/log/mesh.log",
    "trace_endpoint": "", "profile": False, "insecure_local_admin": False,
}  # fmt: skip
MODEL = ModelInUse(model="tiny", quantization="Q4_K_M", quotas=GOOD_QUOTAS)
GOOD = SetUp(
    settings=GOOD_SETTINGS, models=(MODEL,), metrics_read=3, is_loopback=False,
    routing={"enable_health_checks": True, "enable_quota_checks": True, "max_retries": 3},
)  # fmt: skip
POINTS = [
    "API key", "administration", "rate limits", "quotas", "health checks", "failover", "audit trail", "debug logs",
    "monitoring", "quantised models",
]  # fmt: skip


def point(setup: SetUp, name: str) -> Finding:
    """Return what one point of the list says."""
    return next(one for one in production(setup) if one.name == name)


def setting(**changes: object) -> SetUp:
    """Return the good set-up with other settings."""
    return replace(GOOD, settings={**GOOD_SETTINGS, **changes})


@pytest.mark.rows("SEC-3")
def test_a_node_that_is_set_up_well_passes_every_point() -> None:
    """Rates, quotas, failover, audit trail on; debug logs, bypasses and blindness off."""
    found = production(GOOD)

    assert [one.name for one in found] == POINTS
    assert {one.result for one in found} == {Result.OK}


def of_quotas(**changes: object) -> SetUp:
    """Return the good set-up with other quotas."""
    return replace(GOOD, models=(MODEL, replace(MODEL, model="other", quotas={**GOOD_QUOTAS, **changes})))


@pytest.mark.rows("SEC-3")
@pytest.mark.parametrize(
    ("setup", "name", "words"),
    [
        (setting(api_key="", host="0.0.0.0"), "API key", "MESH_LLM_API_KEY"),
        (setting(insecure_local_admin=True), "administration", "--insecure-local-admin"),
        (of_quotas(max_requests_per_second=0), "rate limits", "quota set other max_requests_per_second=N"),
        (of_quotas(hourly_token_limit=0), "quotas", "unlimited: other"),
        (of_quotas(on_limit="warn"), "quotas", "never enforced: other"),
        (replace(GOOD, routing={"enable_quota_checks": False}), "quotas", "enable_quota_checks=true"),
        (replace(GOOD, routing={"enable_health_checks": False}), "health checks", "enable_health_checks=true"),
        (replace(GOOD, routing={"max_retries": 0}), "failover", "max_retries=3"),
        (setting(log_level="warning"), "audit trail", "no change is written down"),
        (setting(log_level="debug"), "debug logs", "--log-level info"),
        (replace(GOOD, metrics_read=0), "monitoring", "nobody has read /metrics"),
    ],
)
def test_what_has_no_place_in_production_fails(setup: SetUp, name: str, words: str) -> None:
    """With what to do."""
    found = point(setup, name)

    assert found.result is Result.FAIL
    assert words in found.line


@pytest.mark.rows("SEC-3")
@pytest.mark.parametrize(
    ("setup", "name", "result"),
    [
        (replace(setting(api_key=""), is_loopback=True), "API key", Result.OK),
        (setting(admin_key=""), "administration", Result.WARN),
        (setting(admin_key="", api_key=""), "administration", Result.OK),
        (replace(setting(admin_key="", api_key=""), tells_users=False), "administration", Result.WARN),
        (replace(GOOD, models=()), "rate limits", Result.NOTE),
        (replace(GOOD, models=()), "quotas", Result.NOTE),
        (setting(log_file=None), "audit trail", Result.WARN),
        (setting(profile=True), "debug logs", Result.WARN),
        (replace(setting(trace_endpoint="http://c:4318"), metrics_read=0), "monitoring", Result.OK),
        (replace(GOOD, metrics_read=0, is_running=False), "monitoring", Result.NOTE),
        (replace(GOOD, models=(replace(MODEL, quantization="F16"),)), "quantised models", Result.WARN),
    ],
)
def test_what_is_neither_good_nor_bad_is_said(setup: SetUp, name: str, result: Result) -> None:
    """A warning ends no script; a note is none."""
    assert point(setup, name).result is result
