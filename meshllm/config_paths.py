"""Where a node keeps its things: the platform's folders for configuration, state, sockets and models.

Owns the names of these folders. Decides where sockets go when the usual folder is too long for them. Doesn't
make any folder: `daemon.state_dir` does, with its permissions.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

APP = "mesh-llm"
RUNTIME_PATH_BYTES = 60
"""Longest runtime folder: a Unix socket's path has 104 bytes on macOS, and names are added to this."""


def default_config_file(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return the configuration file that is read when it exists and no other is named."""
    if platform == "darwin":
        return _mac_folder(environ) / "config.toml"
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / APP / "config.toml"


def default_state_dir(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return the folder for what survives a restart."""
    if platform == "darwin":
        return _mac_folder(environ)
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / APP


def default_cache_dir(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return the folder for what can be made again: engines that were built, tensors of shared models."""
    if platform == "darwin":
        return _home(environ) / "Library" / "Caches" / APP
    return _xdg(environ, "XDG_CACHE_HOME", ".cache") / APP


def client_state_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of a client that this process runs: it leaves nothing, and runs beside a node."""
    return Path(environ.get("TMPDIR") or tempfile.gettempdir()) / f"{APP}-client-{os.getuid()}-{os.getpid()}"


def default_runtime_dir(environ: Mapping[str, str], state_dir: Path) -> Path:
    """Return the folder for sockets: one for each state folder, and short enough for them."""
    key = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:8]
    given = environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(given) / f"{APP}-{key}"] if given.startswith("/") and Path(given).is_dir() else []
    # Temporary folders are shared between users, so the name says whose it is; its owner is checked when made.
    private = f"{APP}-{os.getuid()}-{key}"
    places += [Path(environ.get("TMPDIR") or tempfile.gettempdir()) / private, Path("/tmp") / private]  # noqa: S108
    return next((place for place in places if len(os.fsencode(place)) < RUNTIME_PATH_BYTES), places[-1])


def default_models_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of model files that needs no configuration."""
    return _home(environ) / ".models"


def expanded(path: str, environ: Mapping[str, str], base: Path) -> Path:
    """Return an absolute path: `~` is the home folder, relative ones start at `base`."""
    if path == "~" or path.startswith("~/"):
        return _home(environ) / path[2:]
    return Path(os.path.normpath(base / path))


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME", "")
    return Path(home) if home.startswith("/") else Path.home()


def _mac_folder(environ: Mapping[str, str]) -> Path:
    return _home(environ) / "Library" / "Application Support" / APP


def _xdg(environ: Mapping[str, str], variable: str, default: str) -> Path:
    """Return an XDG base folder; the specification says to ignore relative ones."""
    given = environ.get(variable, "")
    return Path(given) if given.startswith("/") else _home(environ) / default
