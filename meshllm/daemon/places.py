"""Where a node looks for model files, and what its own files are called."""

from dataclasses import replace
from pathlib import Path

from meshllm.config import Config
from meshllm.core.catalog import model_id_of
from meshllm.core.policy import ModelPolicy

DIGESTS_NAME = "digests.json"
REGISTRY_NAME = "registry.json"
TENSORS_NAME = "tensors"
SLOTS_NAME = "slots"
MANAGEMENT_SOCKET_NAME = "api.sock"


def model_places(config: Config) -> tuple[Path, ...]:
    """Return the model folders, and the files that were named by their path."""
    names = (*config.models, *(policy.name for policy in config.policies))
    named = [Path(name).expanduser() for name in dict.fromkeys(names) if is_model_path(name)]
    return (*config.models_dirs, *named)


def requested_names(config: Config) -> tuple[str, ...]:
    """Return the names of the requested models; a path stands for its file's stem."""
    return tuple(named(name) for name in config.models)


def policies(config: Config) -> tuple[ModelPolicy, ...]:
    """Return what is said of single models; a path stands for its file's stem."""
    return tuple(replace(policy, name=named(policy.name)) for policy in config.policies)


def named(name: str) -> str:
    """Return the name of a model that may be written as the path of its file."""
    return model_id_of(name) if is_model_path(name) else name


def is_model_path(name: str) -> bool:
    """Tell whether a name on the command line is the path of a file, rather than a model's name."""
    return name.lower().endswith(".gguf") and Path(name).expanduser().is_file()
