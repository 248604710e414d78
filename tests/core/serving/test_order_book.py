"""The registers of orders and of the default: whose word counts, who keeps it when its author is gone, when it ends."""

from dataclasses import replace
from itertools import permutations

import pytest

from meshllm.core.announcement import Announcement, DefaultChoice, ModelOrder, ServedModel, ServingState
from meshllm.core.effects import KeptOrders
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.limits import ANNOUNCED_ORDERS, ORDER_VERSION_MAX
from meshllm.core.rights import GUEST, OWN_MACHINE, Rights
from meshllm.core.serving.order_book import OrderBook
from tests.core.members.builders import an_announcement

TINY, OTHER = ModelId("tiny"), ModelId("other")


class Mesh:
    """Some books whose words reach one another when a test says so."""

    def __init__(self, *names: str, rights: Rights = OWN_MACHINE) -> None:
        """Give each node a book; all are admins unless the test says otherwise."""
        self.books = {name: OrderBook(NodeId(name)) for name in names}
        self.rights = dict.fromkeys(names, rights)
        self.serving: dict[str, tuple[ServedModel, ...]] = dict.fromkeys(names, ())
        self.gone: set[str] = set()
        self.gossip()

    def said(self, name: str) -> Announcement:
        """Return what a node says."""
        book = self.books[name]
        return an_announcement(
            name, rights=self.rights[name], orders=book.announced, default=book.announced_default,
            serving=self.serving[name],
        )  # fmt: skip

    def gossip(self, *among: str, rounds: int = 3) -> None:
        """Let these nodes hear of one another, all that run by default, until it settles."""
        among = among or tuple(self.books)
        for _ in range(rounds):
            for name in among:
                if name in self.gone:
                    continue
                for other in among:
                    said = self.said(other)
                    self.books[name].hear(NodeId(other), said, is_live=other not in self.gone)
                self.books[name].settle()

    def lose(self, name: str) -> None:
        """Let a node die: the others still have its last words."""
        self.gone.add(name)

    def serve(self, name: str, model: ModelId, order: int) -> None:
        """Let a node serve a model, knowing an order."""
        self.serving[name] = (ServedModel(model=model, digest="", state=ServingState.READY, order=order),)


def test_the_newest_order_counts_at_every_node() -> None:
    """Whoever gave it, and in whatever order it is heard."""
    mesh = Mesh("a", "b", "c")

    mesh.books["a"].order(TINY, Verb.UNLOAD, hold=True)
    mesh.gossip()
    mesh.books["b"].order(TINY, Verb.LOAD)
    mesh.gossip()

    newest = {name: book.newest(TINY) for name, book in mesh.books.items()}
    assert set(newest.values()) == {ModelOrder(model=TINY, verb=Verb.LOAD, version=2, author=NodeId("b"))}
    assert not any(book.is_held(TINY) for book in mesh.books.values())
    assert mesh.books["a"].announced == ()


def test_words_of_a_node_without_the_right_count_for_nothing() -> None:
    """Not even at that node itself."""
    mesh = Mesh("a", "b")
    mesh.rights["b"] = GUEST

    mesh.books["b"].order(TINY, Verb.UNLOAD)
    mesh.books["b"].choose(TINY)
    mesh.gossip()

    assert [(book.newest(TINY), book.default) for book in mesh.books.values()] == [(None, None)] * 2


def test_two_halves_that_ordered_apart_agree_when_they_meet() -> None:
    """The same version on both sides: then the larger author counts, everywhere."""
    mesh = Mesh("a", "b", "c", "d")
    mesh.books["a"].order(TINY, Verb.UNLOAD)
    mesh.books["d"].order(TINY, Verb.LOAD)
    mesh.gossip("a", "b")
    mesh.gossip("c", "d")
    before = mesh.books["b"].newest(TINY)

    mesh.gossip()

    assert before is not None
    assert before.author == "a"
    assert {newest.author for book in mesh.books.values() if (newest := book.newest(TINY))} == {"d"}


