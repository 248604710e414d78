"""What a model may be used for: the limits that people set, mesh-wide or in a node's own configuration.

Owns every key with its bounds, its other spellings and its form as a document. Decides what a change may say, and which
of two choices for one model counts. Doesn't know what was used, nor when a window ends. Pure.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, NoReturn

from meshllm.core import limits
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing_config import ConfigFault

OF_CLIENT = "key:"
"""Before the name of a client that has a key of its own: what follows is no model, and has no quotas but its own."""
WRAPPER = "quotas"
"""The key below which a document may have all others."""
_FREE_KEYS = frozenset({"model_id", "timezone"})
"""Keys of the document that are shown and may be sent back; nothing is changed by them."""


class OnLimit(StrEnum):
    """What becomes of a request above a limit."""

    REJECT = "reject"
    QUEUE = "queue"
    """It waits for a while before it is rejected."""
    WARN = "warn"
    """It is served, and the log says so."""


class RateAction(StrEnum):
    """What becomes of a request that comes too early."""

    REJECT = "reject"
    THROTTLE = "throttle"
    """It is delayed until its time."""
    QUEUE = "queue"
    WARN = "warn"


class QuotaError(Exception):
    """A change that cannot be made; the message is for people."""

    def __init__(self, fault: ConfigFault, key: str, message: str) -> None:
        """Keep the kind of mistake and the key that is wrong."""
        super().__init__(message)
        self.fault, self.key, self.message = fault, key, message


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What one model may be used for. 0 is no limit."""

    max_ram_mb: int = 0
    max_ssd_gb: float = 0.0
    hourly_token_limit: int = 0
    hourly_request_limit: int = 0
    daily_token_limit: int = 0
    daily_request_limit: int = 0
    burst_token_limit: int = 0
    """Tokens of one request, prompt and answer together."""
    max_concurrent_requests: int = 0
    """At each host."""
    on_limit: OnLimit = OnLimit.REJECT
    soft_limits: tuple[float, ...] = (80.0, 85.0, 90.0, 95.0)
    """Percentages: noted, warned of, throttled, throttled hard."""
    emergency: bool = False
    """Only urgent requests come in."""
    max_requests_per_second: float = 0.0
    """At each host; likewise the tokens."""
    max_tokens_per_second: float = 0.0
    burst_requests: int = 0
    """That may come at once; 0 for as many as in a second."""
    action: RateAction = RateAction.REJECT
    grace_period_sec: float = 0.0
    """So long after the first excess, requests that come too early are served."""

    @property
    def counts_tokens(self) -> bool:
        """Tell whether tokens are limited in any way."""
        return bool(self.hourly_token_limit or self.daily_token_limit or self.burst_token_limit)

    @property
    def has_rates(self) -> bool:
        """Tell whether requests may come too early."""
        return bool(self.max_requests_per_second or self.max_tokens_per_second)

    @property
    def is_limiting(self) -> bool:
        """Tell whether a request has to be looked at."""
        return bool(
            self.counts_tokens or self.hourly_request_limit or self.daily_request_limit
            or self.max_concurrent_requests or self.emergency or self.has_rates
        )  # fmt: skip


UNLIMITED = Quotas()


def _refuse(key: str, wanted: str) -> NoReturn:
    raise QuotaError(ConfigFault.INVALID_VALUE, key, f"{key!r} must be {wanted}")


def _count(key: str, value: object) -> int:
    most = limits.QUOTA_MOST
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        _refuse(key, f"a whole number from 0, which is no limit, to {most}")
    return value


def _size(key: str, value: object) -> float:
    most = limits.QUOTA_MOST
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        _refuse(key, f"a number from 0, which is no limit, to {most}")
    return float(value)


def _truth(key: str, value: object) -> bool:
    return value if isinstance(value, bool) else _refuse(key, "true or false")


def _on_limit(key: str, value: object) -> OnLimit:
    if value not in list(OnLimit):
        _refuse(key, f"one of {', '.join(OnLimit)}")
    return OnLimit(str(value))


def _action(key: str, value: object) -> RateAction:
    if value not in list(RateAction):
        _refuse(key, f"one of {', '.join(RateAction)}")
    return RateAction(str(value))


def _levels(key: str, value: object) -> tuple[float, ...]:
    wanted = "four rising percentages from 1 to 100"
    if not isinstance(value, list | tuple) or len(value) != len(UNLIMITED.soft_limits):
        _refuse(key, wanted)
    if any(not isinstance(one, int | float) or isinstance(one, bool) or not 1 <= one <= 100 for one in value):
        _refuse(key, wanted)
    if list(value) != sorted(value):
        _refuse(key, wanted)
    return tuple(float(one) for one in value)


