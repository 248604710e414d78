"""Everybody that is known, and the summary over them."""

from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.ids import NodeId
from meshllm.core.limits import GOSSIP_BUCKETS
from meshllm.core.members.table import Table
from meshllm.core.standing import Evidence, MemberState
from tests.core.members.builders import a_record

NAMES = st.sampled_from([f"n{number}" for number in range(12)])


def a_table(me: str, *others: tuple[str, int]) -> Table:
    """Return the table of a node that knows some (name, version)."""
    table = Table(a_record(me))
    for name, version in others:
        table.add(a_record(name, version=version), 0.0, None)
    return table


def test_two_nodes_that_know_the_same_have_one_summary() -> None:
    """Whoever is `me` in the table makes no difference, nor does the order."""
    one = a_table("a", ("b", 0), ("c", 3))
    other = a_table("c", ("b", 0), ("a", 0))
    other.put_own(a_record("c", version=3))

    assert one.summary() == other.summary()
    assert one.buckets() == other.buckets()


def test_the_dead_are_not_in_the_summary() -> None:
    """Who has never heard of them knows as much."""
    table = a_table("a", ("b", 0), ("c", 0))
    entry = table.entries[NodeId("c")]

    table.judge(entry, Evidence.CONFIRM_FAILED, 5.0)

    assert table.summary() == a_table("a", ("b", 0)).summary()
    assert (entry.state, entry.since_s, table.live_count) == (MemberState.DEAD, 5.0, 2)


@given(st.lists(st.tuples(NAMES, st.integers(0, 5), st.sampled_from(["put", "dead", "alive", "forget"])), max_size=60))
def test_the_summary_depends_on_what_is_known_alone(steps: list[tuple[str, int, str]]) -> None:
    """Not on the way there: the running hashes never drift."""
    table = a_table("me")
    for name, version, what in steps:
        entry = table.entries.get(NodeId(name))
        if what == "forget":
            table.forget(NodeId(name))
        elif entry is None:
            table.add(a_record(name, version=version), 0.0, None)
        elif what == "put":
            table.put(entry, a_record(name, version=version))
        else:
            table.judge(entry, Evidence.HEARD if what == "alive" else Evidence.CONFIRM_FAILED, 1.0)

    live = [(node, table.entries[node].announcement.version) for node in table.live()]
    fresh = a_table("me", *live)
    assert (table.summary(), table.buckets()) == (fresh.summary(), fresh.buckets())
    assert table.live_count == len(live) + 1
    everything = list(table.within(range(GOSSIP_BUCKETS)))
    assert sorted(record.announcement.node for record in everything) == sorted([*table.live(), "me"])
