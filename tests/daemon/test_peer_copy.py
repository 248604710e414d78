"""Copies from peers: several at once, some of them lost, slow or lying, and a node that stops in between."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meshllm.core import limits
from meshllm.core.effects import PeerSource
from meshllm.daemon.held_pieces import HeldPieces
from meshllm.daemon.peer_copy import PeerCopies, Wanted
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from meshllm.inventory.piece_file import PieceFile
from meshllm.transport.bulk_channel import BulkChannel, BulkError
from meshllm.wire.bulk_frames import Piece, Want
from tests.daemon.giving import MIB, a_file, a_giver, dialling, sha256, some_bytes, source
from tests.transport.builders import Mesh

SIZE = 21 * MIB + 12_345
CONTENT = some_bytes(SIZE)


class Copying:
    """One node that copies into a folder."""

    def __init__(self, mesh: Mesh, folder: Path, content: bytes = CONTENT) -> None:
        self.target = folder / "here" / "own.gguf"
        self.wanted = Wanted(sha256=sha256(content), size_bytes=len(content), target=self.target)
        self.told: list[tuple[int, int, tuple[str, ...]]] = []
        self._copies = PeerCopies(dialling(mesh.member()))

    async def fetch(self, *sources: PeerSource) -> Path:
        """Copy from these."""
        return await self._copies.fetch(self.wanted, sources, lambda *said: self.told.append(said))

    @property
    def left(self) -> set[str]:
        """Return the names of the files in the folder."""
        return {file.name for file in self.target.parent.iterdir()} if self.target.parent.exists() else set()


def sending(content: bytes, *, pieces: int | None = None, wrong: bool = False, last: threading.Event | None = None):
    """Return a giver that answers so many pieces and then goes, or sends other bytes than it has, or the last late."""
    left = [pieces]

    def serve(channel: BulkChannel) -> None:
        with contextlib.suppress(BulkError):
            while True:
                soon = time.monotonic() + 30
                want = channel.hear(soon)
                assert isinstance(want, Want)
                if left[0] == 0:
                    return
                left[0] = None if left[0] is None else left[0] - 1
                channel.say(Piece(offset=want.offset, length=want.length, size_bytes=len(content)), soon)
                part = content[want.offset : want.offset + want.length]
                if last is not None and want.offset + want.length == len(content):
                    last.wait(30)
                channel.send_block(memoryview(bytes(len(part)) if wrong else part), soon)

    return serve


async def test_a_file_comes_from_two_peers_at_once(tmp_path: Path) -> None:
    """Whole, under its name, with nothing beside it; the progress says from whom."""
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    one, two = a_file(tmp_path / "1" / "own.gguf", CONTENT), a_file(tmp_path / "2" / "own.gguf", CONTENT)
    async with a_giver(mesh, one) as n1, a_giver(mesh, two) as n2:
        path = await copying.fetch(source(n1, SIZE, "n1"), source(n2, SIZE, "n2"))

    assert path.read_bytes() == CONTENT
    assert copying.left == {"own.gguf"}
    assert copying.told[-1] == (SIZE, SIZE, ("n1", "n2"))


async def test_what_comes_is_hashed_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that comes in its order is not read again, neither on the way nor in the end."""
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    read: list[int] = []
    real = PieceFile.hash_up_to

    def noted(file: PieceFile, whole_bytes: int, *is_over: Callable[[], bool]) -> None:
        read.append(whole_bytes - file.hashed_bytes)
        real(file, whole_bytes, *is_over)

    monkeypatch.setattr(PieceFile, "hash_up_to", noted)
    async with a_giver(mesh, a_file(tmp_path / "1" / "own.gguf", CONTENT)) as n1:
        path = await copying.fetch(source(n1, SIZE, "n1"))

    assert path.read_bytes() == CONTENT
    assert sum(read) == 0


