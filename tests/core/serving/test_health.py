"""What this node measures of its models, and when."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.health import Allocation, HealthChecks, HealthState, Integrity, first_token_step
from meshllm.core.ids import ModelId
from meshllm.core.registration import Registration
from meshllm.core.routing.plan_routes import plan_routes
from meshllm.core.routing.routes import Refusal, RefusalCode, RouteRequest, Routes
from meshllm.core.serving.health import local_health, remote_checks, remote_health
from tests.core.builders import Story, a_spec, a_story, exited, ready
from tests.core.routing.test_replicas import a_served

TINY = ModelId("tiny")


def serving(spec: ModelSpec | None = None) -> Story:
    """Return a node whose model `tiny` answers."""
    story = a_story(spec or a_spec("tiny"), requested=("tiny",))
    story.tell(ready("tiny"))
    return story


def traffic(*, finished: int = 0, failed: int = 0, times_s: tuple[float, ...] = ()) -> ev.TrafficMeasured:
    """Return what the front door tells of `tiny`."""
    steps = tuple((first_token_step(time_s), 1) for time_s in times_s)
    return ev.TrafficMeasured(
        finished=((TINY, finished),), failed=((TINY, failed),), first_tokens=((TINY, steps),) if steps else ()
    )


def checks_of(story: Story) -> HealthChecks:
    """Return what was measured of `tiny`."""
    checks = story.model("tiny").checks
    assert checks is not None
    return checks


def health(story: Story) -> HealthState:
    """Return how `tiny` is."""
    return local_health(story.model("tiny"))


@pytest.mark.rows("HLT-1")
def test_a_model_goes_from_unknown_over_loading_to_healthy() -> None:
    """Whether it is loaded is another question."""
    story = a_story(a_spec("tiny"), min_unasked_bytes=10**12)
    seen = [health(story)]

    story.tell(ev.ModelWanted(model=TINY))
    seen.append(health(story))
    story.tell(ready("tiny"))
    seen.append(health(story))

    assert seen == [HealthState.UNKNOWN, HealthState.LOADING, HealthState.HEALTHY]
    checks = checks_of(story)
    assert (checks.file_integrity, checks.memory) == (Integrity.OK, Allocation.OK)


@pytest.mark.rows("HLT-2")
def test_errors_count_when_they_are_looked_at_every_half_minute() -> None:
    """Not in between, and not from a handful of requests."""
    story = serving()

    story.tell(traffic(finished=18, failed=1))
    story.tell(ev.Woke(), after_s=30.0)
    few = health(story)
    story.tell(traffic(failed=1))
    before = health(story)
    assert story.core.next_wakeup_s() == story.now_s + 30.0
    story.tell(ev.Woke(), after_s=30.0)

    assert (few, before, health(story)) == (HealthState.HEALTHY, HealthState.HEALTHY, HealthState.DEGRADED)
    assert checks_of(story).error_rate == 0.1


@pytest.mark.rows("HLT-2")
def test_slow_first_tokens_degrade_for_five_minutes() -> None:
    """Then they are forgotten."""
    story = serving()

    story.tell(traffic(finished=1, times_s=(9.0,)))
    story.tell(ev.HealthAsked())
    slow = health(story)
    for _ in range(12):
        story.tell(ev.Woke(), after_s=30.0)

    assert (slow, health(story)) == (HealthState.DEGRADED, HealthState.HEALTHY)
    assert checks_of(story).response_time_s is None


@pytest.mark.rows("HLT-3")
def test_a_degraded_model_is_told_to_others_and_still_routed() -> None:
    """They ask healthy hosts first."""
    story = serving()

    story.tell(traffic(finished=10, failed=10), ev.HealthAsked())

    assert story.core.view.me.serving[0].health == "degraded"
    assert isinstance(plan_routes(story.core.view, RouteRequest(model="tiny")), Routes)


def damaged() -> Iterator[tuple[str, ModelSpec, ModelSpec]]:
    """Return what can happen to a file: what the node had, and what it finds."""
    before = replace(a_spec("tiny"), inode=7)
    yield "rotten", before, replace(before, damage="its content changed")
    yield "overwritten", before, replace(before, modified_s=2.0, digest="sha256:else")


@pytest.mark.rows("REG-17", "HLT-3")
@pytest.mark.parametrize(("before", "after"), [pytest.param(*case, id=name) for name, *case in damaged()])
def test_a_model_whose_file_is_not_what_it_was_is_not_routed(before: ModelSpec, after: ModelSpec) -> None:
    """Its engine runs, and what it answers cannot be relied on: 503, with the reason, rather than that."""
    story = serving(before)

    story.tell(ev.InventoryChanged(models=(after,)))

    found = plan_routes(story.core.view, RouteRequest(model="tiny"))
    assert health(story) is HealthState.UNHEALTHY
    assert story.core.view.me.serving[0].health == "unhealthy"
    assert not story.model("tiny").is_ready
    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.MODEL_FAILED
    assert checks_of(story).reason in found.message


@pytest.mark.rows("REG-17")
def test_a_file_that_was_only_touched_or_replaced_is_none_the_worse() -> None:
    """An engine keeps the file that it has open."""
    before = replace(a_spec("tiny"), inode=7)
    story = serving(before)

    story.tell(ev.InventoryChanged(models=(replace(before, modified_s=2.0),)))
    touched = health(story)
    story.tell(ev.InventoryChanged(models=(replace(before, modified_s=3.0, inode=8, digest="sha256:next"),)))

    assert (touched, health(story)) == (HealthState.HEALTHY, HealthState.HEALTHY)


@pytest.mark.rows("REG-17")
def test_a_file_that_is_not_the_registered_one_is_never_loaded() -> None:
    """Whoever asks is told."""
    story = a_story(a_spec("tiny"), min_unasked_bytes=10**12)
    entry = Registration(
        name="small", version="1.0.0", model=TINY, digest="sha256:other", path="/models/tiny.gguf", size_bytes=1,
        registered_unix_s=1.0,
    )  # fmt: skip

    story.tell(ev.RegistryChanged(entries=(entry,)))

    found = plan_routes(story.core.view, RouteRequest(model="tiny"))
    assert health(story) is HealthState.UNHEALTHY
    assert isinstance(found, Refusal)
    assert "small 1.0.0" in found.message
    story.tell(ev.RegistryChanged(entries=(entry, replace(entry, version="1.1.0", digest="sha256:tiny"))))
    assert health(story) is HealthState.UNKNOWN


def test_a_deleted_file_degrades_the_engine_that_has_it() -> None:
    """It answers, and could not be loaded again."""
    story = serving()

    story.tell(ev.InventoryChanged(models=()))

    assert health(story) is HealthState.DEGRADED


@pytest.mark.rows("HLT-3")
def test_an_engine_that_is_down_is_unhealthy() -> None:
    """Also while it is being started again."""
    story = serving()

    story.tell(exited("tiny", EngineFault.OUT_OF_MEMORY))

    assert story.model("tiny").state is EngineState.BACKING_OFF
    assert health(story) is HealthState.UNHEALTHY
    assert checks_of(story).memory is Allocation.FAILED
    assert story.core.next_wakeup_s() == story.now_s + 1.0


def test_other_nodes_are_believed_and_odd_words_are_doubts() -> None:
    """A later version may know more states."""
    assert remote_health(a_served(health="degraded")) is HealthState.DEGRADED
    assert remote_health(a_served(health="splendid")) is HealthState.DEGRADED
    assert remote_health(a_served(state="loading")) is HealthState.LOADING


@pytest.mark.rows("HLT-6")
def test_what_another_node_measured_is_read_as_it_says() -> None:
    """Nothing, and words of a later version, are no measurements."""
    served = ServedModel(model=ModelId("m"), digest="d", state=ServingState.READY, trouble="slow")

    known = remote_checks(replace(served, file_integrity="ok", memory="ok", response_time_s=6.0, error_rate=0.5))

    assert known == HealthChecks(
        file_integrity=Integrity.OK, memory=Allocation.OK, response_time_s=6.0, error_rate=0.5, reason="slow"
    )
    assert remote_checks(served) is None
    assert remote_checks(replace(served, file_integrity="blessed", memory="ok")) is None
    assert remote_health(replace(served, state=ServingState.FAILED)) is HealthState.UNHEALTHY
