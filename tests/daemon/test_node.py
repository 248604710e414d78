"""The composition root: everything hangs together, and everything ends."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.core.engines import EngineBuild, RpcBuild
from meshllm.daemon import node as node_module
from meshllm.daemon.errors import EngineChoiceError, PortInUseError
from meshllm.daemon.logs import Ring
from meshllm.daemon.mesh_start import begin
from meshllm.daemon.node import Node, chosen_engine
from meshllm.daemon.state_dir import StateDir
from meshllm.engine.inquiry import EngineUnusableError
from meshllm.engine.rpc_store import chosen_now, stored
from tests.daemon.lives import LIMIT_S, a_config, lived


async def test_it_serves_and_leaves_without_a_trace(tmp_path: Path) -> None:
    """Sockets, tasks, processes: all gone, and the note about the address too."""
    config = a_config(tmp_path)

    exit_code, views = await lived(config, lambda node: node.leave("test"))

    assert exit_code == 0
    assert views[-1].leaving
    assert not config.runtime_dir.exists()
    assert not (config.state_dir / "api.json").exists()


async def test_a_found_engine_that_cannot_run_is_told_and_the_node_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody chose it, and a node without an engine still lists, pulls and shows."""

    async def refuse(**_: object) -> EngineBuild:
        raise EngineUnusableError("too old a processor")

    monkeypatch.setattr(node_module, "probe_build", refuse)
    config = replace(a_config(tmp_path), engine="auto")
    state = StateDir(config.state_dir, config.runtime_dir)
    try:
        node = Node(config, state, Ring(), begin(config, state), await chosen_engine(config))
        await node.open()
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            tasks = node.start(group, lambda _: None)
            view = node.views.newest
            while view.engine_failure is None:
                view = await node.views.changed(view.epoch)
            assert view.engine_failure.message == "too old a processor"
            assert not view.leaving
            node.leave("test")
            await node.left
            await node.close()
            tasks.cancel_all()
    finally:
        state.release()


async def test_a_node_holds_the_build_that_shares_models_as_long_as_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no newer build removes it meanwhile."""
    config = a_config(tmp_path)
    folder = tmp_path / "cache" / "engines" / "llama-cpp-python-1-abc"
    (folder / "bin").mkdir(parents=True)
    chosen_now(folder)
    own = await chosen_engine(config)
    assert own is not None
    rpc = RpcBuild(version="1", server=str(folder / "bin" / "server"), worker=str(folder / "bin" / "worker"))

    async def probed(*_: object, **__: object) -> EngineBuild:
        return replace(own, rpc=rpc)

    monkeypatch.setattr(node_module, "probe_build", probed)
    used: list[bool] = []

    def act(node: Node) -> None:
        used.extend(build.is_used for build in stored(tmp_path / "cache"))
        node.leave("test")

    await lived(config, act)

    assert used == [True]
    assert [build.is_used for build in stored(tmp_path / "cache")] == [False]


async def test_a_chosen_engine_that_cannot_run_is_wrong_usage(tmp_path: Path) -> None:
    """The start ends with its reason."""
    with pytest.raises(EngineChoiceError, match="does not exist") as refusal:
        await chosen_engine(replace(a_config(tmp_path), engine="/nonsense/llama-server"))

    assert refusal.value.exit_code == 2


async def test_a_taken_port_is_an_error_that_names_the_holder(tmp_path: Path) -> None:
    """And nothing of the second node stays behind."""
    config = a_config(tmp_path)
    server = await asyncio.start_server(lambda *_: None, config.host, config.port)
    state = StateDir(config.state_dir, config.runtime_dir)
    try:
        with pytest.raises(PortInUseError, match="already in use by process"):
            await Node(config, state, Ring(), begin(config, state), None).open()
    finally:
        state.release()
        server.close()
        await server.wait_closed()

    assert not config.runtime_dir.exists()
