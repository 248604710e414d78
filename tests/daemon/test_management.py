"""What the management API asks is answered by the daemon's shells."""

import asyncio
from pathlib import Path

from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, OutcomeCode, Verb
from meshllm.daemon.node import Node
from tests.daemon.lives import a_config, lived


async def test_intents_reach_the_core_and_their_answers_come_back(tmp_path: Path) -> None:
    """What the management API asks is what the core does."""
    outcomes = []

    async def drop(node: Node) -> None:
        assert node.management.in_flight(ModelId("tiny")) == 0
        assert any("model loaded" in line for line in node.management.log_lines(ModelId("tiny")))
        assert node.management.journal()
        assert dict(node.management.memory(ModelId("tiny")))["fits"] == "yes"
        assert node.management.memory(ModelId("nonsense")) == ()
        outcomes.append(await node.management.ask(Intent(verb=Verb.DROP, model="tiny", request_id="")))

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
        removed.extend(await node.management.remove(ModelId("tiny")))
        assert await node.management.remove(ModelId("nonsense")) == ()
        node.leave("test")

    await lived(config, lambda node: asyncio.get_running_loop().create_task(remove(node)))

    assert removed == [config.models_dirs[0] / "tiny.gguf"]
    assert not removed[0].exists()
