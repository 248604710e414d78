"""Flags, environment and the configuration file become one frozen `Config`.

Owns the names of all settings, their defaults, their checks and their precedence: flag, then
environment, then file, then default. Doesn't know what a setting does.
"""

from dataclasses import dataclass
from pathlib import Path

from meshllm.core import limits
from meshllm.core.resources import MemoryLimit

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9337


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a daemon is told at its start. Durations are seconds."""

    models: tuple[str, ...] = ()
    """Names to serve, in order; empty for 'what is on disk and fits'."""
    models_dirs: tuple[Path, ...] = ()
    """Folders of model files; the first takes downloads. Never empty after `load`."""
    state_dir: Path = Path()
    runtime_dir: Path = Path()
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
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
    api_key: str = ""
    insecure_no_auth: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    unknown_model: str = "reject"
    offline: bool = False
    min_model_mb: int = 500
    """Smaller files outside the catalogue are listed and loadable, but not served unasked."""
    load_wait_s: float = limits.LOAD_WAIT_S
    load_timeout_s: float = limits.LOAD_TIMEOUT_S
    drain_s: float = limits.DRAIN_S
    engine_stall_s: float = limits.ENGINE_STALL_S
    log_level: str = "info"
    log_format: str = "pretty"
    log_file: Path | None = None
