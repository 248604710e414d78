"""Where a node looks for model files, and what its own files are called."""

from pathlib import Path

from meshllm.config import Config

DIGESTS_NAME = "digests.json"
REGISTRY_NAME = "registry.json"
MANAGEMENT_SOCKET_NAME = "api.sock"


def model_places(config: Config) -> tuple[Path, ...]:
    """Return the model folders, and the files that were named by their path."""
    named = [Path(name).expanduser() for name in config.models if is_model_path(name)]
    return (*config.models_dirs, *named)


def requested_names(config: Config) -> tuple[str, ...]:
    """Return the names of the requested models; a path stands for its file's stem."""
    return tuple(Path(name).stem if is_model_path(name) else name for name in config.models)


def is_model_path(name: str) -> bool:
    """Tell whether a name on the command line is the path of a file, rather than a model's name."""
    return name.lower().endswith(".gguf") and Path(name).expanduser().is_file()
