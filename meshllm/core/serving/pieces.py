"""The pieces of one file that comes from several peers at once: which are here, which are asked of whom.

Owns the count. Decides which piece is asked of a peer next: the first that nobody is asked for, so that the file's
beginning is whole early and can be hashed while the rest comes. Doesn't know sockets or disks. Not for several
threads at once.
"""

from collections.abc import Collection
from dataclasses import dataclass

from meshllm.core.ids import NodeId
from meshllm.core.limits import BULK_PIECE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePiece:
    """A range of a file, numbered from 0."""

    number: int
    offset: int
    length: int


class PieceBook:
    """Which pieces of one file are here, on their way, or to be asked for."""

    def __init__(self, size_bytes: int, done: Collection[int] = (), piece_bytes: int = BULK_PIECE_BYTES) -> None:
        """Begin with the pieces of an earlier try."""
        self.size_bytes = size_bytes
        self._piece_bytes = piece_bytes
        self._count = -(-size_bytes // piece_bytes)
        self._done = {number for number in done if 0 <= number < self._count}
        self._asked: dict[int, NodeId] = {}
        self._returned: list[int] = []
        self._next = 0
        self._whole = 0
        self.sent: dict[NodeId, int] = {}
        """How many pieces each peer has sent."""
        self.done_bytes = sum(self._piece(number).length for number in self._done)
        self._advance()

    @property
    def is_complete(self) -> bool:
        """Tell whether every piece is here."""
        return self._whole == self._count

    @property
    def whole_bytes(self) -> int:
        """Return how much of the file is here from its beginning without a gap."""
        return min(self._whole * self._piece_bytes, self.size_bytes)

    @property
    def done(self) -> frozenset[int]:
        """Return the numbers of the pieces that are here."""
        return frozenset(self._done)

    def take(self, peer: NodeId) -> FilePiece | None:
        """Return the piece to ask a peer for, or None while all that is missing is asked of others."""
        if self._returned:
            number = min(self._returned)
            self._returned.remove(number)
        else:
            while self._next in self._done:
                self._next += 1
            if self._next >= self._count:
                return None
            number, self._next = self._next, self._next + 1
        self._asked[number] = peer
        return self._piece(number)

    def arrived(self, peer: NodeId, piece: FilePiece) -> None:
        """Take note that a piece is here, written and of the right length."""
        if self._asked.pop(piece.number, None) is None:
            return
        self._done.add(piece.number)
        self.done_bytes += piece.length
        self.sent[peer] = self.sent.get(peer, 0) + 1
        self._advance()

    def lost(self, peer: NodeId) -> int:
        """Take back what a peer was asked for, for the others; return how many pieces that are."""
        back = [number for number, whose in self._asked.items() if whose == peer]
        for number in back:
            del self._asked[number]
        self._returned += back
        return len(back)

    def _piece(self, number: int) -> FilePiece:
        offset = number * self._piece_bytes
        return FilePiece(number=number, offset=offset, length=min(self._piece_bytes, self.size_bytes - offset))

    def _advance(self) -> None:
        while self._whole in self._done:
            self._whole += 1
