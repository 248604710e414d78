"""When a node takes a model out of its memory by itself: told as stories of one core among others."""

from dataclasses import replace

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import ModelOrder, RequestedModel
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId
from meshllm.core.intents import Verb
from meshllm.core.limits import COOL_S, GIB, HOT_PER_SLOT, HOT_S
from meshllm.core.policy import ModelPolicy
from meshllm.core.rights import GUEST
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.view import Reason
from tests.core.builders import a_machine, a_spec
from tests.core.serving.neighbours import FILLS, PEER, Neighbourhood, a_node, a_served

X = ModelId("x")
UNASKED_NONE = replace(FILLS, min_unasked_bytes=2 * GIB)
IDLE = ModelPolicy(name="x", idle_unload_s=60.0)


def serving_x(said: ModelPolicy = IDLE, **changes: object) -> Neighbourhood:
    """Return a lone node that serves x, which was asked for at its start."""
    policy = ServingPolicy(requested=("x",), models=(said,), fills_gaps=True)
    story = Neighbourhood(a_spec("x", size_bytes=GIB), policy=replace(policy, **changes))
    story.run("x")
    return story


def an_order(version: int, *, hold: bool = False) -> ModelOrder:
    """Return an order to unload x everywhere."""
    return ModelOrder(model=X, verb=Verb.UNLOAD, version=version, author=PEER, hold=hold)


@pytest.mark.rows("LIF-16")
def test_a_model_that_nobody_has_used_for_long_enough_is_unloaded() -> None:
    """And stays so until a request names it."""
    story = serving_x()
    story.wait_alone(59.0)
    before = story.serving()

    story.wait_alone(2.0)
    story.stop("x")
    story.wait_alone(120.0)
    after = story.started()
    story.tell(ev.ModelWanted(model=X))

    assert (before, after, story.started()) == ([("x", "ready")], ["x"], ["x", "x"])
    assert story.notes("letting go of a model")[0]["reason"] == "nobody has used it for 60 s"


def test_what_is_pinned_stays_however_long_it_rests_until_somebody_lets_it_go() -> None:
    """By an order, whatever the configuration says: it outlives the configuration's word in both directions."""
    story, said_so = serving_x(), serving_x(replace(IDLE, is_pinned=True))
    story.ask(Verb.PIN, "x")
    story.wait_alone(200.0)
    pinned = story.serving()
    story.ask(Verb.UNPIN, "x")
    said_so.ask(Verb.UNPIN, "x")
    for one in (story, said_so):
        one.wait_alone(61.0)
        one.stop("x")

    assert (pinned, story.serving(), said_so.serving()) == ([("x", "ready")], [], [])


def test_a_request_begins_the_rest_anew_and_a_long_one_puts_it_off() -> None:
    """An answer of an hour is no rest."""
    story = serving_x()
    story.wait_alone(50.0)
    story.tell(ev.TrafficMeasured(finished=((X, 1),)))
    story.wait_alone(50.0)
    story.tell(ev.TrafficMeasured(finished=(), in_flight=((X, 1),)))

    story.wait_alone(120.0)

    assert story.serving() == [("x", "ready")]
    story.tell(ev.TrafficMeasured(finished=((X, 1),)))
    story.wait_alone(61.0)
    assert story.model("x").state is EngineState.DRAINING


@pytest.mark.parametrize(
    "said",
    [ModelPolicy(name="x"), replace(IDLE, is_pinned=True), replace(IDLE, min_replicas=1), replace(IDLE, min_warm=1)],
    ids=["nothing said", "pinned", "min_replicas", "min_warm"],
)  # fmt: skip
def test_what_is_to_stay_stays(said: ModelPolicy) -> None:
    """X29, LIF-16, LIF-17."""
    story = serving_x(said)

    story.wait_alone(3600.0)

    assert story.serving() == [("x", "ready")]


def test_hosts_of_an_idle_model_are_not_unloaded_below_the_floor_of_the_mesh() -> None:
    """Another node's configuration counts as well."""
    story = serving_x()
    wish = RequestedModel(name="x", model=X, min_replicas=1)

    story.meet(a_node(PEER, requested=(wish,)))
    story.wait(100.0)

    assert story.serving() == [("x", "ready")]


@pytest.mark.rows("LIF-17")
def test_a_model_is_kept_warm_on_as_many_nodes_as_its_configuration_says() -> None:
    """This node is told only that another one wants so many."""
    story = Neighbourhood(
        a_spec("x", size_bytes=GIB), policy=replace(FILLS, min_unasked_bytes=2 * GIB), is_joining=True
    )
    wish = RequestedModel(name="x", model=X, min_warm=2)
    story.meet(a_node(PEER, a_served("x"), requested=(wish,)))

    story.wait(3.0)

    assert story.started() == ["x"]
    assert story.model("x").reason is Reason.WARM


