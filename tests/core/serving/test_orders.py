"""What load, unload, drop and pull do to a model."""

import random

import pytest

from meshllm.core import events as ev
from meshllm.core.effects import DrainEngine, KeepOrders, Leave, StopEngine
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import OutcomeCode, Verb
from meshllm.core.limits import GIB
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.serving.lifecycle import ServingPolicy
from tests.core.builders import A_BUILD, Story, a_machine, a_spec, a_story, exited, ready

TINY = ModelId("tiny")


def served(name: str = "tiny") -> Story:
    """Return a story in which one requested model is ready."""
    story = a_story(a_spec(name), requested=(name,))
    story.tell(ev.EngineStarted(model=ModelId(name), pid=100), ready(name))
    return story


@pytest.mark.rows("LIF-12")
def test_unload_drains_before_it_stops() -> None:
    """Requests in flight are finished."""
    story = served()

    request = story.ask(Verb.UNLOAD, "tiny")
    assert story.of(DrainEngine)
    assert story.model("tiny").state is EngineState.DRAINING
    assert story.outcome(request) is None

    assert story.tell(ev.EngineDrained(model=TINY)) == [StopEngine(model=TINY)]
    story.tell(exited("tiny", EngineFault.STOPPED))
    outcome = story.outcome(request)
    assert outcome is not None
    assert outcome.is_done


@pytest.mark.rows("LIF-12")
def test_unload_by_force_does_not_wait() -> None:
    """Sometimes memory is needed at once."""
    story = served()

    story.ask(Verb.UNLOAD, "tiny", force=True)

    assert story.of(StopEngine) == [StopEngine(model=TINY, kill=True)]


def test_unload_twice_is_done_twice() -> None:
    """Idempotent: the second one finds its wish fulfilled."""
    story = a_story(a_spec("other"), a_spec(), requested=("other",))

    for _ in range(2):
        outcome = story.outcome(story.ask(Verb.UNLOAD, "tiny"))
        assert outcome is not None
        assert outcome.is_done


def test_an_unloaded_model_comes_back_by_a_request_but_a_held_one_does_not() -> None:
    """`hold` is the difference."""
    for hold in (False, True):
        story = served()
        story.ask(Verb.UNLOAD, "tiny", hold=hold)
        story.tell(ev.EngineDrained(model=TINY))
        story.tell(exited("tiny", EngineFault.STOPPED))

        story.tell(ev.ModelWanted(model=TINY))

        assert story.model("tiny").wanted is not hold


def test_a_hold_outlives_a_later_unload() -> None:
    """Only `load` takes it back; who unloads once more does not mean the opposite."""
    story = served()
    story.ask(Verb.UNLOAD, "tiny", hold=True)
    story.tell(ev.EngineDrained(model=TINY), exited("tiny", EngineFault.STOPPED))

    story.ask(Verb.UNLOAD, "tiny")
    story.tell(ev.ModelWanted(model=TINY))

    assert story.model("tiny").held
    assert not story.model("tiny").wanted


def test_a_pin_is_remembered_over_restarts_and_before_its_file_is_there() -> None:
    """It loads nothing, and is this node's alone."""
    story = a_story(a_spec(), a_spec("other"), requested=("other",))

    outcomes = [story.outcome(story.ask(verb, "tiny")) for verb in (Verb.UNPIN, Verb.PIN)]
    kept = story.of(KeepOrders)[-1].kept
    config = CoreConfig(node=NodeId("a" * 32), name="a", serving=ServingPolicy(requested=("other",)), kept=kept)
    again = Story(MeshCore(config, 200.0, random.Random(1)))
    again.tell(ev.ResourcesMeasured(resources=a_machine()), ev.EngineProbed(build=A_BUILD))
    again.tell(ev.InventoryChanged(models=(a_spec("other"),)))
    still = again.of(KeepOrders)
    again.tell(ev.InventoryChanged(models=(a_spec("other"), a_spec())))

    assert [outcome.is_done for outcome in outcomes if outcome is not None] == [True, True]
    assert kept.pins == ((TINY, True),)
    assert all(effect.kept.pins == kept.pins for effect in still)
    assert (story.model("tiny").pin, again.model("tiny").pin) == (True, True)
    assert (story.model("tiny").wanted, again.model("other").pin) == (False, None)


def test_what_is_not_here_cannot_be_pinned() -> None:
    """A pin fetches nothing."""
    story = a_story(a_spec())

    outcome = story.outcome(story.ask(Verb.PIN, "smollm2-135m"))

    assert outcome is not None
    assert outcome.code is OutcomeCode.UNKNOWN_MODEL


def test_load_brings_back_what_was_held_dropped_or_failed() -> None:
    """An explicit order overrules all earlier ones."""
    story = a_story(a_spec(), requested=("tiny",))
    story.tell(exited("tiny", EngineFault.BAD_FILE))

    request = story.ask(Verb.LOAD, "tiny")
    story.tell(ready("tiny"))

    outcome = story.outcome(request)
    assert outcome is not None
    assert outcome.is_done


