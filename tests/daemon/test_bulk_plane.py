"""A node's bulk plane: its port, who gets in by the newest view, and connections to others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshllm.core.announcement import Address
from meshllm.core.credentials import Revocation
from meshllm.core.effects import PeerSource
from meshllm.core.rights import CLIENT_ONLY, OWN_MACHINE
from meshllm.core.view import MeshView
from meshllm.daemon.bulk_plane import BulkPlane
from meshllm.transport.bulk_channel import BulkCode, BulkError
from tests.daemon.giving import a_file, a_view
from tests.transport.builders import NOW_UNIX_S, Mesh, Node

LOOPBACK = "127.0.0.1"


def a_plane(node: Node, view: MeshView) -> BulkPlane:
    """Return a node's plane."""
    return BulkPlane(node.credentials, lambda: view, "studio", lambda: NOW_UNIX_S)


@asynccontextmanager
async def open_plane(node: Node, view: MeshView) -> AsyncIterator[BulkPlane]:
    """Return a plane that listens."""
    tasks: list[asyncio.Task[Any]] = []

    def start_task(name: str, work: Any) -> asyncio.Task[None]:
        tasks.append(asyncio.get_running_loop().create_task(work, name=name))
        return tasks[-1]

    plane = a_plane(node, view)
    plane.open(LOOPBACK, 0, node.identity, start_task)
    start_task("bulk", plane.run())
    try:
        yield plane
    finally:
        await plane.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def hosting(path: Path) -> MeshView:
    """Return what a node knows that may give files and has one."""
    view = a_view(a_file(path, b"GGUF" * 100))
    return replace(view, me=replace(view.me, rights=OWN_MACHINE))


def where(node: Node, plane: BulkPlane) -> PeerSource:
    """Return a node as a source."""
    return PeerSource(node=node.id, name="n", addresses=(Address(LOOPBACK, plane.port),), size_bytes=400)


async def test_a_node_gives_files_to_a_member(tmp_path: Path) -> None:
    """Dialled by another node's plane."""
    mesh = Mesh()
    giver = mesh.member()
    async with open_plane(giver, hosting(tmp_path / "own.gguf")) as plane:
        taker = a_plane(mesh.member(), hosting(tmp_path / "other.gguf"))
        channel = await asyncio.to_thread(taker.dial, where(giver, plane), lambda _: None)
        channel.close()

    assert channel.peer == giver.id


async def test_who_was_expelled_gets_nothing(tmp_path: Path) -> None:
    """As soon as the view says so."""
    mesh = Mesh()
    giver, expelled = mesh.member(), mesh.member()
    gone = Revocation(node=expelled.id, by=None, at_unix_s=1.0, until_unix_s=9e9)
    view = replace(hosting(tmp_path / "own.gguf"), revocations=(gone,))
    async with open_plane(giver, view) as plane:
        with pytest.raises(BulkError) as refused:
            await asyncio.to_thread(a_plane(expelled, view).dial, where(giver, plane), lambda _: None)

    assert refused.value.code is BulkCode.REJECTED


async def test_who_only_sends_requests_gets_nothing(tmp_path: Path) -> None:
    """Files are for nodes that host."""
    mesh = Mesh()
    giver, view = mesh.member(), hosting(tmp_path / "own.gguf")
    async with open_plane(giver, view) as plane:
        with pytest.raises(BulkError) as refused:
            await asyncio.to_thread(a_plane(mesh.member(CLIENT_ONLY), view).dial, where(giver, plane), lambda _: None)

    assert refused.value.reason == "no_right"


async def test_a_node_without_a_port_runs_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It says so and gives no files."""
    node = Mesh().member()
    plane = a_plane(node, hosting(tmp_path / "own.gguf"))

    plane.open("192.0.2.1", 0, node.identity, lambda name, work: pytest.fail(name))
    await plane.run()
    await plane.close()

    assert plane.port == 0
    assert "no TCP port" in caplog.text
