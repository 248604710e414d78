"""Copies one file from several peers at once: a thread for each peer, one that hashes, one that waits for the disk.

Owns the copy while it runs. Decides nothing about sources or order: `core.serving.sources` and `.pieces` do. What has
arrived is kept whatever happens, except a whole file with the wrong digest: that is deleted, and said who sent it.

What a peer's thread has received it writes, and leaves in memory for the thread that hashes: in the order of the file,
while the next pieces come. Only what came too early for that is read from the disk again.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from meshllm.core.effects import PeerSource
from meshllm.core.ids import NodeId
from meshllm.core.limits import (
    BULK_BLOCK_BYTES,
    BULK_PIECE_BYTES,
    BULK_PIECE_S,
    BULK_PIECES_AHEAD,
    BULK_SOURCES,
    BULK_SYNC_BYTES,
    BULK_TRIES,
)
from meshllm.core.serving.pieces import FilePiece, PieceBook
from meshllm.daemon.held_pieces import HeldPieces
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from meshllm.inventory.piece_file import PieceFile
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError
from meshllm.wire.bulk_frames import Piece, Refused, Want

log = logging.getLogger(__name__)

Dial = Callable[[PeerSource, Callable[[BulkChannel], None]], BulkChannel]
"""Connects to a peer for files, telling of the connection before it can block on it. Raises BulkError."""
Tell = Callable[[int, int, tuple[str, ...]], None]
"""Called with bytes done, bytes in all, and the names of the peers that they come from."""

_TELL_S = 0.25
_HOPELESS_REFUSALS = frozenset({"not_here", "changed", "no_right", "not_served", "unknown_use", "out_of_range"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be copied, and where to."""

    sha256: str
    size_bytes: int
    target: Path


class PeerCopies:
    """Copies files from peers."""

    def __init__(self, dial: Dial) -> None:
        """Connect with `dial`, on threads."""
        self._dial = dial

    async def fetch(self, wanted: Wanted, sources: Sequence[PeerSource], tell: Tell) -> Path:
        """Copy a file. Raises DownloadError. Cancelling ends every connection at once.

        A file from several peers with the wrong digest is fetched again from one at a time: then it is clear whose
        bytes they are.
        """
        chosen = list(sources[:BULK_SOURCES])
        rounds = [chosen, *([source] for source in chosen if len(chosen) > 1)]
        problems = []
        for these in rounds:
            try:
                return await _Copy(wanted, these, self._dial, tell).run()
            except DownloadError as error:
                problems.append(error.message)
                if error.code is not DownloadCode.DIGEST_MISMATCH:
                    raise
        raise DownloadError(DownloadCode.DIGEST_MISMATCH, "; ".join(problems))


