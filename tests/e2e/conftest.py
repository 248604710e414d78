"""Fixtures for tests with real daemons: a home for each, and model files that the fake engine can 'run'."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemons import Daemon
from tests.inventory import gguf_builder


@pytest.fixture
def daemon(tmp_path: Path) -> Callable[..., Daemon]:
    """Return a maker of daemons with the fake engine; not started, use it in a `with`."""

    def make(
        *arguments: str, engine: str = "fake", port: int = 0, models: tuple[str, ...] = ("tiny", "other"),
        stall_s: float | None = None, nofile: int | None = None, prefix: tuple[str, ...] = (),
    ) -> Daemon:  # fmt: skip
        home = tmp_path / f"h{len(list(tmp_path.iterdir()))}"
        environment = {} if stall_s is None else {"MESH_LLM_ENGINE_STALL_S": str(stall_s)}
        engine = engine.replace("{home}", str(home))
        made = Daemon(
            home,
            (*arguments, "--engine", engine, "--threads", "1"),
            port=port,
            environment=environment,
            nofile=nofile,
            prefix=prefix,
        )
        for name in models:
            gguf_builder.write(made.models / f"{name}.gguf", gguf_builder.llama(**{"general.name": name}))
        return made

    return make
