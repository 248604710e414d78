"""How requests are routed mesh-wide: whose choice counts, who carries it, what is refused."""

import pytest

from meshllm.core.announcement import Announcement
from meshllm.core.effects import KeptOrders
from meshllm.core.ids import NodeId
from meshllm.core.intents import OutcomeCode
from meshllm.core.limits import ORDER_VERSION_MAX
from meshllm.core.rights import GUEST, OWN_MACHINE, Rights
from meshllm.core.routing.book import RoutingBook
from meshllm.core.routing_config import DEFAULT, RoutingChoice, RoutingConfig, Strategy
from tests.core.members.builders import an_announcement

RANDOM = RoutingConfig(strategy=Strategy.RANDOM)


def a_choice(author: str, version: int = 1, config: RoutingConfig = RANDOM) -> RoutingChoice:
    """Return what somebody chose for the mesh."""
    return RoutingChoice(config=config, version=version, author=NodeId(author))


class Mesh:
    """Some books whose words reach one another when a test says so."""

    def __init__(self, *names: str) -> None:
        """Give each node a book; all are admins unless the test says otherwise."""
        self.books = {name: RoutingBook(NodeId(name)) for name in names}
        self.rights: dict[str, Rights] = dict.fromkeys(names, OWN_MACHINE)
        self.gone: set[str] = set()
        self.gossip()

    def said(self, name: str) -> Announcement:
        """Return what a node says."""
        return an_announcement(name, rights=self.rights[name], routing=self.books[name].announced)

    def gossip(self, *among: str, rounds: int = 3) -> None:
        """Let these nodes hear of one another, all that run by default, until it settles."""
        among = among or tuple(self.books)
        for _ in range(rounds):
            for name in among:
                if name in self.gone:
                    continue
                book = self.books[name]
                book.stand(is_admin=Rights.ADMIN in self.rights[name])
                for other in among:
                    if other != name:
                        book.hear(NodeId(other), self.said(other), is_live=other not in self.gone)
                book.settle()

    def carriers(self) -> list[str]:
        """Return who says the choice to others."""
        return [name for name, book in self.books.items() if name not in self.gone and book.announced is not None]

    def strategies(self) -> set[str]:
        """Return what counts, at any node."""
        return {book.register.effective.strategy for name, book in self.books.items() if name not in self.gone}


def test_the_newest_choice_counts_at_every_node_and_one_carries_it() -> None:
    """Whoever made it."""
    mesh = Mesh("a", "b", "c")

    assert mesh.books["a"].change({"strategy": "random"}).is_done
    mesh.gossip()
    assert mesh.books["b"].change({"strategy": "round_robin", "version": 1}).is_done
    mesh.gossip()

    assert {book.register.mesh for book in mesh.books.values()} == {
        a_choice("b", 2, RoutingConfig(strategy=Strategy.ROUND_ROBIN))
    }
    assert mesh.carriers() == ["b"]


def test_two_choices_at_once_end_as_one() -> None:
    """The same version on both sides of a partition: then the larger author counts, everywhere."""
    mesh = Mesh("a", "b", "c", "d")
    mesh.books["a"].change({"strategy": "random"})
    mesh.books["d"].change({"strategy": "round_robin"})
    mesh.gossip("a", "b")
    mesh.gossip("c", "d")
    assert mesh.strategies() == {"random", "round_robin"}

    mesh.gossip()

    assert mesh.strategies() == {"round_robin"}
    assert mesh.carriers() == ["d"]


def test_a_version_that_its_author_used_twice_is_no_riddle() -> None:
    """Its disk was put back to an earlier day."""
    one, other = a_choice("z"), a_choice("z", config=DEFAULT)
    books = [RoutingBook(NodeId("m")) for _ in "12"]

    for book, heard in zip(books, ((one, other), (other, one)), strict=True):
        for choice in heard:
            book.hear(NodeId("z"), an_announcement("z", routing=choice), is_live=True)

    assert books[0].register == books[1].register


@pytest.mark.parametrize(("rights", "version"), [(GUEST, 1), (OWN_MACHINE, ORDER_VERSION_MAX + 1)])
def test_words_of_nobody_count_for_nothing(rights: Rights, version: int) -> None:
    """Neither without the right to administer, nor with a version that no choice reaches."""
    book = RoutingBook(NodeId("m"))

    book.hear(NodeId("z"), an_announcement("z", rights=rights, routing=a_choice("z", version)), is_live=True)

    assert book.register.mesh is None


