"""Flags, environment and the configuration file become one frozen `Config`.

Owns the names of all settings, their defaults, their checks and their precedence: flag, then
environment, then file, then default. Doesn't know what a setting does.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from meshllm.config_cache import cache_of
from meshllm.config_file import ConfigError, ConfigFile
from meshllm.config_import import read_any
from meshllm.config_kinds import KINDS, ValueKind
from meshllm.config_models import ModelTables, Said, with_level
from meshllm.config_paths import (
    client_state_dir,
    default_cache_dir,
    default_config_file,
    default_models_dir,
    default_runtime_dir,
    default_state_dir,
    expanded,
)
from meshllm.config_quotas import NO_SETTINGS, quotas_of
from meshllm.config_routing import routing_of
from meshllm.config_sections import unfolded
from meshllm.core import limits
from meshllm.core.addresses import PeerPlace
from meshllm.core.announcement import Address
from meshllm.core.cache_config import CacheConfig
from meshllm.core.policy import ModelPolicy
from meshllm.core.quantization import nearest_of
from meshllm.core.quota_config import Quotas
from meshllm.core.remotes import RemoteBackend
from meshllm.core.resources import MemoryLimit
from meshllm.core.routing_config import RoutingConfig

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "Config", "ConfigError", "is_loopback", "load"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9337
ENVIRONMENT_PREFIX = "MESH_LLM_"
ENVIRONMENT_ALIASES = {
    "models": ("MESH_LLM_MODEL",),
    "log_level": ("NOPENAI_LOG_LEVEL",),
    "profile": ("NOPENAI_PROFILE",),
    "trace_endpoint": ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
}
"""Other variables that set a setting, asked after `MESH_LLM_<NAME>`."""
_FLAG_NAMES = {
    "models": "--model", "models_dirs": "--models-dir",
    "allowed_hosts": "--allowed-host", "allowed_origins": "--allowed-origin", "peers": "--peer",
}  # fmt: skip
_SECRETS = frozenset({"admin_key", "api_key", "join"})
_FROM_TABLES = frozenset({"models", "policies", "remotes"})
"""Settings that a file says in tables; `config_models` reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a daemon is told at its start. Durations are seconds."""

    models: tuple[str, ...] = ()
    """Names to serve, in order; empty for 'what is on disk and fits'."""
    policies: tuple[ModelPolicy, ...] = ()
    """What is said of single models, in the tables `[[models]]` of the file."""
    remotes: tuple[RemoteBackend, ...] = ()
    """Servers elsewhere that answer for models of this node, in the tables `[[remotes]]` of the file."""
    default_model: str = ""
    """What `default` and requests without a model stand for; empty for the first model to serve."""
    quant: str = ""
    """Which quantisation of the models that are named without one: bits (`4`) or a name (`Q4_K_M`)."""
    isq: str = ""
    """Refused: models are not quantised while they load. The refusal says which `quant` is nearest."""
    serve_all: bool = False
    """Serve everything on disk unasked, as far as it fits; what was used last stays."""
    assign: str = "auto"
    """Which models nobody serves this node takes over: `auto`, `disk` for those that lie here, `off` for none."""
    models_dirs: tuple[Path, ...] = ()
    """Folders of model files; the first takes downloads. Never empty after `load`."""
    join: tuple[str, ...] = field(default=(), repr=False)
    """Tokens of the mesh to join, any of which may work; `-` for standard input, `lan` to see what is in reach."""
    join_file: Path | None = None
    """File with tokens, one a line."""
    require_join: bool = False
    client: bool = False
    """Use the mesh and serve nothing: no engine, and a fresh identity and state folder with each start."""
    mesh_name: str = ""
    """What the mesh is called when this node founds it; shown on the local network."""
    peers: tuple[PeerPlace, ...] = ()
    """Members that may be dialled besides those of the token and the last run."""
    advertise: tuple[Address, ...] = ()
    """Where others can reach this node besides its own addresses; port 0 stands for the port that it has."""
    bind_ip: str = ""
    """Address for other nodes to connect to; empty for all."""
    bind_port: int | None = None
    """UDP port for other nodes, and TCP for files where that is free; None for the last one, else any."""
    no_mdns: bool = False
    split: bool = False
    """Share what is requested here with other nodes, though it may fit."""
    no_rpc: bool = False
    """Never lend memory and compute to a model that is split between nodes."""
    no_remote_control: bool = False
    """Never let other nodes load and unload models here."""
    state_dir: Path = Path()
    runtime_dir: Path = Path()
    """Private folder of Unix sockets; made where the platform keeps such things."""
    cache_dir: Path = Path()
    """What can be made again: engines that were built here, tensors of shared models. The platform's cache folder."""
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    console: int | None = None
    """Another port for the console, besides the API's."""
    name: str = ""
    max_vram: MemoryLimit = MemoryLimit(share=0.9)
    """Share of GPU memory, or of the machine's memory where there is no GPU."""
    ctx_size: int | None = None
    """Context for each request, in tokens; None to let the memory arithmetic choose."""
    parallel: int | None = None
    """Requests computed at the same time by each engine; None to choose."""
    threads: int | None = None
    """Threads of each engine; None for one for each physical core."""
    engine: str = "auto"
    """`auto`, `xllamacpp`, or the path of a `llama-server`."""
    api_key: str = field(default="", repr=False)
    admin_key: str = field(default="", repr=False)
    """Key that those have to show who change the node; empty for the API key, or for being the node's user here."""
    insecure_no_auth: bool = False
    insecure_local_admin: bool = False
    """Let everybody on this machine change the node."""
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    routing: RoutingConfig | None = None
    """How this node routes requests, whatever is chosen mesh-wide: the table `[routing]` of the file."""
    quotas: tuple[tuple[str, Quotas], ...] = ()
    """What models may be used for at this node, by id, where the mesh has not chosen it: the table `[quotas]`."""
    caches: CacheConfig | None = None
    """How this node shares out its prompt cache: the table `[cache]` of the file."""
    client_keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Keys that are good for models alone, and whose they are: the tables `[keys.NAME]` of the file."""
    quota_timezone: str = "UTC"
    """By whose clock hours and days begin for quotas."""
    unknown_model: str = ""
    """What becomes of requests for a model that nobody has, `reject` or `fallback`; empty for what routing says."""
    offline: bool = False
    min_model_mb: int = 500
    """Smaller files outside the catalogue are listed and loadable, but not served unasked."""
    load_wait_s: float = limits.LOAD_WAIT_S
    """How long a request waits for its model before it is told to come back."""
    load_timeout_s: float = limits.LOAD_TIMEOUT_S
    """How long a load may go without progress before its engine is ended."""
    drain_s: float = limits.DRAIN_S
    """How long running requests may take to finish when an engine or the node ends."""
    engine_stall_s: float = limits.ENGINE_STALL_S
    """How long an engine with work may stand still, using no processor, before it counts as hung."""
    profile: bool = False
    """Measure what takes how long, and show it at `/metrics?detailed=true`."""
    trace_endpoint: str = ""
    """Where traces are sent: the base, or the whole path, of a collector of OTLP over HTTP; empty for nowhere."""
    trace_share: float = 1.0
    """Share of the requests that are traced, of those whose clients do not say it, 0 to 1."""
    log_level: str = "info"
    log_format: str = "pretty"
    log_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surroundings:
    """What relative paths and `~` mean, and who hears of conflicts."""

    environ: Mapping[str, str]
    cwd: Path
    note: Callable[[str], None]


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    cwd: Path | None = None,
    platform: str = sys.platform,
    note: Callable[[str], None] = lambda _: None,
    has_usual_file: bool = True,
) -> Config:
    """Return the configuration that flags, environment and file give together. Raises ConfigError.

    `flags` has the fields' names, and `config` for the file's path; None means not given. `note` hears a
    sentence for every flag that wins over a variable that says something else. Without the usual file, one that
    nobody names is not read.
    """
    around = _Surroundings(environ=environ, cwd=cwd or Path.cwd(), note=note)
    file = _file(flags, around, platform if has_usual_file else "")
    names = [name for name in KINDS if name not in _FROM_TABLES | {"models_dirs"}]
    given = {name: _value(name, flags, file, around) for name in names}
    chosen: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    chosen["models_dirs"] = _models_dirs(flags, file, around)
    _refuse_quantising(flags, file, around)
    level = str(chosen.get("quant", ""))
    said = _said(file, around, level)
    chosen["models"] = _named_by_people(flags, around, level) or tuple(said.requested)
    if flags.get("quant") and not chosen["models"]:
        raise ConfigError("says of which quantisation a model is, and none is named: --model does", key="--quant")
    chosen["policies"], chosen["remotes"] = tuple(said.policies), tuple(said.remotes)
    chosen["default_model"] = _default_model(str(chosen.get("default_model", "")), said, flags, file)
    chosen["routing"] = None if file is None else routing_of(file)
    chosen["caches"] = None if file is None else cache_of(file)
    quotas = NO_SETTINGS if file is None else quotas_of(file)
    chosen["quotas"], chosen["quota_timezone"] = quotas.quotas, quotas.timezone
    chosen["client_keys"] = quotas.keys
    own_folder = client_state_dir(environ) if chosen.get("client") else default_state_dir(environ, platform)
    state_dir = chosen.setdefault("state_dir", own_folder)
    chosen.setdefault("runtime_dir", default_runtime_dir(environ, state_dir))  # type: ignore[arg-type]
    chosen.setdefault("cache_dir", default_cache_dir(environ, platform))
    chosen["name"] = chosen.get("name") or os.uname().nodename.split(".")[0][:63] or "node"
    config = Config(**chosen)  # type: ignore[arg-type]
    _refuse_open_door(config, flags, file)
    return config


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on can be reached from this machine only."""
    import ipaddress  # noqa: PLC0415 - costs start-up time that only a node has to pay

    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _file(flags: Mapping[str, object], around: _Surroundings, platform: str) -> ConfigFile | None:
    """Return the configuration file that was named, or the platform's usual one, where it has one, if it exists."""
    named = flags.get("config") or around.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    if not named and not platform:
        return None
    path = expanded(str(named), around.environ, around.cwd) if named else default_config_file(around.environ, platform)
    return unfolded(read_any(path), KINDS) if named or path.exists() else None


