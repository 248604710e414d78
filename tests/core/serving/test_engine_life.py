"""What becomes of engines that fail, hang, or speak too late."""

from dataclasses import replace

import pytest

from meshllm.core import events as ev
from meshllm.core.effects import StartEngine, StopEngine
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.ids import ModelId
from meshllm.core.intents import OutcomeCode, Verb
from meshllm.core.limits import ENGINE_BACKOFF_MAX_S, ENGINE_FAILURE_WINDOW_S, ENGINE_LOAD_FAILURES_MAX, GIB
from tests.core.builders import Story, a_spec, a_story, exited, ready

TINY = ModelId("tiny")


def served(name: str = "tiny") -> Story:
    """Return a story in which one requested model is ready."""
    story = a_story(a_spec(name), requested=(name,))
    story.tell(ev.EngineStarted(model=ModelId(name), pid=100), ready(name))
    return story


def test_crashes_are_followed_by_restarts_with_growing_delays_for_ever() -> None:
    """A request that crashes engines must not take a model away from everybody else."""
    story, delays = served(), []

    for _ in range(30):
        story.tell(exited("tiny"))
        retry_at_s = story.core.next_wakeup_s()
        assert retry_at_s is not None
        delays.append(retry_at_s - story.now_s)
        story.tell(ev.Woke(), after_s=delays[-1])
        story.tell(ready("tiny"))

    assert delays[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, ENGINE_BACKOFF_MAX_S, ENGINE_BACKOFF_MAX_S]
    assert min(delays[8:]) == ENGINE_BACKOFF_MAX_S
    assert story.model("tiny").is_ready
    assert story.model("tiny").restarts == 30


def test_no_fault_of_an_engine_that_was_ready_is_final() -> None:
    """It has shown that its file, its build and this machine can do it."""
    for fault in EngineFault:
        story = served()

        story.tell(exited("tiny", fault))

        assert story.model("tiny").state is EngineState.BACKING_OFF


def test_five_loads_in_a_row_that_fail_are_the_end() -> None:
    """What never became ready will not by trying more."""
    story, tries = a_story(a_spec(), requested=("tiny",)), 0

    while story.model("tiny").state is EngineState.STARTING:
        tries += 1
        story.tell(exited("tiny"))
        story.tell(ev.Woke(), after_s=ENGINE_BACKOFF_MAX_S)

    assert tries == ENGINE_LOAD_FAILURES_MAX
    assert story.model("tiny").state is EngineState.FAILED
    assert story.core.next_wakeup_s() is None


def test_failed_loads_are_counted_in_a_row() -> None:
    """Every time it becomes ready the count begins anew."""
    story = served()

    for _ in range(ENGINE_LOAD_FAILURES_MAX):
        story.tell(exited("tiny"))
        story.tell(ev.Woke(), after_s=ENGINE_BACKOFF_MAX_S)
        story.tell(exited("tiny"))
        story.tell(ev.Woke(), after_s=ENGINE_BACKOFF_MAX_S)
        story.tell(ready("tiny"))

    assert story.model("tiny").is_ready


def test_an_order_to_load_does_not_wait_for_the_back_off() -> None:
    """Somebody is there who knows why."""
    story = served()
    story.tell(exited("tiny"))

    story.ask(Verb.LOAD, "tiny")

    assert story.model("tiny").state is EngineState.STARTING


def test_rare_crashes_never_add_up() -> None:
    """An engine that crashes once a day is restarted at once, every day."""
    story = served()

    for _ in range(10):
        story.tell(exited("tiny"), after_s=ENGINE_FAILURE_WINDOW_S + 1)
        assert story.core.next_wakeup_s() == story.now_s + 1.0
        story.tell(ev.Woke(), after_s=1.0)
        story.tell(ready("tiny"))

    assert story.model("tiny").restarts == 10


def test_waking_early_does_not_restart_early() -> None:
    """Back-off is a promise to a machine in trouble."""
    story = served()
    story.tell(exited("tiny"))

    effects = story.tell(ev.Woke(), after_s=0.5)

    assert not effects
    assert story.core.next_wakeup_s() == story.now_s + 0.5


