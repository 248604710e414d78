"""Gives model files to other members: ranges of what this node announces on its disk, by digest.

Owns nothing but the way from a digest to an open file. Decides that a file is given only while it is the one that was
announced. Doesn't know TLS or who asks: rights were looked at before. Runs on a connection's own thread.
"""

import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack

from meshllm.core.catalog import ModelSpec
from meshllm.core.ids import NodeId, short
from meshllm.core.limits import BULK_BLOCK_BYTES, BULK_IDLE_S, BULK_PIECE_S
from meshllm.core.serving.sources import is_giveable
from meshllm.core.view import MeshView
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError
from meshllm.wire.bulk_frames import Piece, Want, refused

log = logging.getLogger(__name__)


class BulkFiles:
    """Serves connections whose purpose is files."""

    def __init__(self, newest: Callable[[], MeshView], is_member: Callable[[NodeId], bool]) -> None:
        """Give what the newest view has on this disk, to whoever still is a member."""
        self._newest = newest
        self._is_member = is_member

    def serve(self, channel: BulkChannel) -> None:
        """Answer what a peer asks for until it goes. Raises BulkError."""
        block = memoryview(bytearray(BULK_BLOCK_BYTES))
        sent_bytes = 0
        with ExitStack() as files:
            descriptors: dict[str, tuple[int, ModelSpec]] = {}
            while True:
                try:
                    want = channel.hear(time.monotonic() + BULK_IDLE_S)
                except BulkError as error:
                    log.info("files given node=%s bytes=%d", short(channel.peer), sent_bytes)
                    if error.code in {BulkCode.LOST, BulkCode.TIMEOUT}:
                        return  # it has all that it wanted
                    raise
                if not isinstance(want, Want):
                    raise BulkError(BulkCode.PROTOCOL, "the peer asks for something that is no file")
                code = self._problem(channel.peer, want, descriptors, files)
                deadline_s = time.monotonic() + BULK_PIECE_S
                if code:
                    channel.say(refused(code, _SENTENCES[code]), deadline_s)
                    continue
                descriptor, spec = descriptors[want.digest]
                channel.say(Piece(offset=want.offset, length=want.length, size_bytes=spec.size_bytes), deadline_s)
                _send(channel, descriptor, want, block, deadline_s)
                sent_bytes += want.length

    def _problem(
        self, peer: NodeId, want: Want, descriptors: dict[str, tuple[int, ModelSpec]], files: ExitStack
    ) -> str:
        """Return why a range is not given; empty when its file is open by now."""
        if not self._is_member(peer):
            return "no_right"
        spec = given(self._newest(), want.digest)
        if spec is None:
            return "not_here"
        if want.offset + want.length > spec.size_bytes:
            return "out_of_range"
        known = descriptors.get(want.digest)
        if known is None:
            try:
                descriptor = os.open(spec.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                return "not_here"
            files.callback(os.close, descriptor)
            known = descriptors[want.digest] = (descriptor, spec)
        return "" if _is_same(*known) else "changed"


_SENTENCES = {
    "no_right": "the peer may not have files any more", "not_here": "no file on this disk has this digest",
    "out_of_range": "the file is shorter than that", "changed": "the file has changed since it was announced",
}  # fmt: skip


def given(view: MeshView, digest: str) -> ModelSpec | None:
    """Return the file with a digest that this node announces, as its own inventory knows it."""
    for announced in view.me.models_on_disk:
        if announced.digest == digest and is_giveable(announced):
            known = view.local.get(announced.model)
            spec = known.on_disk if known is not None else None
            if spec is not None and spec.digest == digest and not spec.damage and len(spec.files) == 1:
                return spec
    return None


def _is_same(descriptor: int, spec: ModelSpec) -> bool:
    status = os.fstat(descriptor)
    is_version = status.st_size == spec.size_bytes and status.st_mtime_ns / 1e9 == spec.modified_s
    return stat.S_ISREG(status.st_mode) and is_version


def _send(channel: BulkChannel, descriptor: int, want: Want, block: memoryview, deadline_s: float) -> None:
    """Send a range as it is. Raises BulkError where the file ends before: what was promised cannot be taken back."""
    sent = 0
    while sent < want.length:
        room = block[: min(len(block), want.length - sent)]
        try:
            count = os.preadv(descriptor, [room], want.offset + sent)
        except OSError as error:
            raise BulkError(BulkCode.LOST, f"a file cannot be read any more: {error.strerror or error}") from error
        if not count:
            raise BulkError(BulkCode.LOST, "a file became shorter while it was being given")
        channel.send_block(room[:count], deadline_s)
        sent += count