async def test_pieces_that_come_too_early_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first piece comes last, and there is memory for two of the others."""
    monkeypatch.setattr("meshllm.daemon.peer_copy.HeldPieces", lambda: HeldPieces(blocks=4))
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    others = threading.Event()

    def first_last(channel: BulkChannel) -> None:
        with contextlib.suppress(BulkError):
            want = channel.hear(time.monotonic() + 30)
            assert isinstance(want, Want)
            others.wait(30)
            channel.say(Piece(offset=want.offset, length=want.length, size_bytes=SIZE), time.monotonic() + 30)
            channel.send_block(memoryview(CONTENT)[want.offset : want.offset + want.length], time.monotonic() + 30)

    def all_but_two(channel: BulkChannel) -> None:
        sent = 0
        with contextlib.suppress(BulkError):
            while isinstance(want := channel.hear(time.monotonic() + 30), Want):
                channel.say(Piece(offset=want.offset, length=want.length, size_bytes=SIZE), time.monotonic() + 30)
                channel.send_block(memoryview(CONTENT)[want.offset : want.offset + want.length], time.monotonic() + 30)
                sent += 1
                if sent == 4:
                    others.set()

    async with a_giver(mesh, serve=first_last) as n1, a_giver(mesh, serve=all_but_two) as n2:
        path = await copying.fetch(source(n1, SIZE, "n1"), source(n2, SIZE, "n2"))

    assert path.read_bytes() == CONTENT
    assert copying.left == {"own.gguf"}


async def test_a_peer_that_goes_leaves_its_pieces_to_the_others(tmp_path: Path) -> None:
    """One is gone after its second piece, the other gives the rest."""
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    spec = a_file(tmp_path / "1" / "own.gguf", CONTENT)
    async with a_giver(mesh, spec) as n1, a_giver(mesh, serve=sending(CONTENT, pieces=2)) as n2:
        path = await copying.fetch(source(n2, SIZE, "n2"), source(n1, SIZE, "n1"))

    assert path.read_bytes() == CONTENT


async def test_what_has_arrived_is_kept_for_the_next_try(tmp_path: Path) -> None:
    """A copy that nobody finishes goes on where it stopped, also in another process: all is on the disk."""
    mesh = Mesh()
    async with a_giver(mesh, serve=sending(CONTENT, pieces=4)) as n1:
        with pytest.raises(DownloadError) as broken:
            await Copying(mesh, tmp_path).fetch(source(n1, SIZE, "n1"))
    again = Copying(mesh, tmp_path)
    async with a_giver(mesh, serve=sending(CONTENT, pieces=2)) as n2:  # of the six that there are
        path = await again.fetch(source(n2, SIZE, "n2"))

    assert broken.value.code is DownloadCode.PEERS
    assert "n1" in broken.value.message
    assert path.read_bytes() == CONTENT
    assert again.left == {"own.gguf"}


async def test_cancelling_ends_every_connection_and_keeps_what_is_here(tmp_path: Path) -> None:
    """Whoever cancels does not wait for a peer."""
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    arrived = threading.Event()

    def stalls(channel: BulkChannel) -> None:
        with contextlib.suppress(BulkError):
            channel.hear(time.monotonic() + 30)
            arrived.set()
            channel.hear(time.monotonic() + 60)
            channel.hear(time.monotonic() + 60)

    async with a_giver(mesh, serve=stalls) as n1:
        task = asyncio.get_running_loop().create_task(copying.fetch(source(n1, SIZE, "n1")), name="copy")
        await asyncio.to_thread(arrived.wait, 10)
        began_s = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert time.monotonic() - began_s < 30.0


async def test_a_wrong_file_is_deleted_and_said_who_sent_it(tmp_path: Path) -> None:
    """One peer sends other bytes: nothing of it gets the name."""
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    async with a_giver(mesh, serve=sending(CONTENT, wrong=True)) as n1:
        with pytest.raises(DownloadError) as refused:
            await copying.fetch(source(n1, SIZE, "liar"))

    assert refused.value.code is DownloadCode.DIGEST_MISMATCH
    assert "liar" in refused.value.message
    assert copying.left == set()


async def test_with_a_liar_among_them_the_file_comes_from_one_of_the_others(tmp_path: Path) -> None:
    """Nobody knows whose bytes were wrong, so each is tried alone."""
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    spec = a_file(tmp_path / "1" / "own.gguf", CONTENT)
    async with a_giver(mesh, serve=sending(CONTENT, wrong=True)) as n1, a_giver(mesh, spec) as n2:
        path = await copying.fetch(source(n1, SIZE, "liar"), source(n2, SIZE, "n2"))

    assert path.read_bytes() == CONTENT


async def test_a_peer_that_is_too_slow_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece has a deadline."""
    monkeypatch.setattr("meshllm.daemon.peer_copy.BULK_PIECE_S", 0.3)
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    ended = threading.Event()

    def drips(channel: BulkChannel) -> None:
        want = channel.hear(time.monotonic() + 30)
        assert isinstance(want, Want)
        channel.say(Piece(offset=want.offset, length=want.length, size_bytes=SIZE), time.monotonic() + 30)
        with contextlib.suppress(BulkError):
            while not ended.wait(0.02):
                channel.send_block(memoryview(b"x"), time.monotonic() + 30)

    async with a_giver(mesh, serve=drips) as n1:
        with pytest.raises(DownloadError) as slow:
            await copying.fetch(source(n1, SIZE, "n1"))
        ended.set()

    assert (slow.value.code, "too slow" in slow.value.message) == (DownloadCode.PEERS, True)


