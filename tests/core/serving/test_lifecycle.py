"""What a node serves and how it leaves, told as stories: events in, orders out."""

from dataclasses import replace

import pytest

from meshllm.core import events as ev
from meshllm.core.effects import Download, DrainEngine, Leave, StartEngine, StopEngine
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.ids import ModelId
from meshllm.core.intents import OutcomeCode, Verb
from meshllm.core.limits import GIB, MIB
from meshllm.core.policy import ModelPolicy
from tests.core.builders import Story, a_machine, a_spec, a_story, exited, ready

TINY = ModelId("tiny")


def served(name: str = "tiny") -> Story:
    """Return a story in which one requested model is ready."""
    story = a_story(a_spec(name), requested=(name,))
    story.tell(ev.EngineStarted(model=ModelId(name), pid=100), ready(name))
    return story


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
    assert [served.model for served in story.core.view.me.serving] == [TINY]
    assert [group.host for group in story.core.view.groups.values()] == [story.core.view.me.node]


@pytest.mark.rows("CLI-10")
def test_models_are_served_in_order_while_they_fit() -> None:
    """The second waits for capacity and says what it lacks."""
    story = a_story(a_spec("big", size_bytes=12 * GIB), a_spec("big2", size_bytes=12 * GIB), requested=("big", "big2"))

    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["big"]
    assert story.model("big2").waiting.startswith("capacity: needs 13.2 GB")


@pytest.mark.rows("CLI-10")
def test_a_waiting_model_starts_when_room_comes_free() -> None:
    """Nobody has to ask twice."""
    story = a_story(a_spec("big", size_bytes=12 * GIB), a_spec("big2", size_bytes=12 * GIB), requested=("big", "big2"))
    story.tell(ready("big"))

    story.ask(Verb.UNLOAD, "big")
    story.tell(ev.EngineDrained(model=ModelId("big")))
    effects = story.tell(exited("big", EngineFault.STOPPED))

    assert [effect.plan.model.id for effect in effects if isinstance(effect, StartEngine)] == ["big2"]
    assert story.model("big2").waiting == ""


@pytest.mark.rows("CLI-19")
def test_without_a_request_what_is_on_disk_and_fits_is_served_largest_first() -> None:
    """Bare `mesh-llm` makes good use of the machine."""
    story = a_story(
        a_spec("small", size_bytes=1 * GIB), a_spec("large", size_bytes=6 * GIB), a_spec("huge", size_bytes=90 * GIB)
    )

    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["large", "small"]
    assert story.core.view.default_model == "large"


@pytest.mark.rows("REG-2")
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


@pytest.mark.rows("CLI-19")
def test_a_file_that_appears_later_is_served_when_nothing_else_is() -> None:
    """Folders are watched: no restart is needed for the first model."""
    story = a_story()

    effects = story.tell(ev.InventoryChanged(models=(a_spec(),)))

    assert [effect.plan.model.id for effect in effects if isinstance(effect, StartEngine)] == ["tiny"]


def test_a_file_deleted_while_its_engine_runs_is_forgotten_with_the_engine() -> None:
    """It is served as long as it is in memory, can be unloaded, and is then in no list."""
    story = served()
    story.tell(ev.InventoryChanged(models=()))
    assert story.model("tiny").is_ready

    request = story.ask(Verb.UNLOAD, "tiny")
    story.tell(ev.EngineDrained(model=TINY), exited("tiny", EngineFault.STOPPED))

    outcome = story.outcome(request)
    assert outcome is not None
    assert outcome.is_done
    assert TINY not in story.core.view.local
    assert story.core.view.names.resolve("tiny") != TINY


def test_an_engine_that_crashes_after_its_file_was_deleted_says_what_is_missing() -> None:
    """There is nothing to start again."""
    story = served()
    story.tell(ev.InventoryChanged(models=()))

    story.tell(exited("tiny"))

    failure = story.model("tiny").failure
    assert failure is not None
    assert (story.model("tiny").state, failure.fault) == (EngineState.FAILED, EngineFault.MISSING_FILE)
    assert "/models/tiny.gguf" in failure.message
    assert story.core.next_wakeup_s() is None


def test_a_file_that_comes_back_while_its_engine_runs_changes_nothing() -> None:
    """A download manager may move it twice."""
    story = served()

    story.tell(ev.InventoryChanged(models=()), ev.InventoryChanged(models=(a_spec(),)))
    story.tell(exited("tiny"))

    assert story.model("tiny").state is EngineState.BACKING_OFF


