"""What is lent, and what a measurement of free memory cannot show of it yet."""

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.serving.splits.loans import NOTHING_LENT, Loan, lent_bytes

HOST = NodeId("h")


def test_loans_are_counted_until_they_are_measured_twice_over() -> None:
    """Promised for as long as they are there, unseen until the machine was measured with them in it."""
    fresh = Loan(epoch=1, host=HOST, memory_bytes=5, seen_s=0.0)
    loaded = Loan(epoch=2, host=HOST, memory_bytes=7, seen_s=0.0, is_ready=True, is_loaded=True, is_measured=True)

    found = lent_bytes([fresh, loaded])

    assert (found.promised, found.unseen) == (12, 5)
    assert lent_bytes([]) == NOTHING_LENT
    assert loaded.told(ModelId("m")).is_loaded
    assert not fresh.told(ModelId("m")).is_loaded
