"""Nodes that live a whole life in the tests' own process."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from meshllm.config import Config
from meshllm.core.view import MeshView
from meshllm.daemon.logs import Ring
from meshllm.daemon.mesh_start import begin
from meshllm.daemon.node import Node, chosen_engine
from meshllm.daemon.state_dir import StateDir
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
