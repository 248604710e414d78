"""Nodes that give a file on loopback, for tests of copying."""

import hashlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from meshllm.core.catalog import ModelSpec
from meshllm.core.effects import PeerSource
from meshllm.core.view import MeshView
from meshllm.daemon.bulk_files import BulkFiles
from meshllm.transport.bulk_channel import BulkChannel
from meshllm.transport.bulk_dial import dial_bulk
from tests.core.builders import a_spec, a_story
from tests.transport.builders import Mesh, Node, terms
from tests.transport.bulk import Port, a_port

MIB = 1024 * 1024


def some_bytes(size_bytes: int, seed: int = 1) -> bytes:
    """Return bytes that look like nothing."""
    return random.Random(seed).randbytes(size_bytes)


def sha256(content: bytes) -> str:
    """Return a digest in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def a_file(path: Path, content: bytes, name: str = "own") -> ModelSpec:
    """Write a file and return it as an inventory has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    status = path.stat()
    return replace(
        a_spec(name), path=str(path), files=(str(path),), size_bytes=len(content), digest=f"sha256:{sha256(content)}",
        modified_s=status.st_mtime_ns / 1e9,
    )  # fmt: skip


def a_view(*specs: ModelSpec) -> MeshView:
    """Return what a node with these files knows."""
    return a_story(*specs).core.view


@asynccontextmanager
async def a_giver(
    mesh: Mesh, *specs: ModelSpec, serve: Callable[[BulkChannel], None] | None = None
) -> AsyncIterator[Port]:
    """Let a member give files, or serve connections as a test says."""
    view = a_view(*specs)
    files = BulkFiles(lambda: view, lambda _: True)
    async with a_port(mesh.member(), {"file": serve or files.serve}) as port:
        yield port


def source(port: Port, size_bytes: int, name: str) -> PeerSource:
    """Return a giver as the core names it."""
    return PeerSource(node=port.node.id, name=name, addresses=(port.address,), size_bytes=size_bytes)


def dialling(me: Node) -> Callable[[PeerSource, Callable[[BulkChannel], None]], BulkChannel]:
    """Return how a member connects to givers."""
    return lambda peer, opened: dial_bulk(peer.node, peer.addresses, "file", me.credentials(), terms(), opened)