def test_faults_that_another_try_would_repeat_end_at_once() -> None:
    """A damaged file is not tried five times."""
    for fault in (
        EngineFault.BAD_FILE,
        EngineFault.UNKNOWN_ARCHITECTURE,
        EngineFault.ILLEGAL_INSTRUCTION,
        EngineFault.LOAD_TIMEOUT,
    ):
        story = a_story(a_spec(), requested=("tiny",))

        story.tell(exited("tiny", fault, "because"))

        model = story.model("tiny")
        assert model.state is EngineState.FAILED
        assert model.failure is not None
        assert (model.failure.fault, model.failure.message) == (fault, "because")


def test_out_of_memory_is_tried_once_more_with_half() -> None:
    """Half the cache may fit; if it does not, the model does not fit."""
    story = a_story(a_spec(), requested=("tiny",))
    first = story.of(StartEngine)[0].plan

    story.tell(exited("tiny", EngineFault.OUT_OF_MEMORY))
    story.tell(ev.Woke())
    second = story.of(StartEngine)[1].plan
    story.tell(exited("tiny", EngineFault.OUT_OF_MEMORY))

    assert second.cache_tokens == first.cache_tokens // 2
    assert story.model("tiny").state is EngineState.FAILED


def test_an_engine_that_takes_more_than_was_planned_leaves_less_for_others() -> None:
    """The ledger counts what was measured after the load."""
    story = a_story(a_spec(), a_spec("other"), requested=("tiny",))

    story.tell(replace(ready("tiny"), resident_bytes=15 * GIB))
    refused = story.ask(Verb.LOAD, "other")

    outcome = story.outcome(refused)
    assert outcome is not None
    assert outcome.code is OutcomeCode.NO_CAPACITY


@pytest.mark.rows("LIF-19")
def test_one_models_failure_leaves_the_other_alone() -> None:
    """Engines share nothing."""
    story = a_story(a_spec("a"), a_spec("b"), requested=("a", "b"))
    story.tell(ready("a"), ready("b"))

    story.tell(exited("a", EngineFault.BAD_FILE))

    assert story.model("b").is_ready


def test_a_replaced_file_gets_another_chance() -> None:
    """Whoever mends a damaged file does not have to restart the node."""
    story = a_story(a_spec(), requested=("tiny",))
    story.tell(exited("tiny", EngineFault.BAD_FILE))

    story.tell(ev.InventoryChanged(models=(a_spec(modified_s=2.0),)))
    effects = story.tell(ev.ModelWanted(model=TINY))

    assert any(isinstance(effect, StartEngine) for effect in effects)


def test_a_hung_engine_is_killed_and_restarted() -> None:
    """A process that lives and does nothing is as good as dead."""
    story = served()

    effects = story.tell(ev.EngineHung(model=TINY, message="nothing for 15 s"))
    story.tell(exited("tiny", EngineFault.HUNG))

    assert effects == [StopEngine(model=TINY, kill=True)]
    assert story.model("tiny").state is EngineState.BACKING_OFF


def test_without_a_usable_engine_every_model_says_so() -> None:
    """The self-test's reason reaches whoever asks for a model."""
    story = a_story(a_spec("other"), a_spec(), requested=("other",))
    failure = exited("x", EngineFault.UNUSABLE_BUILD, "wrong build").failure
    story.tell(ev.EngineProbed(build=None, failure=failure))

    story.tell(ev.ModelWanted(model=TINY))

    assert story.model("tiny").state is EngineState.FAILED
    assert story.model("tiny").failure == failure


def test_a_late_word_of_a_stopped_engine_changes_nothing() -> None:
    """Events cross; the record knows better."""
    story = a_story(a_spec("other"), a_spec(), requested=("other",))

    story.tell(ready("tiny"), ev.EngineProgressed(model=TINY, share=0.5), exited("tiny"))

    assert story.model("tiny").state is EngineState.STOPPED


def test_a_file_that_vanishes_while_its_engine_backs_off_ends_the_tries() -> None:
    """Waking up for a retry that cannot happen would spin the loop."""
    story = served()
    story.tell(exited("tiny"))

    story.tell(ev.InventoryChanged(models=()))

    model = story.model("tiny")
    assert model.failure is not None
    assert (model.state, model.failure.fault) == (EngineState.FAILED, EngineFault.MISSING_FILE)
    assert story.core.next_wakeup_s() is None
