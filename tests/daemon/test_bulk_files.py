"""Giving files: what this node announces, by digest, as long as it is what was announced."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.core.catalog import ModelSpec
from meshllm.core.ids import NodeId
from meshllm.core.view import MeshView
from meshllm.daemon.bulk_files import BulkFiles, given
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError
from meshllm.wire.bulk_frames import Piece, Ready, Refused, Want
from tests.daemon.giving import MIB, a_file, a_view, sha256, some_bytes
from tests.transport.builders import Mesh
from tests.transport.bulk import a_port

CONTENT = some_bytes(2 * MIB + 5)
DIGEST = f"sha256:{sha256(CONTENT)}"


def soon() -> float:
    """Return a deadline."""
    return time.monotonic() + 30.0


@asynccontextmanager
async def giving(view: MeshView, is_member: Callable[[NodeId], bool] = lambda _: True) -> AsyncIterator[BulkChannel]:
    """Return a connection to a node that gives what a view has."""
    mesh = Mesh()
    async with a_port(mesh.member(), {"file": BulkFiles(lambda: view, is_member).serve}) as port:
        channel = await port.dial(mesh.member())
        try:
            yield channel
        finally:
            channel.close()


def ask(channel: BulkChannel, digest: str = DIGEST, offset: int = 0, length: int = 10) -> object:
    """Ask for a range; return the bytes, or what was said instead."""
    channel.say(Want(digest=digest, offset=offset, length=length), soon())
    said = channel.hear(soon())
    if not isinstance(said, Piece):
        return said.code if isinstance(said, Refused) else said
    block = bytearray(said.length)
    channel.receive_into(memoryview(block), soon())
    return bytes(block)


async def test_ranges_of_an_announced_file_are_given(tmp_path: Path) -> None:
    """As many as are asked for, on one connection."""
    async with giving(a_view(a_file(tmp_path / "own.gguf", CONTENT))) as channel:
        first = await asyncio.to_thread(ask, channel)
        rest = await asyncio.to_thread(ask, channel, DIGEST, 7, 2 * MIB - 2)

    assert (first, rest) == (CONTENT[:10], CONTENT[7 : 2 * MIB + 5])


async def test_other_digests_and_ranges_are_refused(tmp_path: Path) -> None:
    """By name of the reason; the connection goes on."""
    async with giving(a_view(a_file(tmp_path / "own.gguf", CONTENT))) as channel:
        unknown = await asyncio.to_thread(ask, channel, "sha256:" + "0" * 64)
        beyond = await asyncio.to_thread(ask, channel, DIGEST, len(CONTENT) - 5, 10)
        good = await asyncio.to_thread(ask, channel)

    assert (unknown, beyond, good) == ("not_here", "out_of_range", CONTENT[:10])


async def test_a_file_that_changed_or_went_is_refused(tmp_path: Path) -> None:
    """It would not be what its digest says."""
    spec = a_file(tmp_path / "own.gguf", CONTENT)
    async with giving(a_view(spec)) as channel:
        os.utime(spec.path, (1, 1))
        changed = await asyncio.to_thread(ask, channel)
    async with giving(a_view(spec)) as channel:
        os.unlink(spec.path)  # noqa: PTH108 - in an async test
        gone = await asyncio.to_thread(ask, channel)

    assert (changed, gone) == ("changed", "not_here")


async def test_a_member_that_is_expelled_meanwhile_gets_no_more(tmp_path: Path) -> None:
    """The rights are looked at with each range."""
    out: set[str] = set()
    view = a_view(a_file(tmp_path / "own.gguf", CONTENT))
    async with giving(view, lambda _: not out) as channel:
        before = await asyncio.to_thread(ask, channel)
        out.add("expelled")
        after = await asyncio.to_thread(ask, channel)

    assert (before, after) == (CONTENT[:10], "no_right")


async def test_a_file_that_ends_too_early_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was promised cannot be taken back: the peer sees a loss, not wrong bytes."""
    spec = a_file(tmp_path / "own.gguf", CONTENT)
    monkeypatch.setattr("meshllm.daemon.bulk_files._is_same", lambda *_: True)
    async with giving(a_view(spec)) as channel:
        os.truncate(spec.path, 100)
        with pytest.raises(BulkError) as lost:
            await asyncio.to_thread(ask, channel, DIGEST, 0, 1000)

    assert lost.value.code is BulkCode.LOST


async def test_a_disk_that_fails_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same."""

    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.preadv", fails)
    async with giving(a_view(a_file(tmp_path / "own.gguf", CONTENT))) as channel:
        with pytest.raises(BulkError) as lost:
            await asyncio.to_thread(ask, channel)

    assert lost.value.code is BulkCode.LOST


async def test_what_is_no_question_ends_the_connection(tmp_path: Path) -> None:
    """There is one kind of question here."""
    async with giving(a_view(a_file(tmp_path / "own.gguf", CONTENT))) as channel:
        await asyncio.to_thread(channel.say, Ready(), soon())
        with contextlib.suppress(BulkError):
            said = await asyncio.to_thread(channel.hear, soon())
            pytest.fail(f"answered {said}")


def test_only_what_is_announced_whole_and_sound_is_given(tmp_path: Path) -> None:
    """Sets, damaged files, dropped models and other digests are not."""
    spec = a_file(tmp_path / "own.gguf", CONTENT)
    view = a_view(spec)
    known = view.local[spec.id]

    def with_spec(changed: ModelSpec) -> MeshView:
        return replace(view, local={spec.id: replace(known, on_disk=changed)})

    assert given(view, DIGEST) == spec
    assert given(view, "sha256:" + "0" * 64) is None
    assert given(replace(view, me=replace(view.me, models_on_disk=())), DIGEST) is None
    assert given(with_spec(replace(spec, damage="bits flipped")), DIGEST) is None
    assert given(with_spec(replace(spec, digest="sha256:" + "0" * 64)), DIGEST) is None
    assert given(with_spec(replace(spec, files=("a", "b"))), DIGEST) is None
