"""How requests are routed, as people set it: the keys of `GET` and `POST /routing/config`.

Owns the keys, their ranges and defaults, and the merging of a partial change. Decides which of two choices counts:
this node's own, else the newest of the mesh. Doesn't know routing itself, nor HTTP.

Invariants: a change is taken whole or not at all; of two choices the same one counts at every node.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple, NoReturn

from meshllm.core import limits
from meshllm.core.ids import NodeId


class Strategy(StrEnum):
    """How one of several models, or of several hosts of a model, is chosen."""

    ROUND_ROBIN = "round_robin"
    LEAST_LOADED = "least_loaded"
    CACHE_AWARE = "cache_aware"
    QUOTA_AWARE = "quota_aware"
    RANDOM = "random"
    WEIGHTED_RANDOM = "weighted_random"
    LATENCY_BASED = "latency_based"
    AFFINITY_BASED = "affinity_based"


AB_TEST = "ab_test"
"""As a strategy it means: compare two models, and route as before within each."""
REJECT, FALL_BACK = "reject", "fallback"
NODE, MESH = "node", "mesh"
WRAPPER = "routing_config"
"""The key below which some programs put all others."""


class ConfigFault(StrEnum):
    """Why a change is refused."""

    INVALID_STRATEGY = "invalid_strategy"
    INVALID_VALUE = "invalid_value"
    UNKNOWN_KEY = "unknown_key"
    VERSION_CONFLICT = "version_conflict"


class RoutingConfigError(ValueError):
    """A change that is refused, with the key that is wrong."""

    def __init__(self, fault: ConfigFault, key: str, message: str) -> None:
        """Remember what to tell whoever asked for it."""
        super().__init__(message)
        self.fault = fault
        self.key = key
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """A share of one model's requests is copied to another, whose answers nobody sees."""

    of: str
    to: str
    sample: float
    """0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One model takes over from another step by step, of the requests that leave their model open."""

    of: str
    to: str
    steps: tuple[tuple[float, float], ...]
    """What the new one gets, 0 to 1, and for how many seconds; the last one lasts, and says 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreWeights:
    """What the composite score is made of. None is below 0; they need not add up to 1."""

    cache: float = 0.4
    load: float = 0.4
    quota: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingConfig:
    """Everything that people may say about routing."""

    strategy: Strategy = Strategy.CACHE_AWARE
    """Chooses the host, always."""
    model_strategy: Strategy = Strategy.LEAST_LOADED
    """Chooses the model, where a request leaves it open."""
    checks_health: bool = True
    """False sends requests to unhealthy hosts too: for measurements."""
    checks_quotas: bool = True
    optimizes_cache: bool = True
    """False: nothing is remembered of prompts."""
    max_load: float = 0.85
    """Above it a host is used only when all are above."""
    min_hit_rate: float = 0.3
    """Share of a prompt that some host has to have cached, for caches to decide."""
    affinity_timeout_s: float = 300.0
    """Since the session's last request."""
    affinity_from_user: bool = False
    """The fields `user` and `prompt_cache_key` name a session where nothing else does."""
    max_retries: int = 3
    retry_delay_s: float = 0.1
    unknown_model: str = REJECT
    ab_test_enabled: bool = False
    ab_test_split: float = 0.5
    """The first model's share."""
    ab_test_model_a: str | None = None
    ab_test_model_b: str | None = None
    variants: tuple[tuple[str, float], ...] = ()
    """Instead of the two: any number of models to weight, sorted."""
    weights: tuple[tuple[str, float], ...] = ()
    """For `weighted_random`: model or node to weight, sorted."""
    score_weights: ScoreWeights = field(default_factory=ScoreWeights)
    shadow: tuple[Shadow, ...] = ()
    rollout: Rollout | None = None
    """Takes the place of a comparison."""
    alarm_s: float = 0.001
    """A decision that takes longer is worth a warning."""


DEFAULT = RoutingConfig()


def _refuse(key: str, wanted: str) -> NoReturn:
    raise RoutingConfigError(ConfigFault.INVALID_VALUE, key, f"{key!r} must be {wanted}")


def _strategy(key: str, value: object) -> Strategy:
    if value not in list(Strategy):
        names = ", ".join(Strategy)
        raise RoutingConfigError(ConfigFault.INVALID_STRATEGY, key, f"{key!r} must be one of: {names}")
    return Strategy(str(value))


def _truth(key: str, value: object) -> bool:
    return value if isinstance(value, bool) else _refuse(key, "true or false")


