"""A run of a mesh that serves is drawn by its seed, and fails with its story."""

import pytest

from meshllm.testing import serving_invariants
from meshllm.testing.invariants import InvariantError
from meshllm.testing.serving_runs import Scale, ServingRun, play

SMALL = Scale(nodes=5, models=3, misfortunes=1, calm_s=20.0)


def test_a_seed_is_a_story() -> None:
    """The same each time, and another one for another seed."""
    one, same, other = play(3, SMALL), play(3, SMALL), play(4, SMALL)

    assert (one.story, one.events, one.ends) == (same.story, same.events, same.ends)
    assert one.story != other.story
    assert one.accepted > 20
    assert sum(one.ends.values()) == one.accepted


def test_a_broken_invariant_tells_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it can play it again."""

    def broken(*_: object) -> None:
        raise InvariantError("nothing is ever right")

    monkeypatch.setattr(serving_invariants, "check_calm", broken)

    with pytest.raises(InvariantError, match=r"(?s)seed 3, at .* nothing is ever right\n.* calm"):
        play(3, SMALL)


def test_a_model_can_lose_all_its_hosts_at_once() -> None:
    """Also one with several: somebody else serves it again, or it is not wanted."""
    run = ServingRun(5, Scale(nodes=6, models=2, misfortunes=1, calm_s=20.0, loses_a_model=True))

    run.run()

    assert len(run.watch.counts.reserved_s) + len(run.watch.counts.refetched_s) == 1


def test_every_misfortune_can_befall_a_mesh() -> None:
    """Also those that this seed does not draw."""
    run = ServingRun(5, SMALL)
    for number in range(6):
        run._start(is_first=number == 0)
    run.mesh.run(30.0)

    for misfortune in (
        run._last_host_dies, run._engine_crashes, run._leave, run._divide, run._heal, run._joiners, run._restart,
        run._some_die,
    ):  # fmt: skip
        misfortune()
        run.mesh.run(1.0)

    said = " ".join(run.story)
    assert all(word in said for word in ("crash", "crashes", "leave", "divide", "heal", "restart"))
