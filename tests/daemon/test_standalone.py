"""Questions that need no running node."""

from pathlib import Path

import pytest

from meshllm.config import Config
from meshllm.core.doctor.findings import Result
from meshllm.core.engines import EngineBuild
from meshllm.daemon import checks, standalone
from meshllm.daemon.standalone import StandaloneError
from meshllm.engine.rpc_programs import RpcProblem
from tests.e2e.daemons import free_port
from tests.inventory import gguf_builder


def a_config(tmp_path: Path, port: int = 0) -> Config:
    """Return settings with one model and one damaged file."""
    gguf_builder.write(tmp_path / "models" / "tiny.gguf")
    (tmp_path / "models" / "bad.gguf").write_bytes(b"nonsense" * 100)
    return Config(
        models_dirs=(tmp_path / "models",),
        state_dir=tmp_path / "s",
        cache_dir=tmp_path / "cache",
        engine="fake",
        port=port or free_port(),
        offline=True,
    )


def test_models_and_problems_are_found(tmp_path: Path) -> None:
    """Both are worth knowing before the first start."""
    models, problems = standalone.models(a_config(tmp_path))

    assert [spec.id for spec in models] == ["tiny"]
    assert [Path(problem.path).name for problem in problems] == ["bad.gguf"]


def test_removing_deletes_the_file_and_unknown_names_are_refused(tmp_path: Path) -> None:
    """Nothing is deleted by guess."""
    config = a_config(tmp_path)

    with pytest.raises(StandaloneError, match="no model 'nonsense'"):
        standalone.remove(config, "nonsense")
    assert [file.name for file in standalone.remove(config, "TINY")] == ["tiny.gguf"]
    assert not (tmp_path / "models" / "tiny.gguf").exists()


async def test_a_pull_without_a_network_says_so(tmp_path: Path) -> None:
    """A sentence, not a traceback."""
    with pytest.raises(StandaloneError) as caught:
        await standalone.pull(a_config(tmp_path), "smollm2-360m", lambda *_: None)

    assert caught.value.code == "offline"


async def test_the_engine_is_tested_and_an_unusable_one_explained(tmp_path: Path) -> None:
    """`engine show` and `doctor` tell the same."""
    config = a_config(tmp_path)
    found = await standalone.engine(config)
    missing = await standalone.engine(Config(engine="/nonsense/llama-server"))

    assert isinstance(found, EngineBuild)
    assert not isinstance(missing, EngineBuild)
    assert "/nonsense/llama-server" in missing.message


async def test_what_shares_models_is_looked_for_and_its_build_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one there is a sentence, also where one cannot be built."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("meshllm.engine.rpc_programs.package_folders", tuple)
    found = await standalone.sharing(a_config(tmp_path))
    with pytest.raises(StandaloneError) as refusal:
        await standalone.build_engine(
            a_config(tmp_path), lambda *_: None, native=False, cpu=True, jobs=1, wheel=tmp_path / "none.whl"
        )
    found_by_doctor = {check.name: check for check in await checks.checks(a_config(tmp_path))}

    assert isinstance(found, RpcProblem)
    assert refusal.value.code == "build_failed"
    assert found_by_doctor["sharing models"].result is Result.NOTE
    assert "engine build" in found_by_doctor["sharing models"].message
