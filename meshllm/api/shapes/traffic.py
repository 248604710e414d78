"""What is said over HTTP of where requests go, what models may be used for, and what is cached.

Owns the types of these bodies and answers, of which the reference is made. Decides nothing: handlers read and answer,
and tests hold what they answer against these types.
"""

from typing import Annotated, Literal, NotRequired, TypedDict

from meshllm.core.cache_config import AllocationStrategy, EvictionPolicy
from meshllm.core.quota_config import OnLimit, RateAction
from meshllm.core.routing_config import Strategy

Count = Annotated[int, "0 for no limit."]


# -- routing -----------------------------------------------------------------------------------------------------


class ShadowDocument(TypedDict):
    """Of one model's requests, copies go to another."""

    of: str
    to: str
    sample: Annotated[float, "The share of them, 0 to 1."]


class RolloutDocument(TypedDict, total=False):
    """A model takes over from another, step by step; empty without one."""

    of: str
    to: str
    steps: Annotated[list[list[float]], "Each a share and its seconds; the last has no end."]


class RoutingDocument(TypedDict):
    """How requests are routed, and whether the mesh or this node says so."""

    strategy: Strategy
    model_strategy: Strategy
    enable_health_checks: bool
    enable_quota_checks: bool
    enable_cache_optimization: bool
    max_load_threshold: float
    min_cache_hit_rate: float
    affinity_timeout_sec: float
    affinity_from_user: bool
    max_retries: int
    retry_delay_ms: float
    unknown_model: Literal["reject", "fallback"]
    ab_test_enabled: bool
    ab_test_split: float
    ab_test_model_a: str | None
    ab_test_model_b: str | None
    ab_test_variants: dict[str, float]
    weights: dict[str, float]
    score_weights: dict[str, float]
    shadow: list[ShadowDocument]
    rollout: RolloutDocument
    routing_time_alarm_us: float
    scope: Annotated[Literal["mesh", "node"], "Whose choice counts here; in a change, whose it is to be."]
    version: Annotated[int, "In a change: has to be the present one, where it is sent."]


class RoutingChange(TypedDict):
    """Any of the keys, at the top or below `routing_config`; null brings a default back."""

    routing_config: dict[str, object]


class ComparedDocument(TypedDict):
    """Requests whose models are compared."""

    a: int
    b: int
    spill: int
    variants: dict[str, object]


class RatingDocument(TypedDict):
    """What was found of a candidate."""

    candidate: str
    score: float
    load: float
    cache_hit: float
    predicted_first_token_s: float
    queue_wait_s: float
    first_byte_s: float | None
    recent: float
    over_share: bool
    suspect: bool
    here: bool
    health: str
    node: NotRequired[str | None]


class RejectedDocument(TypedDict):
    """Why a candidate was out of the question."""

    candidate: str
    why: str
    node: NotRequired[str | None]


class AttemptDocument(TypedDict):
    """One host that a request was sent to."""

    candidate: str
    after_s: float
    setback: str | None


class UsageDocument(TypedDict):
    """How much an answer was, by its own account."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_per_s: float | None


class DecisionDocument(TypedDict):
    """One choice among candidates, and what came of it."""

    request_id: str
    model_id: str
    at_s: float
    strategy: str
    reason: str
    picked: str
    rebound: bool
    routing_time_us: float
    candidates: list[RatingDocument]
    rejected: list[RejectedDocument]
    went: str | None
    ok: bool | None
    first_byte_s: float | None
    attempts: list[AttemptDocument]
    usage: UsageDocument | None


class RoutingStatsAnswer(TypedDict):
    """How many requests were routed, and how; what stands below `stages_us` in detail only."""

    total_routes: int
    successful_routes: int
    failed_routes: int
    fallback_routes: int
    affinity_rebinds: int
    avg_routing_time_us: float
    per_strategy: dict[str, int]
    ab: NotRequired[ComparedDocument]
    shadow: NotRequired[dict[str, object]]
    rollout: NotRequired[dict[str, object]]
    stages_us: NotRequired[dict[str, float]]
    slowest_stage: NotRequired[str | None]
    hints: NotRequired[list[str]]
    routing_time_us: NotRequired[Annotated[dict[str, int], "How many decisions took up to so many microseconds."]]
    per_model: NotRequired[dict[str, int]]
    per_node: NotRequired[dict[str, int]]
    decisions: NotRequired[list[DecisionDocument]]


class ExplainAnswer(TypedDict):
    """Where a request for a model would go, and where the newest went; of the former nothing without `?model=`."""

    request_id: NotRequired[str]
    model_id: NotRequired[str]
    strategy: NotRequired[str]
    reason: NotRequired[str]
    picked: NotRequired[str | None]
    waits: NotRequired[bool]
    message: NotRequired[str | None]
    code: NotRequired[str | None]
    candidates: NotRequired[list[RatingDocument]]
    rejected: NotRequired[list[RejectedDocument]]
    split: NotRequired[dict[str, object] | None]
    decisions: list[DecisionDocument]


# -- quotas ------------------------------------------------------------------------------------------------------


class QuotaLimits(TypedDict):
    """Limits of one model."""

    max_ram_mb: Count
    max_ssd_gb: Annotated[float, "0 for no limit."]
    hourly_token_limit: Count
    hourly_request_limit: Count
    daily_token_limit: Count
    daily_request_limit: Count
    burst_token_limit: Annotated[int, "Tokens of one request, prompt and answer together; 0 for no limit."]
    max_concurrent_requests: Annotated[int, "At each host; 0 for no limit."]


class QuotaDocument(TypedDict):
    """What a model may be used for."""

    model_id: str
    quotas: QuotaLimits
    on_limit: OnLimit
    soft_limits: Annotated[list[float], "Percentages: noted, warned of, throttled, throttled hard."]
    emergency: bool
    max_requests_per_second: float
    max_tokens_per_second: float
    burst_requests: int
    action: RateAction
    grace_period_sec: float
    timezone: str
    version: Annotated[int, "In a change: has to be the present one, where it is sent."]


class QuotaChange(TypedDict, total=False):
    """Any of the keys; those of `quotas` may stand at the top. Null brings a default back."""

    max_ram_mb: Count
    max_ssd_gb: float
    hourly_token_limit: Count
    hourly_request_limit: Count
    daily_token_limit: Count
    daily_request_limit: Count
    burst_token_limit: Count
    max_concurrent_requests: Count


class QuotaWindow(TypedDict):
    """One limit in its window."""

    used: int
    limit: int | None
    remaining: int | None
    reserved: int
    lease: int | None
    percent: float
    resets_at: str
    window: Literal["hour", "day"]


class QuotaWindows(TypedDict):
    """The limits that begin anew."""

    hourly_tokens: QuotaWindow
    hourly_requests: QuotaWindow
    daily_tokens: QuotaWindow
    daily_requests: QuotaWindow


class UsedOfLimit(TypedDict):
    """What is used of a limit; null without one."""

    used: float
    limit: float | None


class Violations(TypedDict):
    """How often a limit was met."""

    total: int
    by_type: dict[str, int]


class QuotaReport(TypedDict):
    """How much of a model's quotas is used, and which limit binds."""

    model_id: str
    mode: str
    binding: str | None
    windows: QuotaWindows
    concurrent: UsedOfLimit
    burst: UsedOfLimit
    ram_mb: UsedOfLimit
    ssd_gb: UsedOfLimit
    violations: Violations
    nodes: Annotated[list[dict[str, str | int]], "Who used how much of what."]