class _Key(NamedTuple):
    read: Callable[[str, object], object]
    is_inner: bool = True
    """It stands below `quotas` in the document."""


_KEYS: Mapping[str, _Key] = MappingProxyType({
    "max_ram_mb": _Key(_count), "max_ssd_gb": _Key(_size),
    "hourly_token_limit": _Key(_count), "hourly_request_limit": _Key(_count),
    "daily_token_limit": _Key(_count), "daily_request_limit": _Key(_count),
    "burst_token_limit": _Key(_count), "max_concurrent_requests": _Key(_count),
    "on_limit": _Key(_on_limit, is_inner=False), "soft_limits": _Key(_levels, is_inner=False),
    "emergency": _Key(_truth, is_inner=False),
    "max_requests_per_second": _Key(_size, is_inner=False), "max_tokens_per_second": _Key(_size, is_inner=False),
    "burst_requests": _Key(_count, is_inner=False), "action": _Key(_action, is_inner=False),
    "grace_period_sec": _Key(_size, is_inner=False),
})  # fmt: skip
KEYS = tuple(_KEYS)
"""Every key, in the order in which they are shown."""
OTHER_NAMES: Mapping[str, str] = MappingProxyType({
    "max_tokens_per_hour": "hourly_token_limit", "max_requests_per_hour": "hourly_request_limit",
    "max_tokens_per_day": "daily_token_limit", "max_requests_per_day": "daily_request_limit",
    "max_tokens_per_request": "burst_token_limit", "max_concurrent": "max_concurrent_requests",
})  # fmt: skip
"""Spellings of other programs."""
_BY_MINUTE: Mapping[str, str] = MappingProxyType({
    "requests_per_minute": "max_requests_per_second", "tokens_per_minute": "max_tokens_per_second",
})  # fmt: skip
_SSD_MB = "max_ssd_mb"
_MB_OF_GB = 1024
_SHOWN_CHARS = 80


def shown(quotas: Quotas) -> dict[str, object]:
    """Return quotas as a document, all keys at the top."""
    return {key: _plain(getattr(quotas, key)) for key in _KEYS}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, StrEnum):
        return str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def patched(quotas: Quotas, changes: Mapping[str, object]) -> Quotas:
    """Return quotas with these keys changed; null brings a default back. Raises QuotaError."""
    found: dict[str, object] = {}
    for given, value in _in_seconds(changes).items():
        key, value_here = _named(given, value)
        if key not in _KEYS:
            message = f"there is no key {given[:_SHOWN_CHARS]!r}; the keys are: {', '.join(_KEYS)}"
            raise QuotaError(ConfigFault.UNKNOWN_KEY, given[:_SHOWN_CHARS], message)
        if key in found:
            _refuse(given, f"given once: {key!r} says the same")
        found[key] = getattr(UNLIMITED, key) if value is None else _KEYS[key].read(given, value_here)
    return replace(quotas, **found)  # type: ignore[arg-type]


def _in_seconds(changes: Mapping[str, object]) -> Mapping[str, object]:
    """Return a change with rates by the minute as rates by the second; a minute's requests may come at once."""
    found = dict(changes)
    for key, by_second in _BY_MINUTE.items():
        if key in found:
            value = found.pop(key)
            if by_second in found:
                _refuse(key, f"given once: {by_second!r} says the same")
            found[by_second] = None if value is None else _size(key, value) / 60
            if by_second == "max_requests_per_second":
                found.setdefault("burst_requests", None if value is None else max(int(_size(key, value)), 1))
    return found


def _named(given: str, value: object) -> tuple[str, object]:
    """Return one key and its value in our own words."""
    if given == _SSD_MB:
        return "max_ssd_gb", None if value is None else round(_size(given, value) / _MB_OF_GB, 3)
    return OTHER_NAMES.get(given, given), value


def checked(quotas: Quotas) -> Quotas:
    """Return quotas that came from elsewhere, as their keys may be set. Raises QuotaError."""
    return patched(UNLIMITED, shown(quotas))


