"""The keys of a configuration file's tables, `[[models]]` and `[[remotes]]`, and reading one table by them.

Owns names, other spellings, kinds and meanings of the keys, and what is said of a key that does not exist. Decides
nothing about what keys mean together: `config_models` does. Doesn't know formats.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from meshllm.config_file import ConfigError, ConfigFile
from meshllm.config_kinds import KINDS, SECONDS, SWITCH, ValueKind, choice, number, whole, words
from meshllm.config_lines import child
from meshllm.core.policy import LoadMode
from meshllm.core.quantization import level_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a table."""

    kind: ValueKind
    meaning: str
    also: tuple[str, ...] = ()
    """Other spellings, of other programs."""
    table: str = ""
    """The table below the entry where it may stand, too."""


_NAME = words(most=512)
_NAMES = ValueKind(read_text=_NAME, is_list=True)
_ANYTHING = ValueKind(read_text=_NAME, types=(object,))
_PATH = ValueKind(read_text=words())
_URL = (
    "`http://host:port`, or `https`; a path may follow. For a certificate of one's own the variable `SSL_CERT_FILE` "
    "names the file of its authority."
)

MODEL_KEYS: Mapping[str, Key] = MappingProxyType({
    "name": Key(
        kind=ValueKind(read_text=_NAME), also=("model_id", "id", "model"),
        meaning="Which model: any name of it, a hub's `user/repo`, or the path of a file.",
    ),
    "aliases": Key(kind=_NAMES, also=("alias",), meaning="Further names to ask for it by."),
    "label": Key(kind=ValueKind(read_text=_NAME), meaning="For people; never a name to ask for."),
    "tags": Key(kind=_NAMES, meaning="Capabilities besides those that its file shows."),
    "type": Key(kind=choice("local", "remote"), meaning="`remote`: a server at `base_url` answers for it. [local]"),
    "base_url": Key(kind=ValueKind(read_text=_NAME), meaning="Of a remote one: `http://host:port`."),
    "api_key_env": Key(kind=ValueKind(read_text=_NAME), meaning="Of a remote one: the variable that has its key."),
    "api_key_file": Key(kind=_PATH, meaning="Of a remote one: the file that has its key."),
    "load": Key(
        kind=choice(*LoadMode),
        meaning="`eager`: at the start, as far as it fits; `lazy`: with the first request; `off`: when somebody "
        "orders it. [eager]",
    ),
    "preload": Key(kind=SWITCH, meaning='`true` is `load = "eager"`, `false` is `lazy`.'),
    "idle_unload_s": Key(kind=SECONDS, meaning="Unload it when nobody has asked for so long."),
    "min_replicas": Key(kind=whole(0, 1000), meaning="Nodes of the mesh that should serve it at least. [1]"),
    "min_warm": Key(kind=whole(0, 1000), meaning="Nodes that should have it in memory also unasked. [0]"),
    "split": Key(kind=SWITCH, meaning="Share it with other nodes, though it may fit on one."),
    "pinned": Key(kind=SWITCH, meaning="Never unload it to make room, nor for being idle."),
    "enabled": Key(kind=SWITCH, meaning="`false`: listed, and requests get `model_disabled`."),
    "kind": Key(
        kind=choice("auto", "text", "multimodal", "embedding", "rerank"), meaning="What to run it as. [auto]"
    ),
    "temperature": Key(kind=number(0, 10), meaning="Where a request says none."),
    "max_tokens": Key(kind=whole(1, 16_777_216), meaning="Longest answer where a request says none."),
    "quant": Key(
        kind=ValueKind(read_text=level_of, types=(str, int)), also=("in_situ_quant",), table="quantization",
        meaning="Which quantisation of it: bits (`4`) for the best file of so many, or a name (`Q4_K_M`).",
    ),
    "isq": Key(
        kind=ValueKind(read_text=_NAME, types=(str, int)), table="quantization", meaning="Refused: see `quant`."
    ),
    "context_tokens": Key(
        kind=whole(256, 16_777_216), also=("ctx_size",), table="engine", meaning="Context of each request."
    ),
    "slots": Key(
        kind=whole(1, 256), also=("parallel",), table="engine", meaning="Requests computed at the same time."
    ),
    "threads": Key(kind=whole(1, 1024), table="engine", meaning="Threads of its engine."),
    "gpu_layers": Key(
        kind=_ANYTHING, also=("num_device_layers", "n_gpu_layers"), table="engine",
        meaning='Layers on the GPU: a number, or `["0:20", "1:12"]` for several.',
    ),
    "load_timeout_s": Key(kind=SECONDS, table="engine", meaning="How long its load may go without progress."),
    "chat_template": Key(kind=_PATH, table="engine", meaning="File with a chat template."),
    "jinja": Key(
        kind=ValueKind(read_text=_NAME, types=(bool, str)), also=("jinja_explicit",), table="engine",
        meaning="Whether templates are read as Jinja; or the file with such a template. [true]",
    ),
    "engine_args": Key(
        kind=_NAMES, also=("args",), table="engine", meaning="Further arguments, as llama-server names them."
    ),
    "cpu": Key(kind=SWITCH, table="device", meaning="`true`: nothing of it on the GPU. The same for all models."),
    "known_as": Key(kind=ValueKind(read_text=_NAME), meaning="What another format derives its name from."),
})  # fmt: skip
"""Keys of `[[models]]`; those with a table may stand in `[models.<table>]`, too."""
HIDDEN_KEYS = frozenset({"known_as"})
REMOTE_KEYS: Mapping[str, Key] = MappingProxyType({
    "name": Key(kind=ValueKind(read_text=words(most=63)), meaning="What to call the server. [its host and port]"),
    "base_url": Key(kind=ValueKind(read_text=_NAME), meaning=_URL),
    "api_key_env": Key(kind=ValueKind(read_text=_NAME), meaning="The variable that has its key."),
    "api_key_file": Key(kind=_PATH, meaning="The file that has its key."),
    "models": Key(kind=_NAMES, meaning="Which of its models to serve. [all that it lists]"),
    "aliases": Key(kind=_ANYTHING, meaning="A table: what the mesh calls a model of it."),
})  # fmt: skip
"""Keys of `[[remotes]]`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One table, with its values by our keys and where each stands."""

    file: ConfigFile
    place: str
    values: Mapping[str, object]
    places: Mapping[str, str]

    def error(self, key: str, message: str) -> ConfigError:
        """Return the error that a key deserves, or the table where it has not got the key."""
        return self.file.error(self.places.get(key, self.place), message)

    def listed(self, key: str) -> tuple[str, ...]:
        """Return the values of a list; none where the key is absent."""
        found = self.values.get(key, ())
        return found if isinstance(found, tuple) else ()

    @property
    def is_remote(self) -> bool:
        """Tell whether a model is one of a server elsewhere."""
        return self.values.get("type") == "remote"


