"""Which builds of the engine are listed first, and which go."""

from dataclasses import replace

from meshllm.core.engine_builds import StoredBuild, in_order, superfluous
from meshllm.core.split_limits import RPC_BUILDS_KEPT


def a_build(name: str, chosen_unix_s: float) -> StoredBuild:
    """Return one that nobody uses."""
    return StoredBuild(name=name, size_bytes=5, chosen_unix_s=chosen_unix_s, is_current=False, is_used=False)


BUILDS = tuple(a_build(f"b{number}", float(number)) for number in range(RPC_BUILDS_KEPT + 3))
"""The oldest first."""


def test_those_go_that_were_chosen_longest_ago() -> None:
    """Up to the limit nothing does."""
    assert superfluous(BUILDS) == tuple(reversed(BUILDS[:3]))
    assert superfluous(BUILDS[:RPC_BUILDS_KEPT]) == superfluous(()) == ()


def test_what_a_node_uses_stays_however_old_and_spares_no_other() -> None:
    """It is beside the limit: two nodes of two releases may run for weeks."""
    used = replace(BUILDS[1], is_used=True)

    assert superfluous((BUILDS[0], used, *BUILDS[2:])) == (BUILDS[2], BUILDS[0])


def test_the_current_one_stays_and_is_listed_first() -> None:
    """Whatever the clock says."""
    current = replace(BUILDS[0], is_current=True)

    assert in_order((*BUILDS[1:], current)) == (current, *reversed(BUILDS[1:]))
    assert current not in superfluous((current, *BUILDS[1:]))
