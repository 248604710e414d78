"""What a configuration file says of single models and of servers to adopt, as policies and servers.

Owns what the keys of `[[models]]` and `[[remotes]]` become. Decides what contradicts itself. Doesn't know where a
model's file is, nor whether a server answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from meshllm.config_file import ConfigError, ConfigFile
from meshllm.config_keys import MODEL_KEYS, REMOTE_KEYS, Entry, items, read_entry
from meshllm.config_lines import child
from meshllm.core.engine_arguments import check_arguments
from meshllm.core.known_models import find, of_hub
from meshllm.core.names import RESERVED_NAMES
from meshllm.core.policy import LoadMode, ModelPolicy
from meshllm.core.quantization import best_of, nearest_of
from meshllm.core.remotes import RemoteBackend

Paths = Callable[[str], Path]
"""Makes a path of a file absolute."""


@dataclass(slots=True, kw_only=True)
class Said:
    """What a file says of models."""

    requested: list[str] = field(default_factory=list)
    """Names to serve from the start, in order."""
    policies: list[ModelPolicy] = field(default_factory=list)
    remotes: list[RemoteBackend] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    """Every name that may be asked for, folded, to the model that it is of."""


class ModelTables:
    """Reads the tables of one file."""

    def __init__(self, file: ConfigFile, absolute: Paths, environ: Mapping[str, str], level: str = "") -> None:
        """Read from a file; paths are made absolute by `absolute`, keys come from `environ`.

        `level` is the quantisation of the models that name none.
        """
        self._file = file
        self._absolute = absolute
        self._environ = environ
        self._level = level
        self._said = Said()
        self._identities: dict[object, str] = {}

    def read(self) -> Said:
        """Return what the file says of models. Raises ConfigError."""
        entries = [
            item if isinstance(item, str) else read_entry(self._file, child("models", index), item, MODEL_KEYS)
            for index, item in enumerate(items(self._file, "models"))
        ]
        self._refuse_mixed_devices([entry for entry in entries if isinstance(entry, Entry)])
        for index, entry in enumerate(entries):
            if isinstance(entry, str):
                name = with_level(entry, self._level)
                self._said.requested.append(name)
                for known in dict.fromkeys((name, entry)):
                    self._claim(known, name, self._file.error(child("models", index), ""))
            else:
                self._add_model(entry)
        for index, given in enumerate(items(self._file, "remotes")):
            self._add_remote(read_entry(self._file, child("remotes", index), given, REMOTE_KEYS))
        return self._said

    def _refuse_mixed_devices(self, entries: Sequence[Entry]) -> None:
        """Raise ConfigError where some models are kept off the GPU and others are not, unless that is allowed."""
        is_allowed = self._file.values.get("allow_mixed_cpu", False)
        if not isinstance(is_allowed, bool):
            raise self._file.error("allow_mixed_cpu", "expected true or false")
        if is_allowed:
            return
        local = [entry for entry in entries if not entry.is_remote]
        for entry in local:
            if bool(entry.values.get("cpu")) != bool(local[0].values.get("cpu")):
                culprit = entry if "cpu" in entry.values else local[0]
                message = "has to be the same for every model, unless the file says allow_mixed_cpu = true"
                raise culprit.error("cpu", message)

    # -- models ----------------------------------------------------------------------------------------

    def _add_model(self, entry: Entry) -> None:
        asked = entry.values.get("name")
        if not isinstance(asked, str):
            raise entry.error("name", "expected a name: which model is it?")
        if entry.is_remote:
            self._add_remote_model(entry, asked)
            return
        for key in ("base_url", "api_key_env", "api_key_file"):
            if key in entry.values:
                raise entry.error(key, 'is for servers elsewhere: say type = "remote"')
        name = self._named(entry, asked)
        policy = self._policy(entry, name, asked)
        identity = _identity(name)
        if identity in self._identities:
            raise entry.error("name", f"{asked!r} is the same model as {self._identities[identity]!r}")
        self._identities[identity] = asked
        self._said.policies.append(policy)
        for known in dict.fromkeys((name, asked, *policy.aliases)):
            self._claim(known, name, entry.error("aliases" if known in entry.listed("aliases") else "name", ""))
        if policy.load is LoadMode.EAGER and policy.is_enabled:
            self._said.requested.append(name)

    def _named(self, entry: Entry, asked: str) -> str:
        """Return the name to find a model by: a path as it is, a known one by its short name, with its level."""
        if "isq" in entry.values:
            near = nearest_of(str(entry.values["isq"]))
            raise entry.error("isq", f'models are not quantised while they load; quant = "{near}" takes a file of it')
        level = str(entry.values["quant"]) if "quant" in entry.values else None
        path = self._absolute(asked)
        if asked.lower().endswith(".gguf") and (path.is_file() or asked.startswith(("/", "./", "../", "~"))):
            name = str(path)
        else:
            name = _short_name(asked, level)
        if level is None:
            return with_level(name, self._level)
        if name.lower().endswith(".gguf") or ":" in name.rpartition("/")[2]:
            raise entry.error("quant", f"{asked!r} names its file already")
        return f"{name}:{level}"

    def _policy(self, entry: Entry, name: str, asked: str) -> ModelPolicy:
        values = dict(entry.values)
        layers, split = _gpu_layers(entry)
        if values.get("cpu"):
            if layers:
                raise entry.error("gpu_layers", "contradicts cpu = true")
            layers = 0
        template, has_jinja = self._template(entry)
        arguments = (*split, *entry.listed("engine_args"))
        try:
            check_arguments(arguments)
        except ValueError as error:
            raise entry.error("engine_args", str(error)) from None
        derived = [known for known in (asked, values.get("known_as")) if isinstance(known, str)]
        is_file = name.lower().endswith(".gguf") and Path(name).is_absolute()
        aliases = [*entry.listed("aliases"), *([] if is_file and "known_as" not in values else derived)]
        plain = {
            key: values[key]
            for key in (
                "idle_unload_s", "min_replicas", "min_warm", "context_tokens", "slots", "threads", "load_timeout_s",
                "kind", "label", "temperature", "max_tokens",
            )
            if key in values
        }  # fmt: skip
        return ModelPolicy(
            name=name, load=_load_mode(entry), is_pinned=bool(values.get("pinned")),
            is_split=bool(values.get("split")),
            is_enabled=bool(values.get("enabled", True)), gpu_layers=layers, chat_template=template,
            has_jinja=has_jinja, engine_args=arguments, tags=entry.listed("tags"),
            aliases=tuple(dict.fromkeys(alias for alias in aliases if alias != name)),
            **plain,  # type: ignore[arg-type]
        )  # fmt: skip

    def _template(self, entry: Entry) -> tuple[str, bool | None]:
        """Return (path of the template, whether it is Jinja)."""
        jinja, template = entry.values.get("jinja"), str(entry.values.get("chat_template") or "")
        if isinstance(jinja, str):
            if template:
                raise entry.error("jinja", "names a template, and so does chat_template: one of them is enough")
            template = jinja
        if not template:
            return "", jinja if isinstance(jinja, bool) else None
        path = self._absolute(template)
        if not path.is_file():
            raise entry.error("jinja" if isinstance(jinja, str) else "chat_template", f"there is no file {path}")
        return str(path), True if isinstance(jinja, str) else jinja if isinstance(jinja, bool) else None

    def _claim(self, known: str, model: str, place: ConfigError) -> None:
        """Take a name for a model. Raises ConfigError where another one has it, or nobody may have it."""
        if known.casefold() in RESERVED_NAMES:
            raise _at(place, f"{known!r} is reserved and cannot name a model")
        owner = self._said.names.setdefault(known.casefold(), model)
        if owner != model:
            raise _at(place, f"{known!r} is a name of two models: {owner!r} and {model!r}")

    # -- servers elsewhere -----------------------------------------------------------------------------

    def _add_remote_model(self, entry: Entry, asked: str) -> None:
        allowed = {"name", "type", "base_url", "api_key_env", "api_key_file", "aliases", "label"}
        for key in entry.values.keys() - allowed:
            raise entry.error(key, "is for models that run here; this one is remote")
        if "base_url" not in entry.values:
            raise entry.error("type", "a remote model needs a base_url")
        self._claim(asked, asked, entry.error("name", ""))
        for alias in entry.listed("aliases"):
            self._claim(alias, asked, entry.error("aliases", ""))
        self._add_server(entry, asked, (asked,), {})

    def _add_remote(self, entry: Entry) -> None:
        if "base_url" not in entry.values:
            raise entry.error("base_url", "expected a base_url: where is the server?")
        aliases = entry.values.get("aliases", {})
        if not isinstance(aliases, dict) or not all(isinstance(name, str) and name for name in aliases.values()):
            raise entry.error("aliases", 'expected a table of names: "what-the-server-calls-it" = "our-name"')
        models = entry.listed("models")
        for model in models:
            ours = str(aliases.get(model, model))
            self._claim(ours, ours, entry.error("models", ""))
        name = entry.values.get("name") or str(entry.values["base_url"]).partition("://")[2].partition("/")[0]
        self._add_server(entry, str(name), models, aliases)

    def _add_server(self, entry: Entry, name: str, models: tuple[str, ...], aliases: Mapping[str, str]) -> None:
        if any(server.name == name for server in self._said.remotes):
            raise entry.error("name", f"{name!r} is the name of two servers")
        server = RemoteBackend(
            name=name, base_url=_url(entry), api_key=self._key(entry), models=models,
            aliases=MappingProxyType(dict(aliases)),
        )  # fmt: skip
        self._said.remotes.append(server)

    def _key(self, entry: Entry) -> str:
        """Return a server's key, from where it is kept. A key is never shown."""
        variable, path = entry.values.get("api_key_env"), entry.values.get("api_key_file")
        if variable is not None and path is not None:
            raise entry.error("api_key_file", "api_key_env is given, too: one of them is enough")
        if variable is not None:
            if not self._environ.get(str(variable)):
                raise entry.error("api_key_env", f"the variable {variable} is not set")
            return _as_key(entry, "api_key_env", self._environ[str(variable)])
        if path is None:
            return ""
        try:
            with self._absolute(str(path)).open(encoding="utf-8") as stream:
                return _as_key(entry, "api_key_file", stream.read(_KEY_CHARS))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise entry.error("api_key_file", f"{path} cannot be read: {reason}") from None