def _number(key: str, value: object, most: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        _refuse(key, f"a number from 0 to {most:g}")
    return float(value)


def _up_to(most: float, scale: float = 1.0) -> Callable[[str, object], float]:
    return lambda key, value: _number(key, value, most) * scale


def _count(key: str, value: object) -> int:
    most = limits.ROUTING_RETRIES_MOST
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        _refuse(key, f"a whole number from 0 to {most}")
    return value


def _unknown_model(key: str, value: object) -> str:
    return str(value) if value in (REJECT, FALL_BACK) else _refuse(key, f"{REJECT!r} or {FALL_BACK!r}")


def _name(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value.encode()) <= limits.MODEL_NAME_BYTES:
        _refuse(key, f"the name of a model, of at most {limits.MODEL_NAME_BYTES} bytes, or null")
    return value


def _weights(key: str, value: object) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, Mapping) or len(value) > limits.ROUTING_WEIGHTS:
        _refuse(key, f"an object of at most {limits.ROUTING_WEIGHTS} names and weights")
    most = limits.ROUTING_WEIGHT_MOST
    return tuple(sorted((_name(key, name), _number(f"{key}.{name}", weight, most)) for name, weight in value.items()))


def _score_weights(key: str, value: object) -> ScoreWeights:
    if not isinstance(value, Mapping) or not value.keys() <= {"cache", "load", "quota"}:
        _refuse(key, "an object with `cache`, `load`, `quota`")
    most = limits.ROUTING_WEIGHT_MOST
    return ScoreWeights(**{name: _number(f"{key}.{name}", weight, most) for name, weight in value.items()})


def _shadow(key: str, value: object) -> tuple[Shadow, ...]:
    if not isinstance(value, list | tuple) or len(value) > limits.ROUTING_SHADOWS:
        _refuse(key, f"a list of at most {limits.ROUTING_SHADOWS} objects with `of`, `to`, `sample`")
    return tuple(_one_shadow(f"{key}[{number}]", one) for number, one in enumerate(value))


def _one_shadow(key: str, value: object) -> Shadow:
    if not isinstance(value, Mapping) or value.keys() != {"of", "to", "sample"}:
        _refuse(key, "an object with `of`, `to`, `sample`")
    of, to = _name(f"{key}.of", value["of"]), _name(f"{key}.to", value["to"])
    return Shadow(of=of, to=to, sample=_number(f"{key}.sample", value["sample"], 1.0))


def _rollout(key: str, value: object) -> Rollout | None:
    if value == {}:
        return None
    if not isinstance(value, Mapping) or value.keys() != {"of", "to", "steps"}:
        _refuse(key, "an object with `of`, `to`, `steps`, or an empty one")
    of, to, steps = _name(f"{key}.of", value["of"]), _name(f"{key}.to", value["to"]), value["steps"]
    if not isinstance(steps, list | tuple) or not 0 < len(steps) <= limits.ROLLOUT_STEPS:
        _refuse(f"{key}.steps", f"a list of one to {limits.ROLLOUT_STEPS} steps")
    last = len(steps) - 1
    return Rollout(
        of=of, to=to,
        steps=tuple(_step(f"{key}.steps[{at}]", step, is_last=at == last) for at, step in enumerate(steps)),
    )  # fmt: skip


def _step(key: str, value: object, *, is_last: bool) -> tuple[float, float]:
    wanted = 'a share and how long it lasts, as ["10%", "1h"] or [0.1, 3600]; the last one has a share alone'
    if not isinstance(value, list | tuple) or len(value) != (1 if is_last else 2):
        _refuse(key, wanted)
    share = _scaled_text(value[0], {"%": 0.01})
    lasts_s = 0.0 if is_last else _scaled_text(value[1], {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0})
    if not isinstance(share, float) or not 0 <= share <= 1 or not isinstance(lasts_s, float) or not lasts_s >= 0:
        _refuse(key, wanted)
    return share, lasts_s


