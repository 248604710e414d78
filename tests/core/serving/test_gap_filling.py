"""When a node reaches for a model: told as stories of one core among others."""

from dataclasses import replace

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import RequestedModel, ServingState
from meshllm.core.effects import Download, Notify, StartEngine
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import OutcomeCode, Verb
from meshllm.core.limits import (
    CLAIM_WAIT_S,
    DECLINE_S,
    GAP_SETTLE_S,
    GIB,
    JOIN_WAIT_S,
    LOAD_WAIT_S,
    MIB,
    NUMBERS_INTERVAL_S,
    RANK_STEP_S,
    REPLICA_QUIET_S,
    URGENT_STEP_S,
)
from meshllm.core.policy import LoadMode, ModelPolicy
from meshllm.core.routing.plan_routes import plan_routes
from meshllm.core.routing.routes import Refusal, RefusalCode, RouteRequest, Routes, Wait
from meshllm.core.serving.election import preference
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.view import Reason
from tests.core.builders import A_BUILD, a_failure, a_machine, a_spec, exited
from tests.core.serving.neighbours import FILLS, ME, PEER, Neighbourhood, a_node, a_served

X = ModelId("x")
S = ServingState


def among_others(*specs: str, **changes: object) -> Neighbourhood:
    """Return a story in which a node with these models of a GiB has met a node that has none."""
    story = Neighbourhood(*(a_spec(name, size_bytes=GIB) for name in specs), is_joining=True, **changes)
    story.meet()
    return story


def test_a_claim_is_announced_before_it_is_acted_on() -> None:
    """So that a better one can win: the lease."""
    story = among_others("x")

    story.wait(GAP_SETTLE_S + 0.1)
    claimed, assignment = story.serving(), story.core.view.assignment
    story.wait(CLAIM_WAIT_S)

    assert claimed == [("x", "claimed")]
    assert assignment is not None
    assert (assignment.model, assignment.reason) == ("x", Reason.UNSERVED_ON_DISK)
    assert (story.started(), story.serving()) == (["x"], [("x", "loading")])
    assert story.core.view.me.serving[0].is_assigned
    assert story.model("x").reason is Reason.UNSERVED_ON_DISK


def test_a_better_claim_wins_before_anything_is_started() -> None:
    """Somebody asked that node for it."""
    story = among_others("x")
    story.wait(GAP_SETTLE_S + 0.1)

    story.hear(a_node(PEER, a_served("x", S.LOADING)))
    story.wait(10.0)

    assert (story.started(), story.serving()) == ([], [])
    assert story.core.view.assignment is None
    assert story.notes("letting go of a model")[0]["model"] == "x"


def test_a_claim_yields_while_it_loads_too() -> None:
    """A collision that shows late costs one load."""
    story = among_others("x")
    story.wait(GAP_SETTLE_S + CLAIM_WAIT_S + 0.2)

    story.hear(a_node(PEER, a_served("x")))

    assert story.model("x").state is EngineState.STOPPING


def test_what_answers_never_yields() -> None:
    """Two hosts do no harm."""
    story = among_others("x")
    story.wait(GAP_SETTLE_S + CLAIM_WAIT_S + 0.2)
    story.run("x")

    story.hear(a_node(PEER, a_served("x")))
    story.wait(30.0)

    assert story.serving() == [("x", "ready")]


def test_a_node_that_joins_waits_until_it_has_heard_who_serves_what() -> None:
    """What lacks a host in its own eyes may have one."""
    story = Neighbourhood(a_spec("x", size_bytes=GIB), is_joining=True)
    story.wait(5.0)
    before = story.serving()

    story.meet(a_node(PEER, a_served("x"), a_served("y")))
    story.wait(3.0)

    assert (before, story.serving()) == ([], [])


def test_a_node_that_joins_nobody_serves_in_the_end() -> None:
    """Nobody there to tell."""
    story = Neighbourhood(a_spec("x", size_bytes=GIB), is_joining=True)

    story.wait(20.0)

    assert story.started() == ["x"]


def test_a_lone_node_never_waits() -> None:
    """There is nobody to hear a claim."""
    story = Neighbourhood(a_spec("x", size_bytes=GIB), a_spec("y", size_bytes=2 * GIB))

    assert story.started() == ["y", "x"]


