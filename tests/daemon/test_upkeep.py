"""Files are verified when an engine has read them; a check is answered when the view shows it."""

import asyncio
from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.core.catalog import ModelSpec
from meshllm.core.events import Event
from meshllm.core.health import HealthChecks
from meshllm.core.ids import ModelId
from meshllm.core.routing.replicas import replicas_of
from meshllm.core.view import LocalModel, MeshView
from meshllm.daemon import upkeep
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.upkeep import check_health, verify_loaded
from tests.core.builders import Story, a_member, a_spec, a_story, exited, ready


class Node:
    """A core whose clock is the loop's, and its views."""

    def __init__(self) -> None:
        self.story: Story = a_story(a_spec("tiny"), requested=("tiny",))
        self.views = CurrentView(self.story.core.view)
        self.verified: list[str] = []
        self.is_heard = True

    def tell(self, event: Event) -> None:
        """Let something happen, now."""
        if self.is_heard:
            self.story.now_s = asyncio.get_running_loop().time()
            self.story.tell(event)
            self.views.publish(self.story.core.view)

    def verify(self, spec: ModelSpec) -> None:
        """Note what is to be verified."""
        self.verified.append(spec.id)


async def turns(count: int = 5) -> None:
    """Let tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.rows("REG-17")
async def test_a_file_is_verified_at_its_first_load_and_when_it_is_another() -> None:
    """Not with every load."""
    node = Node()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(verify_loaded(node.views, node.verify))
        await turns()
        before = list(node.verified)
        for event in (ready("tiny"), exited("tiny")):
            node.tell(event)
            await turns()
        watching.cancel()

    assert (before, node.verified) == ([], ["tiny"])


async def test_a_check_is_done_when_the_view_shows_it() -> None:
    """For a node without folders, too."""
    node = Node()
    asked_s = asyncio.get_running_loop().time()

    await check_health(node.views, None, node.tell)

    checks = node.views.newest.local[ModelId("tiny")].checks
    assert checks is not None
    assert checks.checked_s >= asked_s


async def test_a_check_that_takes_too_long_is_answered_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead disk holds up nobody."""
    monkeypatch.setattr(upkeep, "HEALTH_CHECK_TIMEOUT_S", 0.01)
    node = Node()
    node.is_heard = False

    await check_health(node.views, None, node.tell)

    assert node.views.newest is node.story.core.view


@pytest.mark.rows("HLT-6")
async def test_a_check_waits_for_the_hosts_that_can_be_asked() -> None:
    """For those that this node is connected to, until they say something new; never for an adopted model."""
    node = Node()
    host = replace(a_member("h", models=("tiny",)), connected=True)
    far = a_member("f", models=("tiny",))
    view = node.views.newest
    members = {member.announcement.node: member for member in (host, far)}
    adopted = replace(view.local[ModelId("tiny")], adopted_from="box", checks=None)
    local = MappingProxyType({**view.local, ModelId("away"): adopted})

    def shown(version: int) -> MeshView:
        said = replace(host.announcement, version=version)
        known = {**members, said.node: replace(host, announcement=said)}
        checked = {name: _checked(model) for name, model in local.items()}
        return replace(
            view, epoch=view.epoch + version, members=MappingProxyType(known), local=MappingProxyType(checked),
            replicas=replicas_of(known.values(), view.me.node),
        )  # fmt: skip

    node.views.publish(shown(1))
    async with asyncio.TaskGroup() as tasks:
        checking = tasks.create_task(check_health(node.views, None, lambda _: None, ModelId("tiny")))
        await turns()
        is_done_early = checking.done()
        node.views.publish(shown(2))
        await turns()
        is_done = checking.done()
        checking.cancel()

    assert (is_done_early, is_done) == (False, True)


def _checked(model: LocalModel) -> LocalModel:
    """Return a model that was looked at long after now, but for an adopted one."""
    return model if model.adopted_from else replace(model, checks=HealthChecks(checked_s=1e12))
