"""The models that nobody serves, as everybody else sees them."""

from meshllm.core.announcement import RequestedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.serving.cold import ColdModels
from tests.core.serving.test_stock import a_file, a_node, a_served, a_stock, an_order, newest_in

X = ModelId("x")


def test_a_cold_model_is_known_and_served_by_nobody() -> None:
    """On a disk, or wanted; somebody who loads it serves it."""
    stock = a_stock(a_node("b", models_on_disk=(a_file(),)), a_node("a", requested=(RequestedModel(name="z"),)))
    cold = ColdModels(stock)

    cold.renew(newest_in(stock))
    assert {model: one.nodes for model, one in cold.newest.items()} == {"x": ("b",), "z": ()}

    stock.put(a_node("c", a_served(state=ServingState.LOADING)))
    cold.renew(newest_in(stock))
    assert list(cold.newest) == ["z"]


def test_a_host_that_drains_leaves_its_model_cold() -> None:
    """Requests have to ask for it again."""
    stock = a_stock(a_node("b", a_served(state=ServingState.DRAINING), models_on_disk=(a_file(),)))
    cold = ColdModels(stock)

    cold.renew(newest_in(stock))

    assert cold.newest[X].digest == "d-x"
    assert cold.newest[X].size_bytes == 10


def test_a_cold_model_says_which_order_keeps_it_so() -> None:
    """And when that changes, although nothing else does."""
    node = a_node("b", models_on_disk=(a_file(),))
    stock = a_stock(node)
    cold = ColdModels(stock)
    cold.renew(newest_in(stock))

    stock.put(a_node("a", orders=(an_order(5, hold=True),)))
    cold.renew(newest_in(stock))

    assert cold.newest[X].is_held
    stock.remove(NodeId("a"))
    cold.renew(newest_in(stock))
    assert cold.newest[X].order is None


def test_a_cold_model_says_what_it_lacks() -> None:
    """Until it does not any more."""
    stock = a_stock(a_node("b", models_on_disk=(a_file(),)))
    cold = ColdModels(stock)
    cold.renew(newest_in(stock))

    cold.explain({X: "needs 9 GB"}, newest_in(stock))
    lack = cold.newest[X].lack
    cold.explain({}, newest_in(stock))

    assert (lack, cold.newest[X].lack) == ("needs 9 GB", "")


def test_the_map_stays_the_same_object_while_nothing_changes() -> None:
    """A new one would make every view look different."""
    stock = a_stock(a_node("b", models_on_disk=(a_file(),)))
    cold = ColdModels(stock)
    cold.renew(newest_in(stock))
    before = cold.newest

    stock.put(a_node("b", models_on_disk=(a_file(),), version=1, fills_gaps=True))
    cold.renew(newest_in(stock))

    assert cold.newest is before