def _named_by_people(flags: Mapping[str, object], around: _Surroundings, level: str) -> tuple[str, ...]:
    """Return the models of flags or of the environment, each with the level that all are asked for in."""
    named = _value("models", flags, None, around)
    return tuple(with_level(str(name), level) for name in named) if isinstance(named, tuple) else ()


def _refuse_quantising(flags: Mapping[str, object], file: ConfigFile | None, around: _Surroundings) -> None:
    """Raise ConfigError where somebody wants a model to be quantised while it loads."""
    asked = _value("isq", flags, file, around)
    if asked is None:
        return
    message = f"models are not quantised while they load; --quant {nearest_of(str(asked))} takes a file of it"
    if flags.get("isq") is not None or _variable("isq", around.environ) is not None or file is None:
        raise ConfigError(message, key=_flag_name("isq"))
    raise file.error("isq", message)


def _said(file: ConfigFile | None, around: _Surroundings, level: str) -> Said:
    """Return what the file says of models; those without a level are asked for in this one."""
    if file is None:
        return Said()
    base = file.path.parent
    return ModelTables(file, lambda path: expanded(path, around.environ, base), around.environ, level).read()


def _default_model(name: str, said: Said, flags: Mapping[str, object], file: ConfigFile | None) -> str:
    """Return the default model. Raises ConfigError where the file that names the models has none of that name.

    A default of the file has to be one of its models; one of a flag, if a file was named beside it.
    """
    of_file = file is not None and file.values.get("default_model") == name and flags.get("default_model") is None
    has_all = bool(said.names) and all(server.models for server in said.remotes)
    if not name or not has_all or not (of_file or flags.get("config")):
        return name
    known = said.names.get(name.casefold())
    if known is not None:
        return known if Path(known).is_absolute() else name
    message = f"{name!r} is none of the models that the file names: {', '.join(dict.fromkeys(said.names.values()))}"
    if of_file and file is not None:
        raise file.error("default_model", message)
    raise ConfigError(message, key=_flag_name("default_model"))