@pytest.mark.rows("CLI-11")
def test_what_was_asked_for_at_the_start_is_served_although_others_do() -> None:
    """`--model x --join`: a replica."""
    story = Neighbourhood(
        a_spec("x", size_bytes=GIB), policy=replace(FILLS, requested=("x",)), is_joining=True
    )  # fmt: skip

    story.meet(a_node(PEER, a_served("x")))

    assert story.started() == ["x"]
    assert not story.core.view.me.serving[0].is_assigned
    assert story.model("x").reason is Reason.EXPLICIT


@pytest.mark.rows("CLI-10")
def test_the_second_model_waits_for_capacity_and_others_may_serve_it() -> None:
    """It says so, and counts as nobody's."""
    story = Neighbourhood(
        a_spec("x", size_bytes=12 * GIB), a_spec("y", size_bytes=12 * GIB), policy=replace(FILLS, requested=("x", "y"))
    )

    assert story.started() == ["x"]
    assert story.model("y").waiting.startswith("capacity: needs 13.2 GB")
    assert story.serving() == [("x", "loading")]
    assert [wish.model for wish in story.core.view.me.requested] == ["x", "y"]
    assert story.core.view.cold[ModelId("y")].nodes == (ME,)


@pytest.mark.parametrize("size_gib", [12, 40])
def test_no_more_room_is_kept_than_what_waits_would_take(size_gib: int) -> None:
    """And none for what is too large for the machine: that would stay empty for good."""
    story = among_others("small", "x", policy=replace(FILLS, requested=("x", "large")))
    large = a_spec("large", size_bytes=size_gib * GIB)
    story.tell(ev.InventoryChanged(models=(a_spec("small", size_bytes=GIB), a_spec("x", size_bytes=5 * GIB), large)))
    story.run("x")

    story.hear(a_node(PEER, requested=(RequestedModel(name="small", model=ModelId("small")),)))
    story.wait(5.0)

    assert story.model("large").waiting.startswith("capacity: needs")
    assert story.started() == ["x", "small"]


def test_room_is_kept_for_what_waits_until_something_else_has_gone() -> None:
    """Else what was asked for would lose its place to what nobody asked this node for."""
    files = (a_spec("x", size_bytes=5 * GIB), a_spec("large", size_bytes=12 * GIB), a_spec("y", size_bytes=3 * GIB))
    story = Neighbourhood(*files, policy=replace(FILLS, requested=("x", "large")), is_joining=True)
    story.meet()
    story.run("x")

    story.hear(a_node(PEER, requested=(RequestedModel(name="y", model=ModelId("y")),)))
    story.wait(5.0)
    story.ask(Verb.DROP, "x")
    story.stop("x")
    story.wait(5.0)

    assert story.started() == ["x", "large"]


def test_a_wish_of_another_node_is_served_from_this_disk() -> None:
    """Its name means this file here as well."""
    story = among_others("x", policy=replace(FILLS, min_unasked_bytes=2 * GIB))
    story.wait(10.0)
    before = story.started()

    story.hear(a_node(PEER, requested=(RequestedModel(name="x", model=X),)))
    story.wait(3.0)

    assert (before, story.started()) == ([], ["x"])


def test_a_wish_that_nobody_has_is_downloaded_once_its_claim_was_heard() -> None:
    """MSH-7, with consent and room on the disk."""
    machine = replace(a_machine(), disk_free_bytes=100 * GIB)
    wish = RequestedModel(name="q", model=X, size_bytes=GIB, repository="u/r", filename="x.gguf")
    story = among_others(policy=replace(FILLS, downloads=True), machine=machine)

    story.hear(a_node(PEER, requested=(wish,)))
    story.wait(GAP_SETTLE_S + 0.2)
    claimed = (story.serving(), story.of(Download))
    story.wait(CLAIM_WAIT_S)

    assert claimed == ([("x", "claimed")], [])
    assert [effect.reference.filename for effect in story.of(Download)] == ["x.gguf"]
    assert story.serving() == [("x", "downloading")]
    story.tell(ev.DownloadFinished(model=X, path="/models/x.gguf"))
    assert story.serving() == [("x", "claimed")]
    story.tell(ev.InventoryChanged(models=(a_spec("x", size_bytes=GIB),)))
    assert story.serving() == [("x", "loading")]


