"""What a node serves, told as stories: events in, orders out."""

from meshllm.core import events as ev
from meshllm.core.effects import CancelDownload, Download, DrainEngine, Leave, ResolveModel, StartEngine, StopEngine
from meshllm.core.engines import EngineFault
from meshllm.core.ids import ModelId
from meshllm.core.intents import OutcomeCode, Verb
from meshllm.core.limits import ENGINE_BACKOFF_MAX_S, ENGINE_FAILURE_WINDOW_S, GIB, MIB
from meshllm.core.serving.engine_state import EngineState
from tests.core.builders import Story, a_machine, a_spec, a_story, exited, ready

TINY = ModelId("tiny")


def served(name: str = "tiny") -> Story:
    """Return a story in which one requested model is ready."""
    story = a_story(a_spec(name), requested=(name,))
    story.tell(ev.EngineStarted(model=ModelId(name), pid=100), ready(name))
    return story


# -- loading -----------------------------------------------------------------------------------------


def test_a_requested_model_on_disk_is_started_and_becomes_the_default() -> None:
    """The shortest way from a command line to a served model."""
    story = a_story(a_spec(), requested=("tiny",))

    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["tiny"]
    assert story.model("tiny").state is EngineState.STARTING
    assert story.core.view.default_model == "tiny"


def test_nothing_starts_before_machine_engine_and_files_are_known() -> None:
    """Each of the three facts may come last."""
    story = a_story(requested=("tiny",))

    assert not story.of(StartEngine)
    assert story.tell(ev.InventoryChanged(models=(a_spec(),)))


def test_a_ready_engine_is_served_and_shown() -> None:
    """The view is what everybody else acts on."""
    story = served()

    model = story.model("tiny")
    assert model.is_ready
    assert (model.pid, model.slots, model.context_tokens) == (100, 4, 8192)
    assert story.core.view.me.serving == (TINY,)
    assert story.core.view.groups[TINY].host == story.core.view.me.node


def test_models_are_served_in_order_while_they_fit() -> None:
    """The second waits for capacity and says what it lacks."""
    story = a_story(a_spec("big", size_bytes=12 * GIB), a_spec("big2", size_bytes=12 * GIB), requested=("big", "big2"))

    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["big"]
    assert story.model("big2").waiting.startswith("capacity: needs 13.2 GB")


def test_a_waiting_model_starts_when_room_comes_free() -> None:
    """Nobody has to ask twice."""
    story = a_story(a_spec("big", size_bytes=12 * GIB), a_spec("big2", size_bytes=12 * GIB), requested=("big", "big2"))
    story.tell(ready("big"))

    story.ask(Verb.UNLOAD, "big")
    story.tell(ev.EngineDrained(model=ModelId("big")))
    effects = story.tell(exited("big", EngineFault.STOPPED))

    assert [effect.plan.model.id for effect in effects if isinstance(effect, StartEngine)] == ["big2"]
    assert story.model("big2").waiting == ""


def test_without_a_request_what_is_on_disk_and_fits_is_served_largest_first() -> None:
    """Bare `mesh-llm` makes good use of the machine."""
    story = a_story(
        a_spec("small", size_bytes=1 * GIB), a_spec("large", size_bytes=6 * GIB), a_spec("huge", size_bytes=90 * GIB)
    )

    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["large", "small"]
    assert story.core.view.default_model == "large"


def test_toys_are_not_served_unasked() -> None:
    """A test file of a few megabytes on the disk is not what somebody wants served."""
    story = a_story(a_spec("toy", size_bytes=10 * MIB), min_unasked_bytes=500 * MIB)

    assert not story.of(StartEngine)
    assert story.tell(ev.ModelWanted(model=ModelId("toy")))


def test_an_unloaded_model_does_not_come_back_by_itself() -> None:
    """Serving unasked must not fight the person who unloaded."""
    story = a_story(a_spec())
    story.tell(ready("tiny"))

    story.ask(Verb.UNLOAD, "tiny")
    story.tell(ev.EngineDrained(model=TINY))
    story.tell(exited("tiny", EngineFault.STOPPED), ev.ResourcesMeasured(resources=a_machine()))

    assert story.model("tiny").state is EngineState.STOPPED
    assert len(story.of(StartEngine)) == 1


def test_a_file_that_appears_later_is_served_when_nothing_else_is() -> None:
    """Folders are watched: no restart is needed for the first model."""
    story = a_story()

    effects = story.tell(ev.InventoryChanged(models=(a_spec(),)))

    assert [effect.plan.model.id for effect in effects if isinstance(effect, StartEngine)] == ["tiny"]


