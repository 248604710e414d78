"""Memory for the pieces of one copy: each is filled by a connection, then waits for its turn to be hashed.

Owns the blocks of memory, a bounded number. Decides which piece loses its place when room is needed: the one whose
turn is furthest away, which is read from the disk again later. Doesn't know peers or files. Not for several threads
at once.
"""

from meshllm.core.limits import BULK_PIECE_BYTES, BULK_PIECES_HELD


class HeldPieces:
    """Blocks of the size of a piece; whoever gets one gives it back, or has it hold a piece."""

    def __init__(self, blocks: int = BULK_PIECES_HELD, block_bytes: int = BULK_PIECE_BYTES) -> None:
        """Make none yet: a copy that is hashed as fast as it comes needs a few of them."""
        self._unmade = blocks
        self._block_bytes = block_bytes
        self._free: list[memoryview] = []
        self._held: dict[int, tuple[memoryview, int]] = {}

    def room(self) -> memoryview:
        """Return a block to fill. Raises IndexError where all are in somebody's hands: that is a mistake of ours."""
        if self._free:
            return self._free.pop()
        if self._unmade:
            self._unmade -= 1
            return memoryview(bytearray(self._block_bytes))
        if not self._held:
            raise IndexError("more blocks are wanted than there are connections for")
        block, _ = self._held.pop(max(self._held))
        return block

    def hold(self, number: int, block: memoryview, length: int) -> None:
        """Keep a piece, which lies at the beginning of a block, until its turn or until others need the room."""
        self._held[number] = (block, length)

    def take(self, number: int) -> tuple[memoryview, int] | None:
        """Return the block with a piece and the piece's length; None where it has lost its place, or never came."""
        return self._held.pop(number, None)

    def give_back(self, block: memoryview) -> None:
        """Take a block that nobody needs any more."""
        self._free.append(block)
