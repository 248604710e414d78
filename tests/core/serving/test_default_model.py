"""Which model answers where none is named, and that it never moves by itself."""

import pytest

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import NameIndex
from meshllm.core.serving.default_model import DefaultModel
from meshllm.core.serving.order_book import OrderBook
from tests.core.members.builders import an_announcement

A, B, C, D = (ModelId(name) for name in "abcd")
NAMES = NameIndex([A, B, C, D])


def a_book() -> OrderBook:
    """Return the book of a node that may administer."""
    book = OrderBook(NodeId("m"))
    book.hear(NodeId("m"), an_announcement("m"), is_live=True)
    book.settle()
    return book


def test_the_order_of_those_who_may_say_so() -> None:
    """Node, mesh, configuration, founder, and last what was served first."""
    book = a_book()
    assert DefaultModel(book, "", (), is_founder=False).now(NAMES, D) == D

    founder = DefaultModel(book, "", ("a", "b"), is_founder=True)
    founder.first_asked(NAMES, ())
    book.settle()
    configured = DefaultModel(book, "c", ("b",), is_founder=False)
    assert (founder.now(NAMES, D), configured.now(NAMES, D)) == (A, C)

    book.choose(D)
    assert (founder.now(NAMES, None), configured.now(NAMES, None)) == (D, D)

    book.override = B
    assert founder.now(NAMES, None) == B


@pytest.mark.rows("T7")
def test_a_first_model_that_is_still_looked_for_keeps_its_place() -> None:
    """However long a hub takes: the default is the same in every run."""
    default = DefaultModel(a_book(), "", ("late", "a"), is_founder=True)

    default.first_asked(NAMES, ())
    while_sought = default.now(NAMES, A)
    later = NameIndex([A, ModelId("late")])
    default.first_asked(later, ())

    assert (while_sought, default.now(later, A)) == (None, "late")


def test_a_name_that_stands_for_nothing_gives_its_place_away() -> None:
    """A typing error is no reason to have no default."""
    default = DefaultModel(a_book(), "nonsense", ("typo", "a"), is_founder=False)

    default.first_asked(NAMES, {"typo": "no such model"})

    assert default.now(NAMES, None) == A


def test_the_default_stays_where_its_file_is_gone() -> None:
    """A name survives what it stands for."""
    default = DefaultModel(a_book(), "", ("a",), is_founder=True)
    default.first_asked(NAMES, ())

    default.first_asked(NameIndex([B]), ())

    assert default.now(NameIndex([B]), B) == A