def _value(name: str, flags: Mapping[str, object], file: ConfigFile | None, around: _Surroundings) -> object:
    """Return a setting's checked value from the strongest source that gives one, or None."""
    kind = KINDS[name]
    variable = _variable(name, around.environ)
    flag = flags.get(name)
    if flag is not None and flag not in ((), []):
        value = _checked(kind, flag, around, around.cwd, ConfigError("", key=_flag_name(name)), is_text=True)
        if variable is not None:
            _note_conflict(name, value, variable, around)
        return value
    if variable is not None:
        text = around.environ[variable]
        return _checked(kind, text, around, around.cwd, ConfigError("", key=variable), is_text=True)
    if file is not None and name in file.values:
        return _checked(kind, file.values[name], around, file.path.parent, file.error(name, ""), is_text=False)
    return None


def _checked(
    kind: ValueKind, given: object, around: _Surroundings, base: Path, place: ConfigError, *, is_text: bool
) -> object:
    """Return a value of its kind, with paths made absolute. Raises ConfigError at `place`."""
    try:
        value = kind.read(given, is_text=is_text)
    except ValueError as error:
        raise ConfigError(str(error), file=place.file, line=place.line, key=place.key) from None
    if not kind.is_path:
        return value
    if isinstance(value, tuple):
        return tuple(expanded(str(path), around.environ, base) for path in value)
    return expanded(str(value), around.environ, base)


