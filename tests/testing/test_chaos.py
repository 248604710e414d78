"""A run of misfortune is drawn by its seed, and fails with its story."""

import pytest

from meshllm.testing import chaos
from meshllm.testing.invariants import InvariantError


def test_a_seed_is_a_story() -> None:
    """The same each time, with things going wrong in it."""
    one, same, other = chaos.play(3), chaos.play(3), chaos.play(4)

    assert (one.story, one.events, one.heal_s) == (same.story, same.events, same.heal_s)
    assert one.story != other.story
    assert len(one.story) > 10


def test_a_broken_invariant_tells_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it can play it again."""

    def broken(mesh: object) -> None:
        raise InvariantError("I0: nothing is ever right")

    monkeypatch.setattr(chaos, "check_quiet", broken)

    with pytest.raises(InvariantError, match=r"(?s)seed 3, at .* I0: nothing is ever right\n.*heal"):
        chaos.play(3)