def unwrapped(document: Mapping[str, object]) -> dict[str, object]:
    """Return a change with its keys at the top, wherever they stood. Raises QuotaError."""
    flat = {key: value for key, value in document.items() if key != WRAPPER and key not in _FREE_KEYS}
    inner = document.get(WRAPPER, {})
    if not isinstance(inner, Mapping):
        _refuse(WRAPPER, "an object with limits")
    if twice := [str(key) for key in inner if key in flat]:
        _refuse(twice[0][:_SHOWN_CHARS], f"given once: beside {WRAPPER!r}, or in it")
    return flat | dict(inner)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaChoice:
    """What a model may be used for in the whole mesh. The highest (version, author) counts."""

    model: ModelId
    quotas: Quotas
    version: int
    """Above all versions for this model that its author knew."""
    author: NodeId


def rank(choice: QuotaChoice) -> tuple[int, NodeId, str]:
    """Return what orders the choices for one model, the same at every node."""
    return choice.version, choice.author, repr(choice.quotas)


def newest(choices: Iterable[QuotaChoice]) -> dict[ModelId, QuotaChoice]:
    """Return the choice that counts for each model, whatever the order in which they are heard."""
    found: dict[ModelId, QuotaChoice] = {}
    for choice in choices:
        known = found.get(choice.model)
        if known is None or rank(choice) > rank(known):
            found[choice.model] = choice
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRegister:
    """What every model may be used for: by the mesh's choices, else by this node's configuration."""

    chosen: tuple[QuotaChoice, ...] = ()
    """Sorted by model."""
    configured: tuple[tuple[str, Quotas], ...] = ()
    """By the model's id; "" is every other model."""
    by_model: Mapping[ModelId, QuotaChoice] = field(init=False, compare=False, repr=False)
    is_limiting: bool = field(init=False, compare=False, repr=False)
    """Some model may be limited: where none is, no request is looked at."""

    def __post_init__(self) -> None:
        """Make once what each request looks up."""
        object.__setattr__(self, "by_model", MappingProxyType({one.model: one for one in self.chosen}))
        said = (*(one.quotas for one in self.chosen), *(quotas for _, quotas in self.configured))
        object.__setattr__(self, "is_limiting", any(one.is_limiting for one in said))

    def of(self, model: ModelId) -> Quotas:
        """Return what a model may be used for here."""
        choice = self.by_model.get(model)
        if choice is not None:
            return choice.quotas
        configured = dict(self.configured)
        everybody = UNLIMITED if model.startswith(OF_CLIENT) else configured.get("", UNLIMITED)
        return configured.get(model, everybody)

    def version(self, model: ModelId) -> int:
        """Return the version of what was chosen for a model; 0 before the first choice."""
        choice = self.by_model.get(model)
        return choice.version if choice is not None else 0

    def shown(self, model: ModelId, timezone: str) -> dict[str, object]:
        """Return the document of `GET /quotas/{model}`."""
        whole = shown(self.of(model))
        inner = {key: value for key, value in whole.items() if _KEYS[key].is_inner}
        outer = {key: value for key, value in whole.items() if not _KEYS[key].is_inner}
        return {"model_id": model, WRAPPER: inner, **outer, "timezone": timezone, "version": self.version(model)}

    def changed(self, model: ModelId, document: Mapping[str, object], author: NodeId) -> "QuotaRegister":
        """Return the register after a partial change for one model. Raises QuotaError.

        `version` may be sent back: then it has to be the present one.
        """
        changes = unwrapped(document)
        self._check(model, changes.pop("version", None))
        version = min(self.version(model) + 1, limits.ORDER_VERSION_MAX)
        choice = QuotaChoice(model=model, quotas=patched(self.of(model), changes), version=version, author=author)
        if model not in self.by_model and len(self.chosen) >= limits.QUOTA_MODELS:
            message = f"{limits.QUOTA_MODELS} models have quotas already, and more are not told to others"
            raise QuotaError(ConfigFault.INVALID_VALUE, "model_id", message)
        return self.with_choices((choice,))

    def with_choices(self, choices: Iterable[QuotaChoice]) -> "QuotaRegister":
        """Return the register after hearing of choices; itself where none is news. The order makes no difference."""
        found = newest((*self.chosen, *choices))
        kept = sorted(found.values(), key=lambda one: one.model)
        whole = tuple(kept[: limits.QUOTA_MODELS])
        return self if whole == self.chosen else replace(self, chosen=whole)

    def _check(self, model: ModelId, version: object) -> None:
        """Refuse a change of something else than what is there."""
        if version is None or (version == self.version(model) and not isinstance(version, bool)):
            return
        if not isinstance(version, int) or isinstance(version, bool):
            _refuse("version", "a whole number")
        message = f"the quotas of {model} are at version {self.version(model)} by now, not {str(version)[:20]}"
        raise QuotaError(ConfigFault.VERSION_CONFLICT, "version", message)


NO_QUOTAS = QuotaRegister()
