"""Sessions stay where they are, and are found at every entry node."""

from collections import Counter

from meshllm.core.ids import ModelId
from meshllm.core.routing.affinity import Affinity, by_rendezvous
from tests.core.routing.routed import a_rating

MODEL = ModelId("m")
NAMES = ["a", "b", "c", "d"]


def first(session: str, *names: str, **loads: float) -> str:
    """Return the host that a session gets first."""
    return by_rendezvous(session, [a_rating(name, load=loads.get(name, 0.0)) for name in names], 0.85)[0].name


def test_every_entry_node_picks_the_same_host_in_whatever_order_it_knows_them() -> None:
    """Nobody has to tell anybody."""
    for number in range(50):
        session = f"s{number}"

        assert first(session, *NAMES) == first(session, *reversed(NAMES))


def test_sessions_are_shared_out_evenly() -> None:
    """A thousand over four hosts."""
    counts = Counter(first(f"s{number}", *NAMES) for number in range(1000))

    assert set(counts) == set(NAMES)
    assert max(counts.values()) < 1.25 * 250


def test_only_sessions_of_a_host_that_goes_move() -> None:
    """And they move to different ones."""
    before = {f"s{number}": first(f"s{number}", *NAMES) for number in range(300)}
    after = {session: first(session, "a", "b", "d") for session in before}

    moved = {session for session in before if before[session] != after[session]}

    assert moved == {session for session, name in before.items() if name == "c"}
    assert {after[session] for session in moved} == {"a", "b", "d"}


def test_a_host_that_is_full_and_fuller_than_most_gets_no_new_session() -> None:
    """Bounded load: a hot spot spills to the next in the session's own order."""
    crowded = {f"s{number}" for number in range(200) if first(f"s{number}", *NAMES) == "a"}

    assert all(first(session, *NAMES, a=2.0) != "a" for session in crowded)
    assert all(first(session, *NAMES, a=0.8) == "a" for session in crowded)
    assert all(first(session, *NAMES, a=2.0, b=2.0, c=2.0, d=2.0) == "a" for session in crowded)


def test_a_session_is_bound_until_a_while_after_its_last_use() -> None:
    """Each use extends it."""
    affinity = Affinity()
    for now_s in range(0, 1200, 60):
        affinity.bind("s", MODEL, "a", float(now_s), 300.0)

    assert affinity.where("s", MODEL, 1140.0 + 299.9) == "a"
    assert affinity.where("s", MODEL, 1140.0 + 300.0) is None
    assert affinity.where("s", ModelId("other"), 1140.0) is None


def test_a_session_that_moves_is_where_it_was_used_last() -> None:
    """Also after its time, when it may be anywhere."""
    affinity = Affinity()
    affinity.bind("s", MODEL, "a", 0.0, 300.0)
    affinity.bind("s", MODEL, "b", 20.0, 300.0)
    moved = affinity.where("s", MODEL, 20.0)
    affinity.bind("s", MODEL, "c", 400.0, 300.0)

    assert (moved, affinity.where("s", MODEL, 400.0)) == ("b", "c")


def test_the_sessions_used_last_are_remembered() -> None:
    """As many as there is room for, however long their names."""
    affinity = Affinity(most=3)
    for number in range(4):
        affinity.bind(f"s{number}" * 10_000, MODEL, "a", 0.0, 300.0)

    assert len(affinity) == 3
    assert affinity.where("s0" * 10_000, MODEL, 0.0) is None
    assert affinity.where("s3" * 10_000, MODEL, 0.0) == "a"
