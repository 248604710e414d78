"""The composition root: everything hangs together, and everything ends."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.config import Config
from meshllm.core.engines import EngineBuild
from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, OutcomeCode, Verb
from meshllm.core.view import MeshView
from meshllm.daemon import node as node_module
from meshllm.daemon.errors import EngineChoiceError, PortInUseError
from meshllm.daemon.logs import Ring
from meshllm.daemon.mesh_start import begin
from meshllm.daemon.node import Node, chosen_engine
from meshllm.daemon.state_dir import StateDir
from meshllm.engine.inquiry import EngineUnusableError
from tests.e2e.daemons import free_port
from tests.inventory import gguf_builder

LIMIT_S = 60.0


def a_config(tmp_path: Path) -> Config:
    """Return the settings of a small node with the fake engine."""
    gguf_builder.write(tmp_path / "models" / "tiny.gguf")
    return Config(
        models=("tiny",), models_dirs=(tmp_path / "models",), state_dir=tmp_path / "s", runtime_dir=tmp_path / "r",
        port=free_port(), name="n", engine="fake", threads=1, drain_s=1.0, offline=True,
        no_mdns=True, bind_ip="127.0.0.1",
    )  # fmt: skip


async def lived(config: Config, act: Callable[[Node], "asyncio.Future[None] | None"]) -> tuple[int, list[MeshView]]:
    """Run a node until it leaves; `act` is called once its model is ready. Return exit code and views."""
    state = StateDir(config.state_dir, config.runtime_dir)
    views: list[MeshView] = []
    try:
        node = Node(config, state, Ring(), begin(config, state), await chosen_engine(config))
        await node.open()
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            tasks = node.start(group, views.append)
            view = node.views.newest
            while not any(model.is_ready for model in view.local.values()):
                view = await node.views.changed(view.epoch)
            done = act(node)
            if done is not None:
                await done
            exit_code = await node.left
            await node.close()
            tasks.cancel_all()
        return exit_code, views
    finally:
        state.release()


async def test_it_serves_and_leaves_without_a_trace(tmp_path: Path) -> None:
    """Sockets, tasks, processes: all gone, and the note about the address too."""
    config = a_config(tmp_path)

    exit_code, views = await lived(config, lambda node: node.leave("test"))

    assert exit_code == 0
    assert views[-1].leaving
    assert not config.runtime_dir.exists()
    assert not (config.state_dir / "api.json").exists()


async def test_intents_reach_the_core_and_their_answers_come_back(tmp_path: Path) -> None:
    """What the management API asks is what the core does."""
    outcomes = []

    async def drop(node: Node) -> None:
        assert node.in_flight(ModelId("tiny")) == 0
        assert any("model loaded" in line for line in node.log_lines(ModelId("tiny")))
        assert node.journal()
        assert dict(node.memory(ModelId("tiny")))["fits"] == "yes"
        assert node.memory(ModelId("nonsense")) == ()
        outcomes.append(await node.ask(Intent(verb=Verb.DROP, model="tiny", request_id="")))

    def act(node: Node) -> "asyncio.Future[None]":
        return asyncio.get_running_loop().create_task(drop(node))

    exit_code, _ = await lived(a_config(tmp_path), act)

    assert exit_code == 0
    assert [outcome.code for outcome in outcomes] == [OutcomeCode.DONE]


async def test_removing_a_model_deletes_its_file(tmp_path: Path) -> None:
    """`rm` through a running node."""
    config = a_config(tmp_path)
    removed: list[Path] = []

    async def remove(node: Node) -> None:
        removed.extend(await node.remove(ModelId("tiny")))
        assert await node.remove(ModelId("nonsense")) == ()
        node.leave("test")

    await lived(config, lambda node: asyncio.get_running_loop().create_task(remove(node)))

    assert removed == [config.models_dirs[0] / "tiny.gguf"]
    assert not removed[0].exists()


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
