"""Engines of this node are asked what they count, all at once."""

import asyncio
from pathlib import Path

from meshllm.core.engines import EngineState
from meshllm.daemon.engine_metrics import metrics_of
from tests.proxy.builders import a_model, a_view

TOLD = b"# TYPE llamacpp:x gauge\nllamacpp:x 1\n"


async def test_every_engine_tells_or_does_not(tmp_path: Path) -> None:
    """One that is gone, or silent, delays nobody and is told as None; a model without one is not asked."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(TOLD), TOLD))
        await reader.read()
        writer.close()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    well, silent = tmp_path / "well.sock", tmp_path / "silent.sock"
    view = a_view(
        a_model("well", socket=well), a_model("silent", socket=silent), a_model("gone", socket=tmp_path / "gone.sock"),
        a_model("stopped", state=EngineState.STOPPED),
    )  # fmt: skip
    async with (
        await asyncio.start_unix_server(tell, well),
        await asyncio.start_unix_server(say_nothing, silent),
    ):
        found = await metrics_of(view, within_s=0.5)

    assert found == {"well": TOLD.decode(), "silent": None, "gone": None}
