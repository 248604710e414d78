"""Quotas mesh-wide: whose choice counts, who carries it, what is refused, what is written down."""

import pytest

from meshllm.core.announcement import Announcement
from meshllm.core.effects import KeptOrders
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import OutcomeCode
from meshllm.core.limits import ORDER_VERSION_MAX, QUOTA_KEEP_S
from meshllm.core.quota_config import QuotaChoice, Quotas
from meshllm.core.quota_use import QuotaUse, Spent
from meshllm.core.quotas.book import QuotaBook
from meshllm.core.rights import GUEST, OWN_MACHINE, Rights
from tests.core.members.builders import an_announcement

PHI, OTHER = ModelId("phi-4"), ModelId("other")


def a_choice(author: str, version: int = 1, model: ModelId = PHI, **limits: int) -> QuotaChoice:
    """Return what somebody chose."""
    quotas = Quotas(**limits or {"max_ram_mb": 1})
    return QuotaChoice(model=model, quotas=quotas, version=version, author=NodeId(author))


def said(name: str, *choices: QuotaChoice, rights: Rights = OWN_MACHINE) -> Announcement:
    """Return what a node says."""
    return an_announcement(name, rights=rights, quotas=choices)


def an_admin(name: str = "m", kept: KeptOrders | None = None) -> QuotaBook:
    """Return the book of a node that may choose."""
    book = QuotaBook(NodeId(name), kept or KeptOrders())
    book.stand(is_admin=True)
    book.settle()
    return book


def test_choices_for_several_models_are_changed_side_by_side() -> None:
    """At two nodes at once: each keeps its own, and in the end both have both."""
    one, two = an_admin("a"), an_admin("b")
    assert one.change(PHI, {"hourly_token_limit": 5}).is_done
    assert two.change(OTHER, {"hourly_token_limit": 6}).is_done

    for _ in range(2):
        for book, other, name in ((one, two, "b"), (two, one, "a")):
            other.settle()
            book.hear(NodeId(name), said(name, *other.announced), is_live=True)
            book.settle()

    assert one.register == two.register
    assert [choice.quotas.hourly_token_limit for choice in one.register.chosen] == [6, 5]
    assert [[choice.model for choice in book.announced] for book in (one, two)] == [[PHI], [OTHER]]


@pytest.mark.parametrize(("rights", "version"), [(GUEST, 1), (OWN_MACHINE, ORDER_VERSION_MAX + 1)])
def test_words_of_nobody_count_for_nothing(rights: Rights, version: int) -> None:
    """Neither without the right to administer, nor with a version that no choice reaches."""
    book = an_admin()

    book.hear(NodeId("z"), said("z", a_choice("z", version), rights=rights), is_live=True)

    assert book.register.chosen == ()


def announced(book: QuotaBook) -> tuple[QuotaChoice, ...]:
    """Return what a book's node says of quotas at the moment."""
    return book.announced


def test_somebody_carries_what_the_gone_have_said() -> None:
    """The live admin of smallest id; until one of smaller id does, or the author is back."""
    book = an_admin("m", KeptOrders(quotas=(a_choice("z"),)))
    assert announced(book) == (a_choice("z"),)

    book.hear(NodeId("b"), said("b"), is_live=True)
    book.settle()
    assert announced(book) == (a_choice("z"),)

    book.hear(NodeId("b"), said("b", a_choice("z")), is_live=True)
    book.settle()
    assert announced(book) == ()

    book.hear(NodeId("b"), None, is_live=False)
    book.settle()
    assert announced(book) == (a_choice("z"),)

    book.hear(NodeId("z"), said("z", a_choice("z")), is_live=True)
    book.settle()
    assert announced(book) == ()
    assert not book.settle()


def test_a_node_without_the_right_changes_nothing() -> None:
    """And carries nothing."""
    book = QuotaBook(NodeId("m"), KeptOrders(quotas=(a_choice("z"),)))

    assert book.change(PHI, {"max_ram_mb": 2}).code is OutcomeCode.NOT_ALLOWED
    book.stand(is_admin=False)
    assert not book.settle()
    assert (book.announced, book.register.chosen) == ((), (a_choice("z"),))


def test_a_bad_change_is_named_and_changes_nothing() -> None:
    """As its outcome says."""
    book = an_admin()

    outcome = book.change(PHI, {"hourly_tokens": 1})

    assert (outcome.code, outcome.param) == (OutcomeCode.UNKNOWN_KEY, "hourly_tokens")
    assert book.register.chosen == ()


def test_a_change_is_noted_with_who_what_before_and_after() -> None:
    """Once; only a change made here is a line of the audit trail."""
    book = an_admin()
    book.change(PHI, {"hourly_token_limit": 5})
    book.hear(NodeId("z"), said("z", a_choice("z", 2, hourly_token_limit=6)), is_live=True)
    book.hear(NodeId("z"), said("z", a_choice("z", 2, hourly_token_limit=6)), is_live=True)

    notes = [dict(one.fields) for one in book.taken_notices()]

    assert [one["hourly_token_limit"] for one in notes] == ["0 -> 5", "5 -> 6"]
    assert [one.get("module") for one in notes] == ["audit", None]
    assert book.taken_notices() == []


def test_what_was_used_is_written_down_now_and_then() -> None:
    """Not with each request; the limits at once."""
    book = an_admin()
    uses = tuple((QuotaUse(model=PHI, hour=Spent(0, number, 1)),) for number in (1, 2, 3))
    found = []
    for use, at_s in zip(uses, (0.0, 1.0, QUOTA_KEEP_S), strict=True):
        book.used = use
        found.append(book.remembered(at_s)[1])

    assert found == [uses[0], uses[0], uses[2]]
    again = QuotaBook(NodeId("m"), KeptOrders(quotas=(a_choice("z"),), quota_uses=uses[2]))
    assert again.remembered(0.0) == ((a_choice("z"),), uses[2])