def _scaled_text(value: object, units: Mapping[str, float]) -> float | None:
    """Return a number, or a text of one with a unit; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < _HUGE else None
    if not isinstance(value, str) or value[-1:] not in units:
        return None
    digits = value[:-1].strip()
    is_number = digits.isascii() and digits.replace(".", "", 1).isdigit() and len(digits) < _DIGITS
    return round(float(digits) * units[value[-1]], 9) if is_number else None


def _shown_rollout(value: Rollout | None) -> object:
    if value is None:
        return {}
    steps: list[list[float]] = [[share, seconds] for share, seconds in value.steps[:-1]]
    return {"of": value.of, "to": value.to, "steps": [*steps, [value.steps[-1][0]]]}


def _plain(value: object) -> object:
    return value


def _shown_weights(value: tuple[tuple[str, float], ...]) -> object:
    return dict(value)


def _shown_score(value: ScoreWeights) -> object:
    return {"cache": value.cache, "load": value.load, "quota": value.quota}


def _shown_shadow(value: tuple[Shadow, ...]) -> object:
    return [{"of": one.of, "to": one.to, "sample": one.sample} for one in value]


def _scaled(scale: float) -> Callable[[float], object]:
    return lambda value: round(value * scale, 6)


class _Key(NamedTuple):
    field: str
    read: Callable[[str, object], object]
    show: Callable[..., object] = _plain


_KEYS: dict[str, _Key] = {
    "strategy": _Key("strategy", _strategy),
    "model_strategy": _Key("model_strategy", _strategy),
    "enable_health_checks": _Key("checks_health", _truth),
    "enable_quota_checks": _Key("checks_quotas", _truth),
    "enable_cache_optimization": _Key("optimizes_cache", _truth),
    "max_load_threshold": _Key("max_load", _up_to(1.0)),
    "min_cache_hit_rate": _Key("min_hit_rate", _up_to(1.0)),
    "affinity_timeout_sec": _Key("affinity_timeout_s", _up_to(limits.AFFINITY_TIMEOUT_MOST_S)),
    "affinity_from_user": _Key("affinity_from_user", _truth),
    "max_retries": _Key("max_retries", _count),
    "retry_delay_ms": _Key("retry_delay_s", _up_to(limits.ROUTING_RETRY_DELAY_MOST_S * 1000, 0.001), _scaled(1000)),
    "unknown_model": _Key("unknown_model", _unknown_model),
    "ab_test_enabled": _Key("ab_test_enabled", _truth),
    "ab_test_split": _Key("ab_test_split", _up_to(1.0)),
    "ab_test_model_a": _Key("ab_test_model_a", _name),
    "ab_test_model_b": _Key("ab_test_model_b", _name),
    "ab_test_variants": _Key("variants", _weights, _shown_weights),
    "weights": _Key("weights", _weights, _shown_weights),
    "score_weights": _Key("score_weights", _score_weights, _shown_score),
    "shadow": _Key("shadow", _shadow, _shown_shadow),
    "rollout": _Key("rollout", _rollout, _shown_rollout),
    "routing_time_alarm_us": _Key("alarm_s", _up_to(1e6, 1e-6), _scaled(1e6)),
}
KEYS = tuple(_KEYS)
"""Every key, in the order in which they are shown."""
_MERGED = {"ab_test_variants", "score_weights", "weights"}
"""Objects of which a change may give parts."""
_HUGE, _DIGITS = 1e12, 16
"""Numbers of steps beyond which nobody means one."""
_SHOWN_KEYS, _SHOWN_CHARS = 8, 80
"""Of keys that do not exist, in the message that says so."""


def shown(config: RoutingConfig) -> dict[str, object]:
    """Return a configuration as the document of the API."""
    return {key: entry.show(getattr(config, entry.field)) for key, entry in _KEYS.items()}


def patched(config: RoutingConfig, changes: Mapping[str, object]) -> RoutingConfig:
    """Return the configuration with these keys changed; null brings a default back. Raises RoutingConfigError."""
    unknown = [key[:_SHOWN_CHARS] for key in changes if key not in _KEYS]
    if unknown:
        message = f"there is no key {', '.join(map(repr, unknown[:_SHOWN_KEYS]))}; the keys are: {', '.join(_KEYS)}"
        raise RoutingConfigError(ConfigFault.UNKNOWN_KEY, unknown[0], message)
    fields: dict[str, object] = {}
    if changes.get("strategy") == AB_TEST:
        changes = {key: value for key, value in changes.items() if key != "strategy"} | {"ab_test_enabled": True}
    for key, value in changes.items():
        entry = _KEYS[key]
        whole = _merged(entry, getattr(config, entry.field), value) if key in _MERGED else value
        fields[entry.field] = getattr(DEFAULT, entry.field) if whole is None else entry.read(key, whole)
    changed = replace(config, **fields)  # type: ignore[arg-type]
    has_both = changed.ab_test_model_a and changed.ab_test_model_b
    if changed.ab_test_enabled and not changed.variants and not has_both:
        _refuse(
            "ab_test_enabled",
            "false while there are no 'ab_test_variants', nor 'ab_test_model_a' and 'ab_test_model_b'",
        )
    if (size_bytes := _names_bytes(changed)) > limits.ROUTING_NAMES_BYTES:
        _refuse("weights", f"shorter: all names together take {size_bytes} bytes of {limits.ROUTING_NAMES_BYTES}")
    return changed


def checked(config: RoutingConfig) -> RoutingConfig:
    """Return a configuration that came from elsewhere, as its keys may be set. Raises RoutingConfigError."""
    return patched(DEFAULT, shown(config))


def differing(before: RoutingConfig, after: RoutingConfig) -> dict[str, tuple[object, object]]:
    """Return what differs between two configurations: key to the value before and after."""
    old, new = shown(before), shown(after)
    return {key: (old[key], new[key]) for key in _KEYS if old[key] != new[key]}


def unwrapped(document: Mapping[str, object]) -> dict[str, object]:
    """Return a change with its keys at the top, where some programs put them below `routing_config`."""
    flat = {key: value for key, value in document.items() if key != WRAPPER}
    inner = document.get(WRAPPER)
    if inner is None:
        return flat
    if not isinstance(inner, Mapping):
        _refuse(WRAPPER, "an object with the keys of the configuration")
    if twice := [key for key in inner if key in flat]:
        _refuse(twice[0][:_SHOWN_CHARS], f"given once: beside {WRAPPER!r}, or in it")
    return flat | dict(inner)


def _names_bytes(config: RoutingConfig) -> int:
    names = [name for name, _ in (*config.weights, *config.variants)]
    names += [name for one in config.shadow for name in (one.of, one.to)]
    names += [config.rollout.of, config.rollout.to] if config.rollout is not None else []
    return sum(len(name.encode()) for name in (*names, config.ab_test_model_a or "", config.ab_test_model_b or ""))


def _merged(entry: _Key, old: object, value: object) -> object:
    """Return an object with some of its members changed, and those that are null left out."""
    if not isinstance(value, Mapping):
        return value
    both = {**entry.show(old), **value}  # type: ignore[dict-item]
    return {name: part for name, part in both.items() if part is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingChoice:
    """How requests are routed mesh-wide. The highest (version, author) counts."""

    config: RoutingConfig
    version: int
    """Above all versions that its author knew."""
    author: NodeId


def rank(choice: RoutingChoice) -> tuple[int, NodeId, str]:
    """Return what orders choices, the same at every node, also where an author forgot that it used a version."""
    return choice.version, choice.author, repr(choice.config)


def newest(choices: Iterable[RoutingChoice]) -> RoutingChoice | None:
    """Return the choice that counts, or None where nobody made one."""
    return max(choices, key=rank, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRegister:
    """What was chosen, mesh-wide and for this node alone."""

    mesh: RoutingChoice | None = None
    node: RoutingConfig | None = None
    unknown_model: str = ""
    """What this node was started with: here it wins over what is chosen. Empty where nobody said."""
    effective: RoutingConfig = field(init=False, compare=False, repr=False)
    """What counts here; made once, for every request reads it."""

    def __post_init__(self) -> None:
        """Put together what counts."""
        pinned = replace(self._chosen, unknown_model=self.unknown_model) if self.unknown_model else self._chosen
        object.__setattr__(self, "effective", pinned)

    @property
    def _chosen(self) -> RoutingConfig:
        return self.node if self.node is not None else self.of_mesh

    @property
    def of_mesh(self) -> RoutingConfig:
        """Return what counts at nodes without a choice of their own."""
        return self.mesh.config if self.mesh is not None else DEFAULT

    @property
    def version(self) -> int:
        """Return the mesh-wide version, 0 before the first choice."""
        return self.mesh.version if self.mesh is not None else 0

    @property
    def scope(self) -> str:
        """Tell where what counts here was chosen: `node` or `mesh`."""
        return MESH if self.node is None else NODE

    def shown(self) -> dict[str, object]:
        """Return the document of `GET /routing/config`."""
        return {**shown(self.effective), "scope": self.scope, "version": self.version}

    def changed(self, document: Mapping[str, object], author: NodeId, usual: str = MESH) -> "RoutingRegister":
        """Return the register after a partial change. Raises RoutingConfigError.

        `scope` says for whom it is; without one, for this node while it has a choice of its own, else for the
        `usual` one. `version` may be sent back: then it has to be the present one. A change is one of what counts in
        its scope. One for the mesh ends this node's own choice; one that changes nothing else does that alone.
        """
        changes = unwrapped(document)
        scope = changes.pop("scope", None) or (usual if self.node is None else NODE)
        version = changes.pop("version", None)
        if scope not in (NODE, MESH):
            _refuse("scope", f"{NODE!r} or {MESH!r}")
        self._check(version)
        if scope == NODE:
            return replace(self, node=patched(self._chosen, changes))
        if not changes:
            return replace(self, node=None)
        version = min(self.version + 1, limits.ORDER_VERSION_MAX)
        config = patched(self.of_mesh, changes)
        return replace(self, mesh=RoutingChoice(config=config, version=version, author=author), node=None)

    def _check(self, version: object) -> None:
        """Refuse a change of something else than what is there."""
        if version is None or (version == self.version and not isinstance(version, bool)):
            return
        if not isinstance(version, int) or isinstance(version, bool):
            _refuse("version", "a whole number")
        message = f"the configuration is at version {self.version} by now, not {str(version)[:_SHOWN_CHARS]}"
        raise RoutingConfigError(ConfigFault.VERSION_CONFLICT, "version", message)


NOTHING_CHOSEN = RoutingRegister()
