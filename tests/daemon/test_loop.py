"""One consumer, one order, one timer."""

import asyncio
import random

import pytest

from meshllm.core import events as ev
from meshllm.core.effects import Effect, StartEngine
from meshllm.core.engines import EngineState
from meshllm.core.ids import NodeId
from meshllm.core.limits import INBOX_EVENTS
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.journal import Journal
from meshllm.daemon.loop import Loop
from meshllm.daemon.profile import CARRY_OUT, DECIDE, Profile
from tests.core.builders import A_BUILD, a_machine, a_spec, exited, ready


class Running:
    """A loop over a fresh core, with its effects recorded."""

    def __init__(self) -> None:
        """Make the parts; `async with` runs the loop."""
        policy = ServingPolicy(requested=("tiny",))
        core = MeshCore(
            CoreConfig(node=NodeId("a" * 32), name="a", serving=policy),
            asyncio.get_running_loop().time(),
            random.Random(1),
        )
        self.views = CurrentView(core.view)
        self.journal = Journal()
        self.profile = Profile()
        self.loop = Loop(core, self.views, self.journal, self.profile)
        self.effects: list[Effect] = []

    async def tell(self, events: tuple[ev.Event, ...], *states: EngineState) -> None:
        """Run the loop, post events, and wait until the model was in each of the states in turn."""
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            task = group.create_task(self.loop.run(self.effects.append))
            for event in events:
                self.loop.post(event)
            for state in states:
                await self._until(state)
            task.cancel()

    async def _until(self, state: EngineState) -> None:
        view = self.views.newest
        while (model := view.local.get(a_spec().id)) is None or model.state is not state:
            view = await self.views.changed(view.epoch)


def facts() -> tuple[ev.Event, ...]:
    """Return what a core needs to start its model."""
    return (
        ev.ResourcesMeasured(resources=a_machine()), ev.EngineProbed(build=A_BUILD),
        ev.InventoryChanged(models=(a_spec(),)),
    )  # fmt: skip


async def test_events_are_stamped_consumed_in_order_and_carried_out() -> None:
    """The journal tells the same story as the effects."""
    running = Running()

    await running.tell(facts(), EngineState.STARTING)

    entries = running.journal.newest(10)
    assert [entry.event.id for entry in entries] == ["e1", "e2", "e3"]
    started = [effect for effect in running.effects if isinstance(effect, StartEngine)]
    assert [effect.cause for effect in started] == ["e3"]


async def test_the_core_is_woken_when_it_asked_to_be() -> None:
    """A restart after back-off comes without any other event."""
    running = Running()

    await running.tell((*facts(), ready("tiny"), exited("tiny")), EngineState.BACKING_OFF, EngineState.STARTING)

    assert any(isinstance(entry.event, ev.Woke) for entry in running.journal.newest(10))


async def test_a_full_inbox_drops_and_counts() -> None:
    """A shell that runs wild costs its own events, not the daemon's memory."""
    running = Running()

    for _ in range(INBOX_EVENTS + 3):
        running.loop.post(ev.Woke())

    assert running.loop.dropped_events == 3


@pytest.mark.rows("CLI-21")
async def test_what_the_loop_does_is_measured_where_somebody_asked() -> None:
    """Each event once in each phase."""
    running = Running()

    await running.tell(facts(), EngineState.STARTING)
    found = {(one.phase, one.name): sum(one.counts) for one in running.profile.histograms()}

    assert found[DECIDE, "InventoryChanged"] == found[CARRY_OUT, "InventoryChanged"] == 1


async def test_a_last_word_is_said_without_the_loops_own_task() -> None:
    """That may have been cancelled before; nothing is said where it never ran."""
    running, never = Running(), Running()
    await running.tell(facts(), EngineState.STARTING)
    before = len(running.effects)

    for each in (running, never):
        each.loop.post(ev.LeaveRequested(reason="the end"))
        each.loop.catch_up()

    assert len(running.effects) > before
    assert running.views.newest.leaving
    assert (never.effects, never.views.newest.leaving) == ([], False)