def test_load_during_unload_is_carried_out_after_it() -> None:
    """The last word wins, and both askers get an answer."""
    story = served()
    unload = story.ask(Verb.UNLOAD, "tiny")

    load = story.ask(Verb.LOAD, "tiny")
    story.tell(ev.EngineDrained(model=TINY))
    story.tell(exited("tiny", EngineFault.STOPPED))
    story.tell(ready("tiny"))

    assert [story.outcome(request) is not None for request in (unload, load)] == [True, True]
    assert story.model("tiny").is_ready


def test_a_load_that_an_unload_overtakes_says_so_and_names_the_model() -> None:
    """Whoever asked by another name can then be told what its state is."""
    story = a_story(a_spec("other"), a_spec(), requested=("other",))
    load = story.ask(Verb.LOAD, "tiny")

    story.ask(Verb.UNLOAD, "tiny")

    outcome = story.outcome(load)
    assert outcome is not None
    assert (outcome.code, outcome.model) == (OutcomeCode.SUPERSEDED, "tiny")


def test_load_that_fails_says_why() -> None:
    """The reason of the engine is the answer to the intent."""
    story = a_story(a_spec("other"), a_spec(), requested=("other",))

    request = story.ask(Verb.LOAD, "tiny")
    story.tell(exited("tiny", EngineFault.BAD_FILE, "the file is damaged"))

    outcome = story.outcome(request)
    assert outcome is not None
    assert (outcome.code, outcome.message) == (OutcomeCode.LOAD_FAILED, "the file is damaged")


@pytest.mark.rows("LIF-18")
def test_load_without_room_says_what_is_missing() -> None:
    """Nothing is started that does not fit."""
    story = a_story(a_spec("huge", size_bytes=90 * GIB))

    outcome = story.outcome(story.ask(Verb.LOAD, "huge"))

    assert outcome is not None
    assert outcome.code is OutcomeCode.NO_CAPACITY
    assert "needs 96.9 GB" in outcome.message


def test_a_load_that_was_refused_is_over() -> None:
    """Who was told no is not surprised by a yes hours later; what the start asked for goes on waiting."""
    story = a_story(a_spec("big", size_bytes=12 * GIB), a_spec("big2", size_bytes=12 * GIB), requested=("big",))
    story.tell(ready("big"))
    story.ask(Verb.LOAD, "big2")
    refused = story.model("big2")

    story.ask(Verb.UNLOAD, "big")
    story.tell(ev.EngineDrained(model=ModelId("big")), exited("big", EngineFault.STOPPED))

    assert (refused.wanted, refused.waiting.startswith("capacity")) == (False, True)
    assert story.model("big2").state is EngineState.STOPPED


def test_a_load_of_what_waits_anyway_leaves_it_waiting() -> None:
    """The order came on top of the start's own."""
    story = a_story(a_spec("big", size_bytes=12 * GIB), a_spec("big2", size_bytes=12 * GIB), requested=("big", "big2"))

    outcome = story.outcome(story.ask(Verb.LOAD, "big2"))

    assert outcome is not None
    assert outcome.code is OutcomeCode.NO_CAPACITY
    assert story.model("big2").wanted


def test_a_loaded_model_waits_for_room_after_a_crash() -> None:
    """The order was carried out, and holds until somebody takes it back."""
    story = a_story(a_spec("other"), a_spec("big", size_bytes=8 * GIB), requested=("other",))
    story.ask(Verb.LOAD, "big")
    story.tell(ready("big"))
    story.tell(exited("big"), ev.ResourcesMeasured(resources=a_machine(free_bytes=GIB)))

    story.tell(ev.Woke(), after_s=1.0)

    assert story.model("big").wanted
    assert story.model("big").waiting


def test_drop_of_the_only_model_ends_the_node_after_draining() -> None:
    """As the source document describes it."""
    story = served()

    request = story.ask(Verb.DROP, "tiny")
    story.tell(ev.EngineDrained(model=TINY))
    assert not story.of(Leave)
    story.tell(exited("tiny", EngineFault.STOPPED))

    outcome = story.outcome(request)
    assert outcome is not None
    assert outcome.is_done
    assert [effect.exit_code for effect in story.of(Leave)] == [0]


def test_drop_keeps_the_node_when_asked_to_or_when_it_serves_more() -> None:
    """`--keep-running`, or another model."""
    for story, keep in ((served(), True), (served(), False)):
        if not keep:
            story.tell(ev.InventoryChanged(models=(a_spec(), a_spec("other"))))
            story.ask(Verb.LOAD, "other")
            story.tell(ready("other"))
        story.ask(Verb.DROP, "tiny", keep_running=keep)
        story.tell(ev.EngineDrained(model=TINY))
        story.tell(exited("tiny", EngineFault.STOPPED))

        assert not story.of(Leave)
        assert story.model("tiny").dropped


def test_drop_of_what_is_not_served_drops_nothing() -> None:
    """The caller learns that nothing happened."""
    story = a_story(a_spec("other"), a_spec(), requested=("other",))

    outcomes = [story.outcome(story.ask(Verb.DROP, name)) for name in ("tiny", "nonsense")]

    assert [outcome.code for outcome in outcomes if outcome] == [OutcomeCode.NOT_SERVED, OutcomeCode.UNKNOWN_MODEL]