def test_a_request_wakes_a_cold_model_once() -> None:
    """Fifty requests for a cold model are one load."""
    story = a_story(a_spec("other"), a_spec(), requested=("other",))

    for _ in range(50):
        story.tell(ev.ModelWanted(model=TINY))

    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["other", "tiny"]


def test_a_request_for_a_model_without_room_is_not_kept() -> None:
    """The model does not surprise anybody by loading hours later."""
    story = a_story(a_spec("other"), a_spec("huge", size_bytes=90 * GIB), requested=("other",))

    story.tell(ev.ModelWanted(model=ModelId("huge")))

    assert not story.model("huge").wanted
    assert story.model("huge").waiting


# -- failures ----------------------------------------------------------------------------------------


def test_a_crash_is_followed_by_restarts_with_doubling_delays_and_then_an_end() -> None:
    """Five failures in ten minutes are no accident any more."""
    story, delays = served(), []

    for _ in range(4):
        story.tell(exited("tiny"))
        retry_at_s = story.core.next_wakeup_s()
        assert retry_at_s is not None
        delays.append(retry_at_s - story.now_s)
        story.tell(ev.Woke(), after_s=delays[-1])
    story.tell(exited("tiny"))

    assert delays == [1.0, 2.0, 4.0, 8.0]
    assert story.model("tiny").state is EngineState.FAILED
    assert story.core.next_wakeup_s() is None


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
    """Half the context may fit; if it does not, the model does not fit."""
    story = a_story(a_spec(), requested=("tiny",))
    first = story.of(StartEngine)[0].plan

    story.tell(exited("tiny", EngineFault.OUT_OF_MEMORY))
    story.tell(ev.Woke())
    second = story.of(StartEngine)[1].plan
    story.tell(exited("tiny", EngineFault.OUT_OF_MEMORY))

    assert second.context_tokens == first.context_tokens // 2
    assert story.model("tiny").state is EngineState.FAILED


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
    story = a_story(requested=("tiny",))
    failure = exited("x", EngineFault.UNUSABLE_BUILD, "wrong build").failure
    story.tell(ev.EngineProbed(build=None, failure=failure), ev.InventoryChanged(models=(a_spec(),)))

    assert story.model("tiny").state is EngineState.FAILED
    assert story.model("tiny").failure == failure


def test_a_late_word_of_a_stopped_engine_changes_nothing() -> None:
    """Events cross; the record knows better."""
    story = a_story(a_spec("other"), a_spec(), requested=("other",))

    story.tell(ready("tiny"), ev.EngineProgressed(model=TINY, share=0.5), exited("tiny"))

    assert story.model("tiny").state is EngineState.STOPPED


# -- intents -------------------------------------------------------------------------------------------


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


def test_load_brings_back_what_was_held_dropped_or_failed() -> None:
    """An explicit order overrules all earlier ones."""
    story = served()
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


def test_load_that_fails_says_why() -> None:
    """The reason of the engine is the answer to the intent."""
    story = a_story(a_spec("other"), a_spec(), requested=("other",))

    request = story.ask(Verb.LOAD, "tiny")
    story.tell(exited("tiny", EngineFault.BAD_FILE, "the file is damaged"))

    outcome = story.outcome(request)
    assert outcome is not None
    assert (outcome.code, outcome.message) == (OutcomeCode.LOAD_FAILED, "the file is damaged")


def test_load_without_room_says_what_is_missing() -> None:
    """Nothing is started that does not fit."""
    story = a_story(a_spec("huge", size_bytes=90 * GIB))

    outcome = story.outcome(story.ask(Verb.LOAD, "huge"))

    assert outcome is not None
    assert outcome.code is OutcomeCode.NO_CAPACITY
    assert "needs 96.9 GB" in outcome.message


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


# -- downloads and names ---------------------------------------------------------------------------------