def _note_conflict(name: str, value: object, variable: str, around: _Surroundings) -> None:
    """Say that a flag wins over a variable, where they differ."""
    try:
        other = _checked(KINDS[name], around.environ[variable], around, around.cwd, ConfigError(""), is_text=True)
    except ConfigError:
        other = None
    if other != value:
        shown = "" if name in _SECRETS else f"={around.environ[variable]}"
        around.note(f"{_flag_name(name)} on the command line wins over {variable}{shown}")


def _models_dirs(flags: Mapping[str, object], file: ConfigFile | None, around: _Surroundings) -> tuple[Path, ...]:
    """Return the folders of models: those of flags in front of the configured or default ones."""
    # Without variables: one that says something else is added here, not overruled.
    home_only = replace(around, environ={"HOME": around.environ.get("HOME", "")})
    from_flags = _value("models_dirs", flags, None, home_only)
    configured = _value("models_dirs", {}, file, around)
    behind = configured or (default_models_dir(around.environ),)
    paths = [path for paths in (from_flags, behind) if isinstance(paths, tuple) for path in paths]
    return tuple(dict.fromkeys(paths))


def _refuse_open_door(config: Config, flags: Mapping[str, object], file: ConfigFile | None) -> None:
    """Raise ConfigError for a node that anybody on the network could use."""
    if is_loopback(config.host) or config.api_key or config.insecure_no_auth:
        return
    message = (
        f"{config.host} can be reached from other machines, so an API key is needed: set MESH_LLM_API_KEY, "
        "or say --insecure-no-auth to let everybody in"
    )
    if flags.get("host") is None and file is not None and file.values.get("host") == config.host:
        raise file.error("host", message)
    raise ConfigError(message, key="--host")


def _variable(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the environment variable that sets a setting; an empty one is as good as none."""
    variables = (f"{ENVIRONMENT_PREFIX}{name.upper()}", *ENVIRONMENT_ALIASES.get(name, ()))
    return next((variable for variable in variables if environ.get(variable)), None)


def _flag_name(name: str) -> str:
    return _FLAG_NAMES.get(name, f"--{name.replace('_', '-')}")