def test_an_engine_shows_the_file_that_it_has_and_the_next_one_takes_the_new_file() -> None:
    """Replicas group by digest: old weights must never go by the digest of new ones."""
    story, new = served(), replace(a_spec(modified_s=2.0, size_bytes=200 * MIB), digest="sha256:new")

    story.tell(ev.InventoryChanged(models=(new,)))
    during, me = story.model("tiny"), story.core.view.me
    story.tell(exited("tiny"))
    story.tell(ev.Woke(), after_s=1.0)
    after = story.model("tiny")

    assert (during.spec, during.on_disk) == (a_spec(), new)
    assert ([one.digest for one in me.serving], [one.digest for one in me.models_on_disk]) == (
        ["sha256:tiny"], ["sha256:new"],
    )  # fmt: skip
    assert after.plan is not None
    assert (after.plan.model, after.spec) == (new, new)


def test_a_digest_that_is_known_after_the_start_is_shown() -> None:
    """Hashing takes longer than loading."""
    story = a_story(replace(a_spec(), digest=""), requested=("tiny",))
    story.tell(ready("tiny"))

    story.tell(ev.InventoryChanged(models=(a_spec(),)))

    assert [one.digest for one in story.core.view.me.serving] == ["sha256:tiny"]


def test_a_deleted_file_is_announced_no_more_while_its_engine_still_shows_it() -> None:
    """Whoever wants to copy it would find nothing."""
    story = served()

    story.tell(ev.InventoryChanged(models=()))

    assert story.core.view.me.models_on_disk == ()
    assert story.model("tiny").spec == a_spec()


def test_a_model_whose_file_is_gone_can_be_pulled_while_its_engine_runs() -> None:
    """It answers that it cannot be found rather than never."""
    story = served()
    story.tell(ev.InventoryChanged(models=()))

    outcome = story.outcome(story.ask(Verb.PULL, "tiny"))

    assert outcome is not None
    assert outcome.code is OutcomeCode.UNKNOWN_MODEL


def test_a_model_that_is_fetched_again_waits_for_its_file_when_its_engine_crashes() -> None:
    """The file is on its way; there is nothing to try before."""
    name = "SmolLM2-135M-Instruct.Q4_1"
    story = served(name)
    story.tell(ev.InventoryChanged(models=()))
    story.ask(Verb.PULL, name)

    story.tell(exited(name))
    assert story.core.next_wakeup_s() is None
    story.tell(ev.DownloadFinished(model=ModelId(name), path="/x"), ev.InventoryChanged(models=(a_spec(name),)))

    assert len(story.of(Download)) == 1
    assert story.model(name).state is EngineState.STARTING


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


def test_a_lack_of_room_that_is_over_is_said_no_more() -> None:
    """Else every later request would be refused for a reason of long ago."""
    story = a_story(a_spec("big", size_bytes=12 * GIB), a_spec("big2", size_bytes=12 * GIB), requested=("big",))
    story.tell(ready("big"), ev.ModelWanted(model=ModelId("big2")))
    assert story.model("big2").waiting

    story.ask(Verb.UNLOAD, "big", force=True)
    story.tell(exited("big", EngineFault.STOPPED))

    assert not story.model("big2").waiting
    assert story.tell(ev.ModelWanted(model=ModelId("big2")))


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


def test_two_aliases_of_one_model_load_it_once() -> None:
    """However it is called, it is the same model."""
    policies = (ModelPolicy(name="tiny", aliases=("small", "quick")),)

    story = a_story(a_spec(), requested=("small", "quick", "tiny"), policies=policies)

    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["tiny"]
    assert story.core.view.local.keys() == {TINY}


@pytest.mark.parametrize(("requested", "started"), [((), ["tiny"]), (("tiny", "twin"), ["tiny", "twin"])])
def test_two_files_of_one_content_are_loaded_twice_only_for_who_names_both(
    requested: tuple[str, ...], started: list[str]
) -> None:
    """A link beside its file is a model of its own, with its own settings and orders; unasked, one of them will do."""
    twin = replace(a_spec("twin"), digest=a_spec().digest)

    story = a_story(a_spec(), twin, requested=requested)

    assert [effect.plan.model.id for effect in story.of(StartEngine)] == started
    assert story.core.view.local.keys() == {"tiny", "twin"}
