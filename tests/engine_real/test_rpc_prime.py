"""What a worker has seen does not come again: the real server behind real tunnels, with its cache."""

import dataclasses
import tempfile
from pathlib import Path

import pytest

from meshllm.core import events as ev
from meshllm.core.engines import EngineBuild, SplitPart, SplitRun
from meshllm.core.ids import ModelId
from meshllm.core.limits import MIB
from meshllm.daemon.tensor_cache import TensorCache
from tests.daemon.lent import Lender, a_lender
from tests.daemon.test_rpc_tunnels import ways
from tests.engine.builders import a_bench, a_plan
from tests.engine_real.tiny_model import write_tiny_model
from tests.rpc_engine import RpcEngine
from tests.transport.builders import Mesh

pytestmark = [pytest.mark.engine, pytest.mark.rpc, pytest.mark.timeout(300)]
WIDTH = 1664
"""A matrix of so many floats each way is larger than 10 MiB: such tensors are offered by their hash."""
LAYER_BYTES = 7 * WIDTH * WIDTH * 4
MODEL = ModelId("wide")


async def loaded(lender: Lender, build: EngineBuild, file: Path, *, epoch: int, path: str) -> int:
    """Split a model's second layer off to the lender, and return how many bytes its load sent there."""
    order = lender.order(
        epoch, model=MODEL, memory_bytes=2 * LAYER_BYTES + 256 * MIB, first_layer=1, layers=1, path=path,
        digest=f"sha256:{epoch:064x}",
    )  # fmt: skip
    lender.lending.lend(order)
    await lender.next(ev.LendingReady)
    part = SplitPart(node=lender.port.node.id, layers=1, name="desk")
    split = SplitRun(epoch=epoch, workers=(part,), home_layers=1)
    plan = dataclasses.replace(a_plan(str(file), slots=1, context_tokens=64), split=split)
    tunnels = ways(lender, lender.host)
    with tempfile.TemporaryDirectory(prefix="mesh") as folder:
        async with a_bench(build, Path(folder)) as bench:
            opened = tunnels.open(MODEL, epoch, [lender.as_peer()])
            bench.supervisor.start(plan, opened)
            await bench.next(ev.EngineReady)
            sent_bytes = opened.sent_bytes
            bench.supervisor.stop(MODEL, kill=True)
            await bench.end()
        await tunnels.close()
    await lender.ended(epoch, MODEL)
    return sent_bytes


async def test_a_worker_that_has_the_file_is_sent_hardly_anything(
    rpc_engine: RpcEngine, tmp_path: Path, runtime_dir: Path
) -> None:
    """Less than a tenth of its layers, with the very first load; one without the file is sent all of them."""
    file = write_tiny_model(tmp_path / "wide.gguf", layers=2, embedding=WIDTH, feed_forward=WIDTH)
    build = EngineBuild(kind="xllamacpp", version="test", uses_gpu=False, rpc=rpc_engine.build)
    mesh = Mesh()
    async with a_lender(mesh, mesh.member(), build, TensorCache(tmp_path / "tensors", runtime_dir)) as lender:
        without = await loaded(lender, build, file, epoch=1, path="")
        primed = await loaded(lender, build, file, epoch=2, path=str(file))

    assert without > LAYER_BYTES
    assert primed < LAYER_BYTES / 10
