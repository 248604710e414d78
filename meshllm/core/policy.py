"""What people say about models: how each is to be run and kept, and what this node does unasked.

Owns the shapes; configuration files and flags become these, whatever their format. Decides nothing:
`serving` does.
"""

from dataclasses import dataclass
from enum import StrEnum


class LoadMode(StrEnum):
    """When a model comes into memory."""

    LAZY = "lazy"
    """With the first request."""
    EAGER = "eager"
    """At the start, as far as it fits."""
    OFF = "off"
    """Only when somebody orders it; requests get `model_not_loaded`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPolicy:
    """What is said about one model. None and empty leave the choice to the node."""

    name: str
    """Any name of it: id, alias, catalogue or hub name, or the path of its file."""
    aliases: tuple[str, ...] = ()
    load: LoadMode = LoadMode.LAZY
    idle_unload_s: float | None = None
    """Unload it when nobody has asked for so long."""
    min_replicas: int = 0
    """Hosts below which idle ones are not unloaded, mesh-wide; 0: the last one may go as well."""
    min_warm: int = 0
    is_pinned: bool = False
    """Never unloaded to make room, nor for being idle."""
    is_split: bool = False
    """Shared with other nodes, though it may fit on one."""
    is_enabled: bool = True
    """False: listed, and refused with `model_disabled`."""
    context_tokens: int | None = None
    slots: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    load_timeout_s: float | None = None
    chat_template: str = ""
    """Path of a template file."""
    has_jinja: bool | None = None
    engine_args: tuple[str, ...] = ()
    kind: str = "auto"
    """`auto`, `text`, `multimodal`, `embedding` or `rerank`."""
    label: str = ""
    """For people; never a name to ask for."""
    tags: tuple[str, ...] = ()
    """Capabilities besides those that its file shows."""
    temperature: float | None = None
    max_tokens: int | None = None
