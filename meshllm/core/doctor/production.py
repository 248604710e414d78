"""Whether a node is set up for production: what has to be on, and what has to be off.

Owns the list. Decides each of its points by the settings in force, how requests are routed and what models may be used
for. Doesn't change any of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshllm.core.doctor.findings import Finding, Result, listed
from meshllm.core.doctor.fitness import is_full_precision

_LIMITS = (
    "hourly_token_limit", "hourly_request_limit", "daily_token_limit", "daily_request_limit", "burst_token_limit",
    "max_concurrent_requests",
)  # fmt: skip
_RATES = ("max_requests_per_second", "max_tokens_per_second")
_KEEPS_AUDIT = frozenset({"debug", "info"})
"""Levels at which the lines of the audit trail are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInUse:
    """A model that clients may use, and for what."""

    model: str
    quantization: str
    quotas: Mapping[str, object]
    """Every key, at the top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """How a node is set up."""

    settings: Mapping[str, object]
    """In force, by name; of secrets whether they are set."""
    routing: Mapping[str, object]
    """The document of `GET /routing/config`."""
    models: tuple[ModelInUse, ...] = ()
    metrics_read: int = 0
    """How often somebody read `/metrics` since the start."""
    is_running: bool = True
    is_loopback: bool = True
    """Only this machine reaches the node's address."""
    tells_users: bool = True
    """The system says whose a connection within the machine is."""


def production(setup: SetUp) -> tuple[Finding, ...]:
    """Return the list, point by point."""
    return (
        _keys(setup),
        _admin(setup),
        _rates(setup.models),
        _quotas(setup),
        _health_checks(setup),
        _failover(setup),
        _audit(setup),
        _debug(setup),
        _monitored(setup),
        _quantised(setup.models),
    )


def _finding(name: str, result: Result, message: str, advice: str = "") -> Finding:
    return Finding(name=name, result=result, message=message, advice=advice)


def _keys(setup: SetUp) -> Finding:
    name = "API key"
    if setup.settings.get("api_key"):
        return _finding(name, Result.OK, "whoever uses the node shows one")
    if setup.is_loopback:
        return _finding(name, Result.OK, f"none, and {setup.settings.get('host')} is reached from this machine alone")
    advice = "MESH_LLM_API_KEY sets one; without --insecure-no-auth the node then asks for it"
    return _finding(name, Result.FAIL, "everybody who reaches the node may use it", advice)


def _admin(setup: SetUp) -> Finding:
    name = "administration"
    if setup.settings.get("insecure_local_admin"):
        message = "everybody on this machine may load, drop and expel (--insecure-local-admin)"
        return _finding(name, Result.FAIL, message, "MESH_LLM_ADMIN_KEY instead")
    if setup.settings.get("admin_key"):
        return _finding(name, Result.OK, "changes take the admin key")
    if setup.settings.get("api_key"):
        message = "whoever has the API key may change the node, too"
        return _finding(name, Result.WARN, message, "MESH_LLM_ADMIN_KEY keeps the two apart")
    if not setup.tells_users:
        message = "everybody on this machine may change the node: the system does not say whose a connection is"
        return _finding(name, Result.WARN, message, "MESH_LLM_ADMIN_KEY")
    return _finding(name, Result.OK, "only the user who runs the node may change it, from this machine")


def _rates(models: Sequence[ModelInUse]) -> Finding:
    name = "rate limits"
    without = [one.model for one in models if not any(one.quotas.get(key) for key in _RATES)]
    if not models:
        return _finding(name, Result.NOTE, "there is no model to limit")
    if not without:
        return _finding(name, Result.OK, "every model has one")
    advice = f"`mesh-llm quota set {without[0]} max_requests_per_second=N`"
    return _finding(name, Result.FAIL, f"none for {listed(without)}", advice)


def _quotas(setup: SetUp) -> Finding:
    name = "quotas"
    if not setup.routing.get("enable_quota_checks", True):
        message = "what is left of a quota does not count where requests are sent"
        return _finding(name, Result.FAIL, message, "`mesh-llm routing set enable_quota_checks=true`")
    without = [one.model for one in setup.models if not any(one.quotas.get(key) for key in _LIMITS)]
    if without:
        advice = f"`mesh-llm quota set {without[0]} hourly_token_limit=N`, or [quotas] in the file, for all models"
        return _finding(name, Result.FAIL, f"unlimited: {listed(without)}", advice)
    warned = [one.model for one in setup.models if one.quotas.get("on_limit") == "warn"]
    if warned:
        advice = f"`mesh-llm quota set {warned[0]} on_limit=reject`"
        return _finding(name, Result.FAIL, f"only warned of, and never enforced: {listed(warned)}", advice)
    if not setup.models:
        return _finding(name, Result.NOTE, "there is no model to limit")
    return _finding(name, Result.OK, "every model has some, and they are enforced")


def _health_checks(setup: SetUp) -> Finding:
    if setup.routing.get("enable_health_checks", True):
        return _finding("health checks", Result.OK, "nothing is sent to hosts in ill health")
    advice = "`mesh-llm routing set enable_health_checks=true`"
    return _finding("health checks", Result.FAIL, "they are bypassed: hosts in ill health get requests too", advice)


def _failover(setup: SetUp) -> Finding:
    tries = setup.routing.get("max_retries", 0)
    if isinstance(tries, int) and tries > 0:
        return _finding("failover", Result.OK, f"a request that fails is tried again, up to {tries} times")
    return _finding(
        "failover", Result.FAIL, "a request that fails is not tried again", "`mesh-llm routing set max_retries=3`"
    )


def _audit(setup: SetUp) -> Finding:
    name, level = "audit trail", str(setup.settings.get("log_level", ""))
    if level not in _KEEPS_AUDIT:
        message = f"at log level {level} no change is written down"
        return _finding(name, Result.FAIL, message, "--log-level info")
    if setup.settings.get("log_file"):
        return _finding(name, Result.OK, f"every change is written to {setup.settings['log_file']}")
    message = "every change is written to standard error alone"
    return _finding(name, Result.WARN, message, "--log-file keeps it, or a service manager that does")


def _debug(setup: SetUp) -> Finding:
    if setup.settings.get("log_level") == "debug":
        return _finding("debug logs", Result.FAIL, "they are on, and cost time", "--log-level info")
    if setup.settings.get("profile"):
        return _finding("debug logs", Result.WARN, "off; but --profile measures what takes how long")
    return _finding("debug logs", Result.OK, "they are off")


def _monitored(setup: SetUp) -> Finding:
    name = "monitoring"
    if setup.metrics_read:
        return _finding(name, Result.OK, f"/metrics was read {setup.metrics_read} times since the start")
    if setup.settings.get("trace_endpoint"):
        return _finding(name, Result.OK, f"traces go to {setup.settings['trace_endpoint']}")
    if not setup.is_running:
        return _finding(name, Result.NOTE, "no node runs, so nobody can watch it")
    advice = "let Prometheus read it: docs/monitoring.md has the first steps"
    return _finding(name, Result.FAIL, "nobody has read /metrics since the start", advice)


def _quantised(models: Sequence[ModelInUse]) -> Finding:
    full = [one.model for one in models if is_full_precision(one.quantization)]
    if not full:
        return _finding("quantised models", Result.OK, "no model is in full precision")
    return _finding(
        "quantised models", Result.WARN, f"in full precision: {listed(full)}", "take a Q8_0 or Q4_K_M of it"
    )