class _Copy:
    """One try at a file."""

    def __init__(self, wanted: Wanted, sources: Sequence[PeerSource], dial: Dial, tell: Tell) -> None:
        self._wanted = wanted
        self._sources = sources
        self._dial = dial
        self._tell = tell
        self._names = {source.node: source.name or source.node[:8] for source in sources}
        self._changed = threading.Condition()
        """Guards everything below."""
        self._is_over = False
        self._channels: set[BulkChannel] = set()
        self._problems: dict[NodeId, str] = {}
        self._failure: DownloadError | None = None
        self._busy = 0
        self._book = PieceBook(0)
        self._held = HeldPieces()

    async def run(self) -> Path:
        """Copy the file. Raises DownloadError."""
        keeper = ThreadPoolExecutor(1, thread_name_prefix="copy")
        work = asyncio.get_running_loop().run_in_executor(keeper, self._copied)
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to hear of it
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_TELL_S)
                self._show()
            return work.result()
        finally:
            # Every wait in the threads fails by now. The file is theirs: it is closed when the last of them is done.
            self._end()
            keeper.shutdown(wait=False)
            await asyncio.wait({work})

    # -- the thread that owns the file ---------------------------------------------------------------------

    def _copied(self) -> Path:
        """Return the file, whole and verified. Raises DownloadError."""
        with PieceFile(self._wanted.target, self._wanted.sha256, self._wanted.size_bytes) as file:
            with self._changed:
                self._book, self._busy = PieceBook(self._wanted.size_bytes, file.done), len(self._sources)
            with ThreadPoolExecutor(len(self._sources) + 2, thread_name_prefix="copy") as threads:
                jobs = [threads.submit(self._follow, file), threads.submit(self._settle, file)]
                jobs += [threads.submit(self._from, source, file) for source in self._sources]
            for job in jobs:
                job.result()
            senders = self._senders(file)
            if self._failure is not None or not self._book.is_complete:
                file.mark(self._book.done, senders, is_last=True)
                raise self._failure or DownloadError(DownloadCode.PEERS, self._why())
            return self._finished(file, senders)

    def _finished(self, file: PieceFile, senders: set[str]) -> Path:
        try:
            return file.finish()
        except DownloadError as error:
            if error.code is not DownloadCode.DIGEST_MISMATCH:
                raise
            message = f"what {', '.join(sorted(senders))} sent is another file: {error.message}"
            log.warning("a copy was deleted file=%s: %s", self._wanted.target.name, message)
            raise DownloadError(error.code, message) from error

    def _senders(self, file: PieceFile) -> set[str]:
        return {*file.senders, *(self._names[peer] for peer in self._book.sent)}

    def _show(self) -> None:
        with self._changed:
            names = tuple(sorted(self._names[peer] for peer in self._book.sent))
            done_bytes = self._book.done_bytes
        self._tell(done_bytes, self._wanted.size_bytes, names)

    def _end(self) -> None:
        with self._changed:
            self._is_over = True
            for channel in self._channels:
                channel.abort()
            self._changed.notify_all()

    def _why(self) -> str:
        said = "; ".join(f"{self._names[peer]}: {words}" for peer, words in sorted(self._problems.items()))
        return f"no peer gave {self._wanted.target.name}: {said}"

    # -- the thread that hashes ----------------------------------------------------------------------------

    def _follow(self, file: PieceFile) -> None:
        """Hash the file's beginning while the rest comes, so that the end costs little."""
        try:
            while (part := self._next_part(file)) is not None:
                if isinstance(part, int):
                    file.hash_up_to(part, lambda: self._is_over)
                    continue
                block, length = part
                file.hash_block(block[:length])
                with self._changed:
                    self._held.give_back(block)
        except DownloadError as error:
            self._fail(error)

    def _next_part(self, file: PieceFile) -> tuple[memoryview, int] | int | None:
        """Wait for what is to be hashed next: a piece in memory, or up to where on the disk; None at the end."""
        with self._changed:
            while not self._is_over:
                hashed_bytes = file.hashed_bytes
                if (held := self._held.take(hashed_bytes // BULK_PIECE_BYTES)) is not None:
                    return held
                if hashed_bytes < self._book.whole_bytes:
                    return min(hashed_bytes + BULK_PIECE_BYTES, self._book.whole_bytes)
                if self._is_done():
                    return None
                self._changed.wait()
        return None

    # -- the thread that waits for the disk ----------------------------------------------------------------

    def _settle(self, file: PieceFile) -> None:
        """Have the disk take what has come while more comes, so that the end does not wait for all of it."""
        settled_bytes = self._book.done_bytes
        try:
            while True:
                with self._changed:
                    while not self._is_done() and self._book.done_bytes < settled_bytes + BULK_SYNC_BYTES:
                        self._changed.wait()
                    if self._is_done():
                        return
                    settled_bytes = self._book.done_bytes
                file.settle()
        except DownloadError as error:
            self._fail(error)

    def _is_done(self) -> bool:
        return self._is_over or self._book.is_complete or not self._busy

    def _fail(self, error: DownloadError) -> None:
        """End the copy: this disk is the problem, not a peer."""
        with self._changed:
            self._failure = self._failure or error
        self._end()

    # -- a peer's thread -------------------------------------------------------------------------------------

    def _from(self, source: PeerSource, file: PieceFile) -> None:
        """Take pieces from one peer until there are none to take, or it fails too often."""
        try:
            for _ in range(BULK_TRIES):
                try:
                    if self._connected(source, file):
                        return
                except BulkError as error:
                    log.info("a peer gives no more node=%s: %s", self._names[source.node], error.message)
                    with self._changed:
                        self._problems[source.node] = error.message
                    if error.reason in _HOPELESS_REFUSALS or error.code is BulkCode.REJECTED:
                        return
                except DownloadError as error:
                    self._fail(error)
                    return
                finally:
                    with self._changed:
                        self._book.lost(source.node)
                        self._changed.notify_all()
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _connected(self, source: PeerSource, file: PieceFile) -> bool:
        """Take pieces on one connection; tell whether all is done. Raises BulkError or DownloadError."""
        if self._is_over:
            return True
        opened: list[BulkChannel] = []

        def note(channel: BulkChannel) -> None:
            with self._changed:
                opened.append(channel)
                self._channels.add(channel)
                if self._is_over:
                    channel.abort()

        try:
            self._take_all(self._dial(source, note), source, file)
        finally:
            with self._changed:
                self._channels -= set(opened)
            for channel in opened:
                channel.close()
        return True

    def _take_all(self, channel: BulkChannel, source: PeerSource, file: PieceFile) -> None:
        block = self._room()
        asked: deque[FilePiece] = deque()
        try:
            while True:
                while len(asked) < BULK_PIECES_AHEAD and (piece := self._next(source, is_idle=not asked)) is not None:
                    deadline_s = time.monotonic() + BULK_PIECE_S
                    digest = f"sha256:{self._wanted.sha256}"
                    channel.say(Want(digest=digest, offset=piece.offset, length=piece.length), deadline_s)
                    asked.append(piece)
                if not asked:
                    return
                self._receive(channel, asked[0], file, block)
                block = self._arrived(source, asked.popleft(), block, file)
        finally:
            with self._changed:
                self._held.give_back(block)

    def _room(self) -> memoryview:
        with self._changed:
            return self._held.room()

    def _next(self, source: PeerSource, *, is_idle: bool) -> FilePiece | None:
        """Return what to ask a peer for. With nothing to do it waits: what others were asked for may come back."""
        with self._changed:
            while not self._is_over and not self._book.is_complete:
                piece = self._book.take(source.node)
                if piece is not None or not is_idle:
                    return piece
                self._changed.wait()
        return None

    def _receive(self, channel: BulkChannel, piece: FilePiece, file: PieceFile, block: memoryview) -> None:
        """Take one piece, into memory and the file. Raises BulkError or DownloadError."""
        deadline_s = time.monotonic() + BULK_PIECE_S
        match channel.hear(deadline_s):
            case Piece(offset=piece.offset, length=piece.length, size_bytes=self._wanted.size_bytes):
                pass
            case Refused(code=code, message=message):
                raise BulkError(BulkCode.REFUSED, message or code, code)
            case _:
                raise BulkError(BulkCode.PROTOCOL, "the peer sends another piece, or of a file of another size")
        got = 0
        while got < piece.length:
            part = block[got : min(got + BULK_BLOCK_BYTES, piece.length)]
            channel.receive_into(part, deadline_s)
            file.write(piece.offset + got, part)
            got += len(part)

    def _arrived(self, source: PeerSource, piece: FilePiece, block: memoryview, file: PieceFile) -> memoryview:
        """Leave a piece to the thread that hashes; return a block for the next one."""
        with self._changed:
            self._book.arrived(source.node, piece)
            file.mark(self._book.done, self._senders(file))
            self._held.hold(piece.number, block, piece.length)
            self._changed.notify_all()
            return self._held.room()