def test_a_catalogue_name_is_downloaded_then_served() -> None:
    """The README's first command on a fresh machine."""
    story = a_story(requested=("smollm2-135m",))
    reference = story.of(Download)[0].reference

    story.tell(ev.DownloadProgressed(model=reference.id, done_bytes=reference.size_bytes // 4, total_bytes=0))
    progress = story.model(reference.id).progress
    assert progress is not None
    assert (progress.stage, round(progress.share, 2)) == ("downloading", 0.25)

    story.tell(ev.DownloadFinished(model=reference.id, path="/models/x.gguf"))
    assert len(story.of(Download)) == 1
    effects = story.tell(ev.InventoryChanged(models=(a_spec(reference.id),)))
    assert [effect.plan.model.id for effect in effects if isinstance(effect, StartEngine)] == [reference.id]


def test_a_failed_download_fails_the_model_with_its_reason() -> None:
    """`status` says why there is no model."""
    story = a_story(requested=("smollm2-135m",))
    model = story.of(Download)[0].reference.id

    story.tell(ev.DownloadFailed(model=model, code="network", message="no hub in reach"))

    failure = story.model(model).failure
    assert failure is not None
    assert (failure.fault, failure.message) == (EngineFault.DOWNLOAD_FAILED, "no hub in reach")
    assert len(story.of(Download)) == 1


def test_a_failed_download_is_tried_again_by_load() -> None:
    """The network may be back."""
    story = a_story(requested=("smollm2-135m",))
    model = story.of(Download)[0].reference.id
    story.tell(ev.DownloadFailed(model=model, code="network", message="no hub in reach"))

    story.ask(Verb.LOAD, model)

    assert len(story.of(Download)) == 2


def test_unload_cancels_a_download() -> None:
    """Somebody changed their mind."""
    story = a_story(requested=("smollm2-135m",))
    model = story.of(Download)[0].reference.id

    story.ask(Verb.UNLOAD, model)

    assert story.of(CancelDownload) == [CancelDownload(model=model)]


def test_pull_only_downloads() -> None:
    """The file is on the disk and the memory stays free."""
    story = a_story(a_spec(), requested=("tiny",))

    request = story.ask(Verb.PULL, "smollm2-135m")
    model = story.of(Download)[0].reference.id
    story.tell(ev.DownloadFinished(model=model, path="/models/x.gguf"))
    story.tell(ev.InventoryChanged(models=(a_spec(), a_spec(model))))

    outcome = story.outcome(request)
    assert outcome is not None
    assert outcome.is_done
    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["tiny"]


def test_a_name_that_nothing_knows_ends_a_node_that_has_nothing_else() -> None:
    """A typing error is told at once, with a failing exit code."""
    story = a_story(requested=("nonsense",))
    assert story.of(ResolveModel) == [ResolveModel(asked="nonsense")]

    story.tell(ev.ModelAsked(asked="nonsense", reference=None, message="no such model"))

    assert [(effect.reason, effect.exit_code) for effect in story.of(Leave)] == [("nonsense: no such model", 1)]


def test_a_name_that_nothing_knows_does_not_end_a_node_that_serves() -> None:
    """One of two names was right."""
    story = a_story(a_spec(), requested=("tiny", "nonsense"))

    story.tell(ev.ModelAsked(asked="nonsense", reference=None, message="no such model"))

    assert not story.of(Leave)
    assert story.core.view.unresolved["nonsense"] == "no such model"


# -- leaving ---------------------------------------------------------------------------------------------


def test_leaving_drains_every_engine_first() -> None:
    """SIGTERM finishes what runs."""
    story = a_story(a_spec("a"), a_spec("b"), requested=("a", "b"))
    story.tell(ready("a"))

    story.tell(ev.LeaveRequested(reason="SIGTERM"))
    assert [effect.model for effect in story.of(DrainEngine)] == ["a"]
    assert [effect.model for effect in story.of(StopEngine)] == ["b"]
    story.tell(exited("b", EngineFault.STOPPED), ev.EngineDrained(model=ModelId("a")))
    assert not story.of(Leave)
    story.tell(exited("a", EngineFault.STOPPED))

    assert [effect.exit_code for effect in story.of(Leave)] == [0]


def test_a_second_signal_does_not_wait() -> None:
    """Whoever presses Ctrl-C twice means it."""
    story = served()
    story.tell(ev.LeaveRequested(reason="SIGINT"))

    effects = story.tell(ev.LeaveRequested(reason="SIGINT"))

    assert effects == [StopEngine(model=TINY, kill=True)]


def test_a_restarting_engine_does_not_hold_up_leaving() -> None:
    """Back-off ends with the daemon."""
    story = served()
    story.tell(exited("tiny"))

    story.tell(ev.LeaveRequested(reason="SIGTERM"))

    assert story.of(Leave)
    assert story.core.next_wakeup_s() is None


def test_backoff_never_exceeds_its_maximum() -> None:
    """The written limit holds for any number of failures."""
    story = served()
    record = story.core._serving.held.records[TINY]

    delays = [record.note_failure(exited("tiny").failure, 1e6 + 200.0 * n) for n in range(20)]

    assert max(delay or 0.0 for delay in delays) <= ENGINE_BACKOFF_MAX_S