def _says(step: Piece, extra: bytes = b""):
    def serve(channel: BulkChannel) -> None:
        with contextlib.suppress(BulkError):
            while True:
                want = channel.hear(time.monotonic() + 30)
                assert isinstance(want, Want)
                channel.say(step, time.monotonic() + 30)
                channel.send_block(memoryview(bytes(want.length) + extra), time.monotonic() + 30)

    return serve


@pytest.mark.parametrize(
    ("step", "extra"),
    [
        (Piece(offset=0, length=limits.BULK_PIECE_BYTES, size_bytes=SIZE + 1), b""),
        (Piece(offset=1, length=limits.BULK_PIECE_BYTES, size_bytes=SIZE), b""),
        (Piece(offset=0, length=limits.BULK_PIECE_BYTES - 1, size_bytes=SIZE), b""),
        (Piece(offset=0, length=limits.BULK_PIECE_BYTES, size_bytes=SIZE), b"more than was said"),
    ],
    ids=["another size", "another place", "too little", "too much"],
)
async def test_a_peer_that_sends_something_else_is_left(tmp_path: Path, step: Piece, extra: bytes) -> None:
    """What was not asked for is not written."""
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    async with a_giver(mesh, serve=_says(step, extra)) as n1:
        with pytest.raises(DownloadError) as refused:
            await copying.fetch(source(n1, SIZE, "n1"))

    assert refused.value.code is DownloadCode.PEERS
    assert not copying.target.exists()


async def test_a_file_that_is_another_by_now_is_not_given(tmp_path: Path) -> None:
    """The other peer gives all of it."""
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    spec, good = a_file(tmp_path / "1" / "own.gguf", CONTENT), a_file(tmp_path / "2" / "own.gguf", CONTENT)
    os.truncate(spec.path, 5 * MIB)
    async with a_giver(mesh, spec) as n1, a_giver(mesh, good) as n2:
        path = await copying.fetch(source(n1, SIZE, "n1"), source(n2, SIZE, "n2"))

    assert path.read_bytes() == CONTENT


async def test_a_full_disk_is_said_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the numbers that help."""
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage())
    with pytest.raises(DownloadError) as full:
        await copying.fetch(PeerSource(node=mesh.member().id, name="n1", addresses=(), size_bytes=SIZE))

    assert full.value.code is DownloadCode.NO_SPACE


class _Usage:
    free = 1000


async def test_a_disk_that_fills_up_ends_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other peer can help then."""
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    spec = a_file(tmp_path / "1" / "own.gguf", CONTENT)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    async with a_giver(mesh, spec) as n1, a_giver(mesh, spec) as n2:
        with pytest.raises(DownloadError) as stopped:
            await copying.fetch(source(n1, SIZE, "n1"), source(n2, SIZE, "n2"))

    assert stopped.value.code is DownloadCode.NO_SPACE


async def test_the_disk_takes_what_has_come_while_more_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the end of a large file does not wait for all of it."""
    monkeypatch.setattr("meshllm.daemon.peer_copy.BULK_SYNC_BYTES", 8 * MIB)
    taken, settle = threading.Event(), PieceFile.settle

    def settled(file: PieceFile) -> None:
        settle(file)
        taken.set()

    monkeypatch.setattr(PieceFile, "settle", settled)
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    async with a_giver(mesh, serve=sending(CONTENT, last=taken)) as n1:
        path = await copying.fetch(source(n1, SIZE, "n1"))

    assert taken.is_set()
    assert path.read_bytes() == CONTENT


async def test_a_disk_that_fails_while_more_comes_ends_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for bytes that cannot be kept: what was not sent yet is not waited for."""
    monkeypatch.setattr("meshllm.daemon.peer_copy.BULK_SYNC_BYTES", 8 * MIB)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    mesh, never = Mesh(), threading.Event()
    copying = Copying(mesh, tmp_path)
    async with a_giver(mesh, serve=sending(CONTENT, last=never)) as n1:
        with pytest.raises(DownloadError) as stopped:
            await copying.fetch(source(n1, SIZE, "n1"))
        was_sent = copying.told[-1][0] == SIZE
        never.set()

    assert stopped.value.code is DownloadCode.NO_SPACE
    assert not was_sent


async def test_more_peers_than_are_needed_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first few are enough to fill any line."""
    monkeypatch.setattr("meshllm.daemon.peer_copy.BULK_SOURCES", 1)
    mesh = Mesh()
    copying = Copying(mesh, tmp_path)
    asked: list[BulkChannel] = []
    spec = a_file(tmp_path / "1" / "own.gguf", CONTENT)
    async with a_giver(mesh, spec) as n1, a_giver(mesh, serve=asked.append) as n2:
        path = await copying.fetch(source(n1, SIZE, "n1"), source(n2, SIZE, "n2"))

    assert path.read_bytes() == CONTENT
    assert asked == []