@pytest.mark.parametrize("order", list(permutations("abc")))
def test_the_order_of_hearing_makes_no_difference(order: tuple[str, ...]) -> None:
    """Gossip promises none."""
    entries = {
        "a": ModelOrder(model=TINY, verb=Verb.UNLOAD, version=7, author=NodeId("a")),
        "b": ModelOrder(model=TINY, verb=Verb.LOAD, version=7, author=NodeId("a")),
        "c": ModelOrder(model=TINY, verb=Verb.UNLOAD, version=6, author=NodeId("z"), hold=True),
    }
    book = OrderBook(NodeId("m"))

    for name in order:
        book.hear(NodeId(name), an_announcement(name, orders=(entries[name],)), is_live=True)
        book.settle()

    assert book.newest(TINY) == entries["b"]


def test_the_live_admin_of_smallest_id_keeps_what_the_gone_have_said() -> None:
    """Somebody who joins later hears of it."""
    mesh = Mesh("a", "b", "c", "d")
    mesh.rights["a"] = GUEST
    mesh.books["d"].order(TINY, Verb.UNLOAD, hold=True)
    mesh.books["d"].choose(OTHER)
    mesh.gossip()

    mesh.lose("d")
    mesh.gossip()

    assert [len(mesh.books[name].announced) for name in "abc"] == [0, 1, 0]
    late = OrderBook(NodeId("e"))
    for name in "abc":
        late.hear(NodeId(name), mesh.said(name), is_live=True)
    late.settle()
    assert late.is_held(TINY)
    assert late.default == DefaultChoice(model=OTHER, version=2, author=NodeId("d"))


def test_what_was_kept_goes_back_to_its_author() -> None:
    """Or it would pile up at one node."""
    mesh = Mesh("a", "b", "c")
    mesh.books["b"].order(TINY, Verb.UNLOAD)
    mesh.gossip()
    mesh.lose("b")
    mesh.gossip()
    kept = mesh.books["a"].announced

    mesh.gone.clear()
    mesh.gossip()

    assert len(kept) == 1
    assert [len(mesh.books[name].announced) for name in "abc"] == [0, 1, 0]


def test_an_order_is_over_when_a_request_has_brought_the_model_back() -> None:
    """Else the model would stay cold when its host dies later."""
    mesh = Mesh("a", "b")
    order = mesh.books["a"].order(TINY, Verb.UNLOAD)
    mesh.gossip()
    assert mesh.books["b"].forbids(TINY) == order
    assert mesh.books["b"].forbids(TINY, known=order.version) is None

    mesh.serve("b", TINY, order.version)
    mesh.gossip()
    mesh.serving["b"] = ()
    mesh.gossip()

    assert not mesh.books["b"].is_unloaded(TINY)
    assert mesh.books["b"].forbids(TINY) is None


def test_an_old_copy_of_an_order_that_is_over_brings_it_not_back() -> None:
    """From the other side of a network that was divided."""
    mesh = Mesh("a", "b", "c")
    order = mesh.books["c"].order(TINY, Verb.UNLOAD)
    mesh.gossip()
    mesh.serve("b", TINY, order.version)
    mesh.gossip()

    mesh.serving["b"] = ()
    old = an_announcement("d", orders=(order,))
    for book in mesh.books.values():
        book.hear(NodeId("d"), old, is_live=True)
        book.settle()

    assert not any(book.is_unloaded(TINY) for book in mesh.books.values())


def test_a_request_does_not_end_an_order_to_hold() -> None:
    """A host that served it all the same would undo what an admin said; only `load` does."""
    mesh = Mesh("a", "b")
    order = mesh.books["a"].order(TINY, Verb.UNLOAD, hold=True)
    mesh.serve("b", TINY, order.version)
    mesh.gossip()
    assert mesh.books["a"].is_held(TINY)

    mesh.books["a"].order(TINY, Verb.UNLOAD)
    assert mesh.books["a"].is_held(TINY)

    mesh.books["a"].order(TINY, Verb.LOAD)
    assert not mesh.books["a"].is_held(TINY)