def test_the_second_best_node_acts_when_the_best_does_not() -> None:
    """Whatever that one's reasons are."""
    name = next(f"{char}x" for char in "abcdefghijk" if preference(NodeId(f"{char}x"), X) < preference(ME, X))
    story = among_others("x")
    story.hear(a_node(name, disk=("x",)))
    story.wait(RANK_STEP_S)
    before = story.serving()

    story.wait(GAP_SETTLE_S + 0.2)

    assert (before, story.serving()) == ([], [("x", "claimed")])


def test_a_request_for_a_cold_model_loads_it_at_once() -> None:
    """No claim is waited for: a client is."""
    story = among_others("x", policy=replace(FILLS, min_unasked_bytes=2 * GIB))

    story.tell(ev.ModelWanted(model=X))

    assert story.started() == ["x"]
    assert story.core.view.me.waiting == (X,)
    assert story.model("x").reason is Reason.REQUESTED_BY_REQUEST
    story.run("x")
    assert story.core.view.me.waiting == ()


def test_a_request_elsewhere_for_a_model_on_this_disk_loads_it_here() -> None:
    """The node where it waits has no such file."""
    story = among_others("x", policy=replace(FILLS, min_unasked_bytes=2 * GIB))

    story.hear(a_node(PEER, waiting=(X,)))

    assert story.started() == ["x"]


def test_a_request_here_for_a_model_elsewhere_is_said_and_waits() -> None:
    """Whoever has it loads it; nobody's cold model is forgotten while somebody waits."""
    story = among_others()
    story.hear(a_node(PEER, disk=("x",)))

    story.tell(ev.ModelWanted(model=X))
    said = story.core.view.me.waiting
    story.wait(LOAD_WAIT_S / 2)
    story.tell(ev.ModelWanted(model=X))
    story.wait(LOAD_WAIT_S - 10)
    still = story.core.view.me.waiting
    story.wait(20.0)

    assert (said, still, story.core.view.me.waiting) == ((X,), (X,), ())


def test_of_two_nodes_with_a_cold_model_the_second_acts_only_if_the_first_does_not() -> None:
    """One load in the whole mesh."""
    name = next(f"{char}x" for char in "abcdefghijk" if preference(NodeId(f"{char}x"), X) < preference(ME, X))
    story = among_others("x", policy=replace(FILLS, min_unasked_bytes=2 * GIB))
    story.hear(a_node(name, disk=("x",)))

    story.hear(a_node(PEER, waiting=(X,)))
    story.wait(URGENT_STEP_S - 0.5)
    before = story.started()
    story.wait(1.0)

    assert (before, story.started()) == ([], ["x"])


def test_a_request_for_what_nobody_can_load_is_forgotten_and_the_lack_is_said() -> None:
    """503 `no_capacity`, in bytes; nobody waits five minutes for nothing."""
    story = among_others("x", policy=replace(FILLS, min_unasked_bytes=2 * GIB), machine=a_machine(memory_bytes=GIB))

    story.tell(ev.ModelWanted(model=X))

    assert story.core.view.me.waiting == ()
    assert story.core.view.cold[X].lack == "needs 1.4 GB, at most 966 MB could be free, on m"
    assert story.model("x").waiting.startswith("capacity: needs 1.3 GB")


def test_a_name_that_means_nothing_waits_for_nothing() -> None:
    """Or anybody could fill everybody's lists."""
    story = among_others("x")

    story.tell(ev.ModelWanted(model=ModelId("nonsense")))

    assert story.core.view.me.waiting == ()


def test_what_its_last_host_took_with_it_is_served_again() -> None:
    """Not asked for here, and too small to be served unasked."""
    story = among_others("x", policy=replace(FILLS, min_unasked_bytes=2 * GIB))
    story.hear(a_node(PEER, a_served("x")))
    story.wait(REPLICA_QUIET_S / 2)

    story.lose()
    story.wait_alone(3.0)

    assert story.started() == ["x"]


