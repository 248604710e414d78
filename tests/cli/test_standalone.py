"""Answers without a node, from the real disk and machine."""

from pathlib import Path

import pytest

from meshllm.cli import standalone
from meshllm.cli.failures import CommandError
from meshllm.config import Config
from tests.core.builders import a_gpu, a_machine, a_spec


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return a configuration of empty folders."""
    (tmp_path / "models").mkdir()
    return Config(models_dirs=(tmp_path / "models",), state_dir=tmp_path / "state", offline=True)


def test_empty_folder_has_no_models(config: Config) -> None:
    """And a file that only looks like one is a problem with a reason."""
    assert standalone.models(config) == ((), ())

    (config.models_dirs[0] / "bad.gguf").write_bytes(b"not a model")
    models, problems = standalone.models(config)
    assert models == ()
    assert [Path(problem.path).name for problem in problems] == ["bad.gguf"]


def test_unknown_names_become_sentences(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every function that takes one."""
    with pytest.raises(CommandError, match="no model 'nope' is on this disk"):
        standalone.remove(config, "nope")
    with pytest.raises(CommandError):
        standalone.pull(config, "nope/nope:nope", lambda _done, _total: None)
    monkeypatch.setattr("meshllm.daemon.standalone.models", lambda _: ((a_spec("m-Q4"), a_spec("m-Q8")), ()))
    with pytest.raises(CommandError, match="m-Q4, m-Q8"):
        standalone.find(config, "m")


def test_machine_is_measured(config: Config) -> None:
    """The one that runs this."""
    assert standalone.resources(config).cores > 0


def test_memory_is_what_the_core_computes(config: Config) -> None:
    """On the GPU where it would run there."""
    machine = a_machine(gpus=(a_gpu(),))
    on_gpu = dict(standalone.memory(config, a_spec(), machine, uses_gpu=True))
    on_cpu = dict(standalone.memory(config, a_spec(), machine, uses_gpu=False))
    too_large = dict(standalone.memory(config, a_spec(size_bytes=10**12), machine, uses_gpu=True))

    assert (on_gpu["GPU layers"], on_cpu["GPU layers"]) == ("31 of 31", "0 of 31")
    assert too_large["fits"] == "no"


def test_member_is_who_has_a_mesh_on_disk(home: Path) -> None:
    """A client never is: it begins anew each time."""
    config = Config(state_dir=home)
    assert not standalone.is_member(config)

    (home / "mesh.json").write_text("x")

    assert standalone.is_member(config)
    assert not standalone.is_member(Config(state_dir=home, client=True))