def test_a_node_that_is_not_controllable_obeys_itself_alone() -> None:
    """`--no-remote-control`."""
    book = OrderBook(NodeId("m"), is_controllable=False)
    book.hear(NodeId("m"), an_announcement("m"), is_live=True)
    order = ModelOrder(model=TINY, verb=Verb.UNLOAD, version=5, author=NodeId("a"), hold=True)

    book.hear(NodeId("a"), an_announcement("a", orders=(order,)), is_live=True)
    book.settle()
    assert book.newest(TINY) == order
    assert (book.forbids(TINY), book.holds(TINY)) == (None, False)

    mine = book.order(TINY, Verb.UNLOAD)
    assert book.forbids(TINY) == mine


def test_a_version_that_no_clock_reaches_is_not_counted() -> None:
    """Or one node could end the register for ever."""
    book = OrderBook(NodeId("m"))
    book.hear(NodeId("m"), an_announcement("m"), is_live=True)
    endless = ModelOrder(model=TINY, verb=Verb.UNLOAD, version=ORDER_VERSION_MAX + 1, author=NodeId("a"))
    choice = DefaultChoice(model=TINY, version=ORDER_VERSION_MAX + 1, author=NodeId("a"))

    book.hear(NodeId("a"), an_announcement("a", orders=(endless,), default=choice), is_live=True)
    book.settle()

    assert (book.newest(TINY), book.default, book.order(TINY, Verb.LOAD).version) == (None, None, 1)


def test_what_was_written_down_counts_again_and_versions_go_on() -> None:
    """A restart is no reason to load anything."""
    first = OrderBook(NodeId("m"))
    first.hear(NodeId("m"), an_announcement("m"), is_live=True)
    first.order(TINY, Verb.UNLOAD, hold=True)
    first.choose(OTHER)
    first.override = TINY

    second = OrderBook(NodeId("m"), first.kept())
    second.hear(NodeId("m"), an_announcement("m"), is_live=True)
    second.settle()

    assert (second.is_held(TINY), second.override) == (True, TINY)
    assert second.default == DefaultChoice(model=OTHER, version=2, author=NodeId("m"))
    assert second.order(OTHER, Verb.LOAD).version == 3


def test_more_orders_than_an_announcement_holds_push_the_oldest_out() -> None:
    """Those that are over go first."""
    book = OrderBook(NodeId("m"), KeptOrders(clock=10))
    book.hear(NodeId("m"), an_announcement("m"), is_live=True)
    held = book.order(TINY, Verb.UNLOAD, hold=True)

    for number in range(ANNOUNCED_ORDERS):
        book.order(ModelId(f"m{number}"), Verb.LOAD)

    assert len(book.announced) == ANNOUNCED_ORDERS
    assert held in book.announced
    assert book.newest(ModelId("m0")) is None


def test_the_founders_model_is_the_default_until_somebody_chooses() -> None:
    """And after that it never is again."""
    mesh = Mesh("a", "b", "c")
    mesh.books["c"].found(TINY)
    mesh.gossip()
    founded = {book.default for book in mesh.books.values()}

    mesh.books["a"].choose(OTHER)
    mesh.gossip()
    mesh.books["c"].found(TINY)
    mesh.gossip()

    assert founded == {DefaultChoice(model=TINY, version=0, author=NodeId("c"))}
    assert {choice.model for book in mesh.books.values() if (choice := book.default)} == {OTHER}
    assert mesh.books["c"].kept().default is None


def test_a_member_that_is_forgotten_says_nothing() -> None:
    """An admin that was expelled is forgotten with its orders."""
    book = OrderBook(NodeId("m"))
    book.hear(NodeId("m"), an_announcement("m"), is_live=True)
    said = an_announcement("a", orders=(ModelOrder(model=TINY, verb=Verb.UNLOAD, version=1, author=NodeId("a")),))
    book.hear(NodeId("a"), said, is_live=True)
    book.hear(NodeId("a"), replace(said, version=2), is_live=True)
    assert book.settle()
    assert not book.settle()

    book.hear(NodeId("a"), None, is_live=False)
    book.hear(NodeId("b"), None, is_live=False)

    assert book.settle()
    assert (book.newest(TINY), book.version(TINY)) == (None, 0)
