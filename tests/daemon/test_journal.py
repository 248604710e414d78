"""The journal numbers events and keeps the newest."""

from meshllm.core.events import Woke
from meshllm.daemon.journal import Journal


def test_it_keeps_the_newest_entries_in_order() -> None:
    """A ring: memory is bounded, and what led here is still there."""
    journal = Journal(entries_max=3)

    for second in range(5):
        journal.record(journal.stamp(Woke()), (), float(second))

    assert [(entry.event.id, entry.at_s) for entry in journal.newest(10)] == [("e3", 2.0), ("e4", 3.0), ("e5", 4.0)]
    assert [entry.event.id for entry in journal.newest(1)] == ["e5"]
    assert list(journal.newest(0)) == []
