"""Names on the command line may be paths."""

from pathlib import Path

from meshllm.config import Config
from meshllm.core.policy import ModelPolicy
from meshllm.daemon.places import is_model_path, model_places, policies, requested_names


def test_a_path_is_watched_and_asked_for_by_its_stem(tmp_path: Path) -> None:
    """`--model ./x.gguf` serves that file under its own name."""
    file = tmp_path / "x.gguf"
    file.write_bytes(b"")
    config = Config(models=(str(file), "smollm2-135m"), models_dirs=(tmp_path / "models",))

    assert model_places(config) == (tmp_path / "models", file)
    assert requested_names(config) == ("x", "smollm2-135m")


def test_only_files_that_exist_are_paths(tmp_path: Path) -> None:
    """A model may be called anything."""
    assert not is_model_path("x.gguf")
    assert not is_model_path(str(tmp_path))


def test_paths_in_the_configuration_are_watched_too(tmp_path: Path) -> None:
    """What is said of a file is said of the model in it."""
    file = tmp_path / "x.gguf"
    file.write_bytes(b"")
    config = Config(models_dirs=(tmp_path,), policies=(ModelPolicy(name=str(file)), ModelPolicy(name="y")))

    assert model_places(config) == (tmp_path, file)
    assert [policy.name for policy in policies(config)] == ["x", "y"]