_KEY_CHARS = 4096


def _as_key(entry: Entry, key: str, text: str) -> str:
    found = text.strip()
    if not found or not found.isascii() or not found.isprintable() or " " in found:
        raise entry.error(key, "holds no key: expected ASCII characters without spaces")
    return found


def _url(entry: Entry) -> str:
    """Return a server's address. Raises ConfigError where it is none."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - costs start-up time that few have to pay

    text = str(entry.values["base_url"])
    try:
        parts = urlsplit(text)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        raise entry.error("base_url", f"{text[:80]!r} is no address") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port or not text.isascii():
        raise entry.error("base_url", f"expected http://host:port or https://host, not {text[:80]!r}")
    if parts.username is not None or parts.password is not None:
        raise entry.error("base_url", "has a password in it; api_key_env or api_key_file keeps it apart")
    if parts.query or parts.fragment or any(char.isspace() for char in text):
        raise entry.error("base_url", "expected an address without spaces, ? and #")
    return text.rstrip("/")


def _load_mode(entry: Entry) -> LoadMode:
    preload, load = entry.values.get("preload"), entry.values.get("load")
    if preload is None:
        return LoadMode(str(load)) if load is not None else LoadMode.EAGER
    meant = LoadMode.EAGER if preload else LoadMode.LAZY
    if load not in {None, meant}:
        raise entry.error("preload", f"contradicts load = {str(load)!r}")
    return meant


def _gpu_layers(entry: Entry) -> tuple[int | None, tuple[str, ...]]:
    """Return (layers on GPUs, the arguments that spread them over several)."""
    given = entry.values.get("gpu_layers")
    if given is None:
        return None, ()
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 10_000:
        return given, ()
    parts = given.replace(";", ",").split(",") if isinstance(given, str) else given if isinstance(given, list) else []
    by_gpu: dict[int, int] = {}
    for part in parts:
        ordinal, colon, layers = str(part).strip().partition(":")
        if not colon and len(parts) == 1:
            ordinal, layers = "0", ordinal
        if not (_is_small(ordinal, 63) and _is_small(layers, 10_000)) or int(ordinal) in by_gpu:
            by_gpu = {}
            break
        by_gpu[int(ordinal)] = int(layers)
    if not by_gpu:
        raise entry.error("gpu_layers", 'expected a number of layers, or "GPU:LAYERS" for each GPU, as "0:20"')
    if set(by_gpu) == {0}:
        return by_gpu[0], ()
    shares = ",".join(str(by_gpu.get(ordinal, 0)) for ordinal in range(max(by_gpu) + 1))
    return sum(by_gpu.values()), ("--tensor-split", shares)


def _is_small(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= most


def _short_name(asked: str, level: str | None) -> str:
    """Return the catalogue's name of a hub's model; its repository with files where the catalogue lacks the level."""
    known = of_hub(asked)
    if known is None:
        return asked
    has_level = level is None or best_of(level, (file.quantization for file in known.files)) is not None
    return known.name if has_level else known.repository


def with_level(name: str, level: str) -> str:
    """Return the name of a model in a quantisation; as it is where it says one, names its file, or none is wanted."""
    is_path = name.lower().endswith(".gguf") or name.startswith(("/", "./", "../", "~"))
    if not level or is_path or ":" in name.rpartition("/")[2]:
        return name
    return f"{_short_name(name, level)}:{level}"


def _identity(name: str) -> object:
    """Return what two names have in common that mean the same file, as far as can be said without looking."""
    found = find(name)
    if found is None:
        return Path(name).stem.casefold() if Path(name).is_absolute() else name.casefold()
    model, file = found
    return (model.name, file.filename if file is not None else "")


def _at(place: ConfigError, message: str) -> ConfigError:
    return ConfigError(message, file=place.file, line=place.line, key=place.key)