def read_entry(file: ConfigFile, place: str, given: object, keys: Mapping[str, Key]) -> Entry:
    """Return a table's checked values by our keys. Raises ConfigError."""
    if not isinstance(given, dict):
        raise file.error(place, "expected a table")
    values: dict[str, object] = {}
    places: dict[str, str] = {}
    tables = {key.table for key in keys.values()} - {""}
    for name, value, here in _flattened(file, place, given, tables):
        table = here[len(place) + 1 :].rpartition(".")[0]
        key = _key_of(name, table, keys)
        if key is None:
            raise file.error(here, _unknown(name, table, keys))
        if key in values:
            raise file.error(here, f"says the same as {file.error(places[key], '').key}")
        values[key], places[key] = _checked(file, keys[key].kind, value, here), here
    return Entry(file, place, values, places)


def _checked(file: ConfigFile, kind: ValueKind, value: object, place: str) -> object:
    if kind is _ANYTHING or (isinstance(value, bool) and bool in kind.types and str in kind.types):
        return value
    try:
        return kind.read(value, is_text=False)
    except ValueError as error:
        raise file.error(place, str(error)) from None


def items(file: ConfigFile, key: str) -> list[object]:
    """Return what a key lists; nothing where it is absent, or is no list of tables and names."""
    given = file.values.get(key, [])
    if isinstance(given, str) and key == "models":
        return [given]
    if not isinstance(given, list):
        raise file.error(key, f"expected tables, [[{key}]]" if key == "remotes" else _objection(given))
    for index, item in enumerate(given):
        if isinstance(item, dict) or (key == "models" and isinstance(item, str)):
            continue
        raise file.error(child(key, index), "expected a table" if key == "remotes" else _objection([item]))
    return [item for item in given if item != ""]


def _objection(given: object) -> str:
    """Say what is wrong with a list of names."""
    try:
        KINDS["models"].read(given, is_text=False)
    except ValueError as error:
        return str(error)
    return "expected a list of names or [[models]]"


def _flattened(
    file: ConfigFile, place: str, given: Mapping[str, object], tables: set[str]
) -> list[tuple[str, object, str]]:
    """Return (key, value, place) of an entry and of the tables below it; null is as good as absent."""
    found: list[tuple[str, object, str]] = []
    for name, value in given.items():
        here = child(place, name)
        if name in tables:
            if not isinstance(value, dict):
                raise file.error(here, f"expected a table, [{place.partition('[')[0]}.{name}]")
            found += [(key, below, child(here, key)) for key, below in value.items() if below is not None]
        elif value is not None:
            found.append((name, value, here))
    return found


def _key_of(name: str, table: str, keys: Mapping[str, Key]) -> str | None:
    """Return our name of a key, None where there is none of that name in that table."""
    for own, key in keys.items():
        if name in {own, *key.also} and table in {"", key.table}:
            return own
    return None


def _unknown(name: str, table: str, keys: Mapping[str, Key]) -> str:
    """Say that there is no such key, and which one was perhaps meant."""
    here = {spelling for own, key in keys.items() if table in {"", key.table} for spelling in (own, *key.also)}
    names = (here | ({key.table for key in keys.values()} - {""} if not table else set())) - HIDDEN_KEYS
    if table and (elsewhere := _key_of(name, "", keys)) is not None:
        other = keys[elsewhere].table
        return f"stands in [models.{other}], or beside `name`" if other else "stands beside `name`"
    near = difflib.get_close_matches(name.replace("-", "_"), sorted(names), n=1)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; there are {', '.join(sorted(names))}"
