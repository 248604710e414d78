"""What this node lends to hosts of models that it holds a part of: one loan a model.

Owns the shape of a loan. Decides nothing: `lending` does. Doesn't know how a server is run.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from meshllm.core.announcement import LentMemory
from meshllm.core.ids import ModelId, NodeId


@dataclass(slots=True, kw_only=True)
class Loan:
    """A server that runs for one epoch of a host's split, or is about to, or has not quite ended."""

    epoch: int
    host: NodeId
    memory_bytes: int
    seen_s: float
    """When the host last spoke of it."""
    is_ready: bool = False
    """The server listens."""
    is_ending: bool = False
    is_loaded: bool = False
    """The host's engine answers, so its part is in this machine's memory."""
    is_measured: bool = False
    """The machine's free memory was measured since."""

    def told(self, model: ModelId) -> LentMemory:
        """Return what is announced of it."""
        return LentMemory(
            model=model, host=self.host, epoch=self.epoch, memory_bytes=self.memory_bytes, is_loaded=self.is_measured
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LentBytes:
    """What all loans take together."""

    promised: int = 0
    unseen: int = 0
    """Of that, what a measurement of free memory cannot show yet."""


NOTHING_LENT = LentBytes()


def lent_bytes(loans: Iterable[Loan]) -> LentBytes:
    """Return the sum of loans."""
    known = list(loans)
    unseen = sum(loan.memory_bytes for loan in known if not loan.is_measured)
    return LentBytes(promised=sum(loan.memory_bytes for loan in known), unseen=unseen)