class QuotaReportInDetail(QuotaReport):
    """A report with the quotas beside it."""

    quotas: QuotaLimits
    on_limit: OnLimit
    soft_limits: list[float]
    emergency: bool
    max_requests_per_second: float
    max_tokens_per_second: float
    burst_requests: int
    action: RateAction
    grace_period_sec: float
    timezone: str
    version: int


class QuotaReports(TypedDict):
    """The reports of all models with quotas."""

    per_model: dict[str, QuotaReport | QuotaReportInDetail]


# -- caches ------------------------------------------------------------------------------------------------------


class CacheShare(TypedDict):
    """A model's share of this node's prompt cache, in MiB."""

    allocated_mb: int
    limit_mb: int
    used_mb: int
    priority: int
    disk_mb: int
    """What its engine's slots may take on the disk while it rests."""


class CacheAtNode(TypedDict):
    """A node's prompt cache, in MiB."""

    node_id: str
    allocated_mb: int
    used_mb: int


class CacheDocument(TypedDict):
    """How this node's prompt cache is shared out among its models."""

    global_cache_size_gb: float
    allocation_strategy: AllocationStrategy
    global_eviction_policy: EvictionPolicy
    model_priorities: dict[str, int]
    min_ram_mb: int
    model_floors_mb: dict[str, int]
    model_sizes_mb: dict[str, int]
    disk_cache_size_gb: float
    min_disk_mb: int
    completions: Annotated[Literal["on", "off"], "Whether whole answers are kept."]
    completions_mb: int
    completions_shared: Annotated[Literal["on", "off"], "Whether nodes keep them for one another."]
    is_dividing: bool
    models: dict[str, CacheShare]
    nodes: list[CacheAtNode]


class CacheChange(TypedDict, total=False):
    """Any of the keys, at the top or below `cache`; null brings a default back."""

    cache: dict[str, object]
    cache_config: dict[str, object]


class CacheFigures(TypedDict):
    """What engines found in their prompt caches."""

    hit_rate: float | None
    hit_tokens: int
    prompt_tokens: int
    evictions: int
    size_bytes: int


class CacheSlot(TypedDict):
    """One place of an engine to compute."""

    slot: int
    kept_tokens: int
    hit_tokens: int
    miss_tokens: int


class CacheHost(TypedDict):
    """The prompt cache of a model at one node."""

    node_id: str
    hit_tokens: int
    miss_tokens: int
    evictions: int
    freed_bytes: int
    size_bytes: int
    limit_bytes: int
    slots: list[CacheSlot]


class ModelCacheFigures(CacheFigures):
    """The figures of one model, and what would help; its hosts in detail only."""

    hints: list[str]
    nodes: NotRequired[list[CacheHost]]


CacheStatsAnswer = TypedDict(
    "CacheStatsAnswer", {"global": CacheFigures, "per_model": dict[str, ModelCacheFigures], "hints": list[str]}
)
CacheStatsAnswer.__doc__ = "What engines found in their prompt caches: of all models together, and of each."