def test_an_idle_node_takes_a_replica_when_things_have_been_quiet() -> None:
    """Priorities three and four are no emergency."""
    story = among_others("x")
    story.hear(a_node(PEER, a_served("x"), disk=("x",)))
    story.wait(REPLICA_QUIET_S - 1)
    before = story.serving()

    story.wait(1.5)

    assert (before, story.serving()) == ([], [("x", "claimed")])
    assert story.notes("taking a model")[0]["reason"] == "least_served_on_disk"


def test_a_model_that_does_not_load_here_is_left_to_others() -> None:
    """A bad file is no reason to try for ever."""
    story = among_others("x")
    story.wait(GAP_SETTLE_S + CLAIM_WAIT_S + 0.2)

    story.tell(exited("x", EngineFault.BAD_FILE))
    story.wait(DECLINE_S + 10)

    assert (story.started(), story.serving()) == (["x"], [])


def test_a_model_that_could_not_be_fetched_here_is_left_to_others() -> None:
    """And is tried again some time, if nobody has it by then."""
    machine = replace(a_machine(), disk_free_bytes=100 * GIB)
    wish = RequestedModel(name="q", model=X, size_bytes=GIB, repository="u/r", filename="x.gguf")
    story = among_others(policy=replace(FILLS, downloads=True), machine=machine)
    story.hear(a_node(PEER, requested=(wish,)))
    story.wait(3.0)

    story.tell(ev.DownloadFailed(model=X, code="disk_full", message="the disk is full"))
    known = X in story.core.view.local
    story.wait(DECLINE_S / 2)
    before = len(story.of(Download))
    story.wait(DECLINE_S)

    assert (known, before, len(story.of(Download))) == (False, 1, 2)


def test_a_model_that_somebody_unloaded_here_comes_back_only_for_a_request() -> None:
    """X29: people decide."""
    story = Neighbourhood(a_spec("x", size_bytes=GIB))
    story.run("x")

    story.ask(Verb.UNLOAD, "x")
    story.stop("x")
    story.wait(30.0)
    before = story.started()
    story.tell(ev.ModelWanted(model=X))

    assert (before, story.started()) == (["x"], ["x", "x"])


@pytest.mark.parametrize(
    "said", [ModelPolicy(name="x", load=LoadMode.OFF), ModelPolicy(name="x", is_enabled=False)], ids=["off", "disabled"]
)
def test_what_is_off_or_disabled_is_loaded_by_nobodys_request(said: ModelPolicy) -> None:
    """Only an order loads what is off."""
    story = Neighbourhood(a_spec("x", size_bytes=GIB), policy=replace(FILLS, models=(said,)))

    story.tell(ev.ModelWanted(model=X))
    story.hear(a_node(PEER, waiting=(X,)))
    before = story.started()
    story.ask(Verb.LOAD, "x")

    assert (before, story.started()) == ([], ["x"])


def test_a_lazy_model_waits_for_a_request_and_an_eager_one_does_not() -> None:
    """X20."""
    said = (ModelPolicy(name="x"), ModelPolicy(name="y", load=LoadMode.EAGER))

    story = Neighbourhood(a_spec("x", size_bytes=GIB), a_spec("y", size_bytes=GIB), policy=replace(FILLS, models=said))

    assert story.started() == ["y"]


@pytest.mark.rows("T26")
def test_a_load_makes_room_by_what_was_used_longest_ago() -> None:
    """And says which and why."""
    story = Neighbourhood(
        a_spec("a", size_bytes=6 * GIB), a_spec("b", size_bytes=6 * GIB), a_spec("c", size_bytes=6 * GIB)
    )
    for name in ("a", "b"):
        story.run(name)
    story.tell(ev.TrafficMeasured(finished=((ModelId("a"), 1),)), after_s=5.0)

    asked = story.ask(Verb.LOAD, "c")
    story.stop("b")
    story.run("c")

    outcome = story.outcome(asked)
    assert outcome is not None
    assert outcome.code is OutcomeCode.DONE
    assert story.serving() == [("a", "ready"), ("c", "ready")]
    reason = str(story.notes("letting go of a model")[0]["reason"])
    assert reason.startswith("it was used longest ago, and c needs 6.7 GB")


