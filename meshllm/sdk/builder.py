"""From what a program wants of its node to the configuration of one.

Owns the builder and what may be said of a model. Decides what an embedded node is unless it is told otherwise: alone,
reachable from its own program only, without a trace on the disk. Doesn't know how a node runs.
"""

import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Generic, Self, TypeVar

from meshllm.config import Config, ConfigError, load
from meshllm.config_models import with_level
from meshllm.core.catalog import model_id_of
from meshllm.core.names import RESERVED_NAMES
from meshllm.core.policy import ModelPolicy
from meshllm.core.quantization import level_of
from meshllm.sdk.errors import NodeStartError

_ALONE = {"no_mdns": True, "bind_ip": "127.0.0.1"}
_ANY_PORT = 0
_KEY_BYTES = 24
_OF_THE_DAEMON = "MESH_LLM_"
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a node is to serve, by any name: of the catalogue, of a hub, or the path of its file."""

    name: str
    quant: str = ""
    """Bits (`4`) or the name of a GGUF quantisation; empty for what suits the machine."""

    def with_quant(self, level: str) -> "Model":
        """Return it in a quantisation: bits, or a name. Raises NodeStartError."""
        try:
            return replace(self, quant=level_of(level))
        except ValueError as error:
            raise NodeStartError(f"{self.name}: {error}") from None

    def with_isq(self, level: str) -> "Model":
        """Return it in a quantisation, as `with_quant`: a file that has it is taken, nothing is quantised in memory."""
        return self.with_quant(level)

    @property
    def full_name(self) -> str:
        """Return the name with its level. Raises NodeStartError where it names a file already."""
        found = with_level(self.name, self.quant)
        if self.quant and found == self.name:
            raise NodeStartError(f"{self.name!r} names its file already, so it cannot be of quantisation {self.quant}")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a node is to be."""

    config: Config
    models: tuple[str, ...]
    """Names of what has to be in memory before the node is handed over."""
    own_folder: Path | None
    """Made for this node alone, and gone with it."""


class MeshNodeBuilder(Generic[Made]):
    """Says what a node is to be, model by model; `build` starts it."""

    def __init__(self, start: Callable[[Plan], Awaitable[Made]]) -> None:
        """Begin with a node without models; `start` makes one of a plan."""
        self._start = start
        self._models: list[tuple[Model, str]] = []
        self._default = ""
        self._settings: dict[str, object] = {}

    def add_model(self, model: Model | str) -> Self:
        """Let the node serve a model by its own name."""
        return self._add(model, "")

    def add_model_with_alias(self, alias: str, model: Model | str) -> Self:
        """Let the node serve a model by another name as well. Raises NodeStartError for one that nobody may have."""
        if not alias.strip() or alias.casefold() in RESERVED_NAMES:
            raise NodeStartError(f"{alias!r} cannot name a model")
        return self._add(model, alias)

    def with_default_model(self, name: str) -> Self:
        """Let a model answer where none is named, by its name or alias; without this, it is the first."""
        self._default = name
        return self

    def with_settings(self, **settings: object) -> Self:
        """Set what docs/configuration.md lists, by the names there: `ctx_size=4096`, `join=[token]`, `port=9337`."""
        self._settings |= settings
        return self

    async def build(self) -> Made:
        """Start the node and return it when all of its models are in memory. Raises NodeStartError or RequestError."""
        return await self._start(self.plan())

    def plan(self) -> Plan:
        """Return what was said so far as a plan; makes the node's folder. Raises NodeStartError."""
        known = {alias or model.name for model, alias in self._models} | {model.name for model, _ in self._models}
        if self._default and self._default not in known:
            raise NodeStartError(f"the default {self._default!r} is none of the models: {', '.join(sorted(known))}")
        names = [model.full_name for model, _ in self._models]
        policies = [
            ModelPolicy(name=name, aliases=tuple(_aliases(model, alias, name)))
            for (model, alias), name in zip(self._models, names, strict=True)
        ]
        own_folder = None if self._settings.get("state_dir") else Path(mkdtemp(prefix="mesh-llm-"))
        try:
            config = self._config(own_folder)
        except (ConfigError, NodeStartError) as error:
            if own_folder is not None:
                own_folder.rmdir()
            raise NodeStartError(str(error)) from None
        default = self._default or (names[0] if names else "")
        config = replace(config, policies=tuple(policies), default_model=default)
        return Plan(config=config, models=tuple(map(_asked, names)), own_folder=own_folder)

    def _config(self, own_folder: Path | None) -> Config:
        """Return the configuration without models. Raises ConfigError or NodeStartError."""
        said = {name: value for name, value in self._settings.items() if value is not None}
        allowed = set(Config.__dataclass_fields__) - {"models", "policies", "remotes", "default_model", "client_keys"}
        if unknown := sorted(said.keys() - allowed):
            raise NodeStartError(f"there is no setting {unknown[0]!r}; docs/configuration.md lists them")
        settings = {"assign": "off", **({} if said.keys() & {"join", "join_file"} else _ALONE), **said}
        settings.setdefault("state_dir", str(own_folder))
        settings.setdefault("api_key", secrets.token_urlsafe(_KEY_BYTES))
        port = settings.pop("port", _ANY_PORT)
        if port:
            settings["port"] = port
        flags = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
        environ = {name: value for name, value in os.environ.items() if not name.startswith(_OF_THE_DAEMON)}
        config = load(flags, environ, has_usual_file=False)
        return config if port else replace(config, port=_ANY_PORT)

    def _add(self, model: Model | str, alias: str) -> Self:
        chosen = model if isinstance(model, Model) else Model(model)
        taken = {name.casefold() for known, other in self._models for name in (known.name, other) if name}
        for name in {chosen.name, alias} - {""}:
            if name.casefold() in taken:
                raise NodeStartError(f"{name!r} is the name of two models")
        self._models.append((chosen, alias))
        return self


def _aliases(model: Model, alias: str, name: str) -> list[str]:
    """Return the names of a model beside its full one: the alias, and what it was called, where that is no path."""
    own = "" if _is_file(model.name) else model.name
    return [one for one in dict.fromkeys((alias, own)) if one and one != name]


def _asked(name: str) -> str:
    """Return what a model is asked for by: the path of a file stands for its stem."""
    return model_id_of(name) if _is_file(name) else name


def _is_file(name: str) -> bool:
    return Path(name).suffix.lower() == ".gguf" and Path(name).expanduser().is_file()
