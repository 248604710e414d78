"""What a node says of itself, and when it says something else."""

from dataclasses import replace

from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.ids import ModelId
from meshllm.core.limits import GIB, MIB, STATEMENT_ASKED_S
from meshllm.core.statement import OwnStatement, coarse
from tests.core.builders import a_machine
from tests.core.members.builders import an_announcement


def serving(busy: int) -> tuple[ServedModel, ...]:
    """Return one ready model with some requests."""
    return (ServedModel(model=ModelId("tiny"), digest="d", state=ServingState.READY, slots=4, busy=busy),)


def test_a_change_of_meaning_is_said_at_once() -> None:
    """A model that is ready is worth a word to everybody."""
    own = OwnStatement(an_announcement("a"), 5.0)

    said = own.renew(replace(own.announcement, serving=serving(0)), 0.0)
    again = own.renew(replace(own.announcement, serving=()), 0.1)

    assert (said, again) == (True, True)
    assert own.announcement.version == 2


def test_nothing_new_is_not_said() -> None:
    """A mesh at rest is silent."""
    own = OwnStatement(an_announcement("a"), 5.0)

    assert not own.renew(an_announcement("a", incarnation=9, version=9), 0.0)
    assert own.announcement.version == 0


def test_load_is_said_now_and_then() -> None:
    """Every request changes it; the mesh hears of it every five seconds at most."""
    own = OwnStatement(an_announcement("a", serving=serving(0)), 5.0)

    said = [own.renew(replace(own.announcement, serving=serving(busy)), at_s) for busy, at_s in (
        (1, 0.0), (2, 1.0), (3, 4.9), (3, 5.0), (4, 6.0))]  # fmt: skip

    assert said == [True, False, False, True, False]
    assert own.soft_due_s == 10.0
    assert own.announcement.serving[0].busy == 3


def test_a_load_that_went_back_is_no_news_any_more() -> None:
    """No wake-up for something that is as it was said."""
    own = OwnStatement(an_announcement("a", serving=serving(0)), 5.0)
    own.renew(replace(own.announcement, serving=serving(1)), 0.0)
    own.renew(replace(own.announcement, serving=serving(2)), 1.0)

    own.renew(replace(own.announcement, serving=serving(1)), 2.0)

    assert own.soft_due_s is None


def test_a_large_mesh_hears_of_load_less_often() -> None:
    """Two hundred nodes that each speak every five seconds would talk of nothing else."""
    own = OwnStatement(an_announcement("a", serving=serving(0)), 5.0)
    own.spread_over(320)
    own.renew(replace(own.announcement, serving=serving(1)), 0.0)

    own.renew(replace(own.announcement, serving=serving(2)), 20.0)

    assert own.soft_due_s == 50.0


def test_a_refutation_outbids_what_was_said() -> None:
    """Its numbers are above all others."""
    own = OwnStatement(an_announcement("a", incarnation=3, version=4), 5.0)

    own.outbid(7)

    assert (own.announcement.incarnation, own.announcement.version) == (8, 5)


def test_the_last_word_stays_the_last() -> None:
    """Changes after it do not bring the node back."""
    own = OwnStatement(an_announcement("a"), 5.0)

    own.leave()
    own.renew(an_announcement("a", serving=serving(0)), 1.0)

    assert own.announcement.left


def test_free_memory_is_told_in_steps() -> None:
    """A few megabytes more or less are nobody's business."""
    one, other = (coarse(a_machine(free_bytes=10 * GIB + few)) for few in (MIB, 2 * MIB))

    assert one == other
    assert coarse(None) is None


def test_a_free_disk_is_told_in_gigabytes_and_at_its_leisure() -> None:
    """Logs are written all the time."""
    machine = a_machine()
    one, other, less = (
        coarse(replace(machine, disk_free_bytes=free)) for free in (5 * GIB + 1, 5 * GIB + MIB, 4 * GIB)
    )
    own = OwnStatement(an_announcement("a", resources=one), 5.0)
    own.renew(replace(own.announcement, load=0.5), 0.0)

    is_news = own.renew(replace(own.announcement, resources=less), 1.0)

    assert one == other
    assert not is_news


def test_a_statement_that_was_asked_for_is_made_in_any_case() -> None:
    """Even when nothing has changed, and once for all who ask within a moment."""
    own, same = OwnStatement(an_announcement("a"), 10.0), an_announcement("a")
    assert not own.renew(same, 100.0)

    own.insist(100.0)
    first = own.renew(same, 100.0)
    own.insist(100.1)
    own.insist(100.2)
    at_once = own.renew(same, 100.2)
    due_s = own.soft_due_s
    later = own.renew(same, 100.0 + STATEMENT_ASKED_S)
    again = own.renew(same, 110.0)

    assert (first, at_once, later, again) == (True, False, True, False)
    assert due_s == 100.0 + STATEMENT_ASKED_S
    assert own.announcement.version == 2