@pytest.mark.rows("T26")
def test_what_was_asked_for_at_the_start_makes_no_room() -> None:
    """Then the load is refused, with the bytes."""
    story = Neighbourhood(
        a_spec("a", size_bytes=9 * GIB), a_spec("b", size_bytes=9 * GIB), policy=ServingPolicy(requested=("a",))
    )
    story.run("a")

    outcome = story.outcome(story.ask(Verb.LOAD, "b"))

    assert outcome is not None
    assert outcome.code is OutcomeCode.NO_CAPACITY
    assert story.serving() == [("a", "ready")]


def test_nothing_makes_room_that_answers_requests() -> None:
    """Nobody's answer is cut off for somebody else's question."""
    story = Neighbourhood(a_spec("a", size_bytes=9 * GIB), a_spec("b", size_bytes=8 * GIB))
    story.run("a")
    story.tell(ev.TrafficMeasured(finished=(), in_flight=((ModelId("a"), 1),)))

    story.tell(ev.ModelWanted(model=ModelId("b")))
    busy = story.serving()
    story.tell(ev.TrafficMeasured(finished=((ModelId("a"), 1),)), after_s=1.0)
    story.tell(ev.ModelWanted(model=ModelId("b")))
    story.stop("a")

    assert busy == [("a", "ready")]
    assert story.started() == ["a", "b"]


def test_room_that_has_come_free_is_waited_for_until_it_is_measured() -> None:
    """The measurement from before shows the memory of the engine that went."""
    story = Neighbourhood(a_spec("a", size_bytes=9 * GIB), a_spec("b", size_bytes=8 * GIB))
    story.run("a")
    story.tell(ev.ResourcesMeasured(resources=a_machine(free_bytes=5 * GIB)))

    story.tell(ev.ModelWanted(model=ModelId("b")))
    story.stop("a")
    before = story.started()
    story.tell(ev.ResourcesMeasured(resources=a_machine(free_bytes=15 * GIB)))

    assert (before, story.started()) == (["a"], ["a", "b"])


def test_demand_counts_requests_where_they_entered_the_mesh() -> None:
    """Not where they were answered; never twice."""
    story = among_others("x")
    story.tell(
        ev.TrafficMeasured(finished=((X, 10),), from_peers=((X, 10),), elsewhere=((ModelId("y"), 20),)), after_s=10.0
    )

    assert [model for model, _ in story.core.view.me.demand] == ["y"]
    assert story.core.view.me.uses == (("x", 10),)
    story.hear(a_node(PEER, demand=(("y", 4.0),)))
    story.wait(6.0)
    assert story.core.view.demand[ModelId("y")] > 4.0


def test_what_a_request_loaded_is_logged_with_its_reason() -> None:
    """People ask why."""
    story = among_others("x", policy=replace(FILLS, min_unasked_bytes=2 * GIB))

    story.tell(ev.ModelWanted(model=X))

    notes = [one for one in story.of(Notify) if one.message == "taking a model"]
    assert [dict(note.fields)["why"] for note in notes] == ["requests wait for it"]


def test_a_node_that_fills_no_gaps_serves_its_disk_and_looks_at_nobody() -> None:
    """As it did before there was a mesh; it yields nothing either."""
    story = Neighbourhood(a_spec("x", size_bytes=GIB), policy=ServingPolicy(), is_joining=True)

    story.meet(a_node(PEER, a_served("x")))
    story.wait(10.0)

    assert story.started() == ["x"]
    assert story.serving() == [("x", "loading")]


@pytest.mark.rows("CLI-18")
def test_serve_all_serves_all_that_fits_besides_what_was_asked_for() -> None:
    """`--serve-all`."""
    policy = ServingPolicy(requested=("x",), serves_all=True, fills_gaps=True)
    story = Neighbourhood(a_spec("x"), a_spec("y", size_bytes=GIB), a_spec("z", size_bytes=90 * GIB), policy=policy)

    assert sorted(story.started()) == ["x", "y"]


def test_no_plan_ever_takes_more_than_the_machine_has() -> None:
    """Whatever is wanted from all sides."""
    specs = [a_spec(f"m{number}", size_bytes=(number + 1) * 700 * MIB) for number in range(12)]
    story = Neighbourhood(*specs, is_joining=True)
    story.meet(a_node(PEER, waiting=tuple(spec.id for spec in specs)))
    for spec in specs:
        story.tell(ev.ModelWanted(model=spec.id))
        story.wait(1.0)

    plans = [effect.plan for effect in story.of(StartEngine)]
    assert len(plans) > 2
    taken = [one.plan.memory.total_bytes for one in story.core.view.local.values() if one.plan is not None]
    assert sum(taken) <= 16 * GIB * 0.9