def test_the_live_admin_of_smallest_id_carries_what_the_gone_have_said() -> None:
    """Somebody who joins later hears of it; the author has it back when it returns."""
    mesh = Mesh("a", "b", "c", "d")
    mesh.rights["a"] = GUEST
    mesh.books["d"].change({"strategy": "random"})
    mesh.gossip()

    mesh.gone.add("d")
    mesh.gossip()
    assert mesh.carriers() == ["b"]

    mesh.gone.clear()
    mesh.books["d"] = RoutingBook(NodeId("d"))  # it has forgotten everything
    mesh.gossip()
    assert (mesh.carriers(), mesh.strategies()) == (["d"], {"random"})


def test_whoever_carries_it_goes_on_until_one_of_smaller_id_does() -> None:
    """There always is somebody whom a newcomer hears it from."""
    book = RoutingBook(NodeId("m"), KeptOrders(routing=a_choice("z")))
    book.stand(is_admin=True)
    book.settle()
    assert book.announced == a_choice("z")

    book.hear(NodeId("b"), an_announcement("b"), is_live=True)
    book.settle()
    assert book.announced == a_choice("z")

    book.hear(NodeId("b"), an_announcement("b", routing=a_choice("z")), is_live=True)
    book.settle()
    assert not book.announced

    book.hear(NodeId("b"), None, is_live=False)
    book.settle()
    assert book.announced == a_choice("z")


def test_a_node_without_the_right_chooses_for_itself_alone() -> None:
    """And says so in its refusal."""
    book = RoutingBook(NodeId("m"), KeptOrders(routing=a_choice("z")))

    refused = book.change({"strategy": "least_loaded", "scope": "mesh"})
    assert (refused.code, refused.param) == (OutcomeCode.NOT_ALLOWED, "scope")
    assert book.change({"max_retries": 1}).is_done

    assert (book.register.scope, book.register.mesh) == ("node", a_choice("z"))
    assert book.register.effective == RoutingConfig(strategy=Strategy.RANDOM, max_retries=1)
    assert book.change({"scope": "mesh"}).is_done
    assert book.register.node is None


@pytest.mark.parametrize(
    ("document", "code", "param"),
    [
        ({"strategy": "fastest"}, OutcomeCode.INVALID_STRATEGY, "strategy"),
        ({"max_retries": -1}, OutcomeCode.INVALID_VALUE, "max_retries"),
        ({"retries": 1}, OutcomeCode.UNKNOWN_KEY, "retries"),
        ({"version": 8}, OutcomeCode.VERSION_CONFLICT, "version"),
    ],
)
def test_a_bad_change_changes_nothing(document: dict[str, object], code: OutcomeCode, param: str) -> None:
    """What is wrong is named."""
    book = RoutingBook(NodeId("m"), KeptOrders(routing=a_choice("z")))
    book.stand(is_admin=True)

    outcome = book.change({"enable_health_checks": False, **document})

    assert (outcome.code, outcome.param) == (code, param)
    assert book.register.effective == RANDOM


def test_what_is_kept_is_not_what_the_configuration_says_anyway() -> None:
    """A table that was taken out of the file counts no more at the next start."""
    file = RoutingConfig(max_retries=1)
    book = RoutingBook(NodeId("m"), KeptOrders(routing=a_choice("z"), routing_here=RANDOM), file)
    assert (book.register.effective, book.remembered()) == (file, (a_choice("z"), None))

    book.change({"max_retries": 2})

    assert book.remembered() == (a_choice("z"), RoutingConfig(max_retries=2))


def test_a_change_is_noted_with_who_what_before_and_after() -> None:
    """Once; a change made here is a line of the audit trail, one that was heard is not."""
    book = RoutingBook(NodeId("m"))
    book.stand(is_admin=True)
    book.change({"strategy": "random"})
    book.hear(NodeId("z"), an_announcement("z", routing=a_choice("z", 2, DEFAULT)), is_live=True)

    notices = [dict(one.fields) for one in book.taken_notices()]

    assert notices == [
        {"author": "m", "scope": "mesh", "module": "audit", "version": 1, "strategy": "cache_aware -> random"},
        {"author": "z", "scope": "mesh", "version": 2, "strategy": "random -> cache_aware"},
    ]
    assert book.taken_notices() == []


def test_nothing_new_is_nothing_to_settle() -> None:
    """Members speak all the time."""
    book = RoutingBook(NodeId("m"))
    book.hear(NodeId("z"), an_announcement("z", routing=a_choice("z")), is_live=True)
    assert book.settle()

    book.hear(NodeId("z"), an_announcement("z", routing=a_choice("z")), is_live=True)

    assert not book.settle()