def test_a_hot_model_gains_a_host_which_goes_when_it_has_cooled() -> None:
    """Half a minute to come, ten to go."""
    policy = replace(FILLS, min_unasked_bytes=2 * GIB, requested=("y",))
    story = Neighbourhood(a_spec("x", size_bytes=GIB), a_spec("y", size_bytes=GIB), policy=policy, is_joining=True)
    story.run("y")
    hot = a_node(PEER, a_served("x"), demand=(("x", 4 * HOT_PER_SLOT + 1),))
    story.meet(hot)
    story.wait(HOT_S - 1)
    before = story.started()
    story.wait(10.0)
    story.run("x")

    story.hear(replace(hot, demand=()))
    story.wait(COOL_S - 10)
    still = story.serving()
    story.wait(20.0)

    assert (before, story.started()) == (["y"], ["y", "x"])
    assert story.notes("taking a model")[0]["reason"] == "hot"
    assert ("x", "ready") in still
    assert story.model("x").state is EngineState.DRAINING
    assert story.notes("letting go of a model")[0]["reason"] == "its other hosts are enough again"


def test_a_host_that_was_added_is_not_taken_away_while_it_is_needed() -> None:
    """The only other one died."""
    policy = replace(FILLS, min_unasked_bytes=2 * GIB, requested=("y",))
    story = Neighbourhood(a_spec("x", size_bytes=GIB), a_spec("y", size_bytes=GIB), policy=policy, is_joining=True)
    story.run("y")
    story.meet(a_node(PEER, a_served("x"), demand=(("x", 4 * HOT_PER_SLOT + 1),)))
    story.wait(HOT_S + 10)
    story.run("x")

    story.hear(a_node(PEER))
    story.wait(COOL_S + 60)

    assert ("x", "ready") in story.serving()


def test_a_model_that_was_ordered_out_of_the_mesh_is_unloaded_here_too() -> None:
    """Whoever did not hear the order itself hears of it."""
    story = serving_x(ModelPolicy(name="x"))

    story.meet(a_node(PEER, orders=(an_order(7),)))
    story.stop("x")
    story.wait(60.0)

    assert (story.started(), story.serving()) == (["x"], [])
    assert story.core.view.cold[X].order == an_order(7)


def test_a_request_spends_an_order_and_the_model_is_served_in_its_knowledge() -> None:
    """X29: until a request names it."""
    story = serving_x(ModelPolicy(name="x"))
    story.meet(a_node(PEER, orders=(an_order(7),)))
    story.stop("x")

    story.tell(ev.ModelWanted(model=X))
    story.run("x")
    story.wait(30.0)

    assert story.serving() == [("x", "ready")]
    assert [one.order for one in story.core.view.me.serving] == [7]


def test_a_model_that_is_held_comes_back_for_nobodys_request() -> None:
    """Only somebody's order ends it."""
    story = serving_x(ModelPolicy(name="x"))
    story.meet(a_node(PEER, orders=(an_order(7, hold=True),)))
    story.stop("x")

    story.tell(ev.ModelWanted(model=X))
    story.hear(a_node(PEER, orders=(an_order(7, hold=True),), waiting=(X,)))
    story.wait(30.0)

    assert story.started() == ["x"]
    assert story.model("x").held


def test_a_guest_orders_nothing() -> None:
    """Its word about itself is its own; about others it has none."""
    story = serving_x(ModelPolicy(name="x"))

    story.meet(a_node(PEER, orders=(an_order(7),), rights=GUEST))
    story.wait(10.0)

    assert story.serving() == [("x", "ready")]


def test_what_was_loaded_after_an_order_is_not_touched_by_it() -> None:
    """It is known when the model is wanted."""
    story = Neighbourhood(
        a_spec("x", size_bytes=GIB), policy=replace(FILLS, min_unasked_bytes=2 * GIB), is_joining=True
    )
    story.meet(a_node(PEER, orders=(an_order(7),)))

    story.ask(Verb.LOAD, "x")
    story.run("x")
    story.wait(10.0)

    assert story.serving() == [("x", "ready")]
    assert [one.order for one in story.core.view.me.serving] == [7]


def test_what_is_pinned_makes_no_room() -> None:
    """Whoever asks for it."""
    policy = replace(FILLS, models=(ModelPolicy(name="a", is_pinned=True), ModelPolicy(name="b")))
    story = Neighbourhood(a_spec("a", size_bytes=9 * GIB), a_spec("b", size_bytes=8 * GIB), policy=policy)
    story.tell(ev.ModelWanted(model=ModelId("a")))
    story.run("a")

    story.tell(ev.ModelWanted(model=ModelId("b")))

    assert story.serving() == [("a", "ready")]
    assert story.model("b").waiting.startswith("capacity: needs")


def test_no_more_goes_than_it_takes() -> None:
    """What was used longest ago is not always in the way."""
    specs = (a_spec("a", size_bytes=9 * GIB), a_spec("b", size_bytes=2 * GIB), a_spec("c", size_bytes=8 * GIB))
    story = Neighbourhood(*specs, machine=a_machine(memory_bytes=18 * GIB))
    for name in story.started():
        story.run(name)
    running = story.started()

    story.tell(ev.ModelWanted(model=ModelId("c")))

    assert running == ["a", "b"]
    assert [note["model"] for note in story.notes("letting go of a model")] == ["a"]