def asked(story: Neighbourhood, model: str = "x") -> Routes | Wait | Refusal:
    """Return what a request for a model is told now."""
    return plan_routes(story.core.view, RouteRequest(model=model))


FACTS = (ev.ResourcesMeasured(resources=a_machine()), ev.EngineProbed(build=A_BUILD))


@pytest.mark.parametrize("facts", [FACTS, FACTS[::-1]])
@pytest.mark.parametrize("policy", [FILLS, ServingPolicy()])
def test_a_request_waits_until_a_node_that_has_just_started_knows_what_it_can_run(
    facts: tuple[ev.Event, ...], policy: ServingPolicy
) -> None:
    """Files, machine and engine become known one after the other; then the model is loaded that was asked for."""
    story = Neighbourhood(policy=policy, has_looked=False)
    story.tell(ev.InventoryChanged(models=(a_spec("x"), a_spec("y", size_bytes=GIB))))

    found = [asked(story)]
    story.tell(ev.ModelWanted(model=X))
    for fact in facts:
        found.append(asked(story))
        story.tell(fact)

    assert [type(one) for one in found] == [Wait] * 3
    assert "x" in story.started()


def test_a_node_whose_engine_cannot_run_refuses_at_once() -> None:
    """What is known to be missing is no longer waited for."""
    story = Neighbourhood(has_looked=False)
    story.tell(ev.InventoryChanged(models=(a_spec("x"),)), ev.ResourcesMeasured(resources=a_machine()))
    early = asked(story)

    story.tell(ev.EngineProbed(build=None, failure=a_failure()))

    assert isinstance(early, Wait)
    assert isinstance(asked(story), Refusal)


def test_what_another_node_has_that_has_just_started_is_waited_for() -> None:
    """It looks as if it could run nothing, and says that it does not know that yet; afterwards it counts as it is."""
    young = a_node(PEER, disk=("x",), is_starting=True, resources=None)
    story = Neighbourhood()
    story.meet(young)
    story.wait(1.0)
    early = asked(story)
    story.hear(replace(young, is_starting=False, resources=a_machine(memory_bytes=GIB)))
    story.wait(1.0)
    small = asked(story)
    story.hear(replace(young, is_starting=False, resources=a_machine()))
    story.wait(NUMBERS_INTERVAL_S + 1.0)

    assert isinstance(early, Wait)
    assert isinstance(small, Refusal)
    assert small.code is RefusalCode.NO_CAPACITY
    assert isinstance(asked(story), Wait)


def test_what_a_node_that_has_just_started_might_fetch_is_waited_for() -> None:
    """The one that wants it is too small, and the other does not know yet what it can run."""
    wish = RequestedModel(
        name="x", model=X, size_bytes=15 * GIB, repository="u/r", filename="x.gguf", sha256="0" * 64, min_replicas=1
    )
    small = a_node(PEER, requested=(wish,), resources=a_machine(memory_bytes=GIB))
    other = a_node("q" * 52, downloads=True, is_starting=True, resources=None)
    story = Neighbourhood(policy=ServingPolicy())
    story.meet(small)
    story.hear(other)
    story.wait(1.0)
    early = story.core.view.cold[X].lack
    story.hear(replace(other, is_starting=False, downloads=False))
    story.wait(1.0)

    assert early == ""
    assert story.core.view.cold[X].lack != ""


def test_a_node_that_joins_does_not_say_yet_that_nobody_has_room() -> None:
    """It has heard of nobody. Who turns out to be alone says it then."""
    story = Neighbourhood(a_spec("x", size_bytes=100 * GIB), is_joining=True)
    early = asked(story)

    story.wait_alone(JOIN_WAIT_S + 0.2)

    late = asked(story)
    assert isinstance(early, Wait)
    assert isinstance(late, Refusal)
    assert late.code is RefusalCode.NO_CAPACITY
