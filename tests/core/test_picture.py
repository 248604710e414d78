"""How the parts become a view."""

import random
from dataclasses import replace

from meshllm.core import events as ev
from meshllm.core.announcement import Address, Record, ServedModel, ServingState
from meshllm.core.engines import EngineFault
from meshllm.core.ids import ConnectionId, ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.members.times import wan
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.messages import Push
from meshllm.core.rights import OWN_MACHINE
from meshllm.core.standing import MemberState
from tests.core.builders import Story, a_spec, a_story, exited, ready
from tests.core.members.builders import a_record

TINY = ServedModel(model=ModelId("tiny"), digest="x", state=ServingState.READY, slots=2)


def a_core(**changes: object) -> MeshCore:
    """Return the core of a node `m` that `a` is connected to."""
    core = MeshCore(CoreConfig(node=NodeId("m"), name="m", times=wan(), **changes), 0.0, random.Random(1))
    core.handle(
        ev.PeerConnected(
            peer=NodeId("a"), connection=ConnectionId(1), address=Address(host="a.test", port=1), is_dialled=False,
            rights=OWN_MACHINE, rtt_s=0.02,
        ), 0.0,
    )  # fmt: skip
    return core


def hear(core: MeshCore, *records: Record, at_s: float = 1.0) -> None:
    """Let `a` say something."""
    core.handle(ev.MessageReceived(peer=NodeId("a"), connection=ConnectionId(1), message=Push(records=records)), at_s)


def test_members_show_what_people_ask_about() -> None:
    """Is it there, since when, how far, who says so."""
    core = a_core()

    hear(core, a_record("a"), a_record("b"))

    members = core.view.members
    assert list(members) == ["m", "a", "b"]
    assert (members[NodeId("a")].connected, members[NodeId("a")].rtt_s, members[NodeId("a")].vouched_by) == (
        True, 0.02, None,
    )  # fmt: skip
    assert (members[NodeId("b")].connected, members[NodeId("b")].rtt_s, members[NodeId("b")].vouched_by) == (
        False, None, "a",
    )  # fmt: skip


def test_a_ping_makes_no_new_view() -> None:
    """Thousands of readers would look up for nothing."""
    core = a_core()
    hear(core, a_record("a"))
    view = core.view

    hear(core, at_s=2.0)

    assert core.view is view


def test_what_did_not_change_stays_the_same_object() -> None:
    """A change of one member of two hundred costs one."""
    core = a_core()
    hear(core, a_record("a"), a_record("b", serving=(TINY,)))
    before = core.view

    hear(core, a_record("a", 1, 1))

    assert core.view.epoch == before.epoch + 1
    assert core.view.members[NodeId("b")] is before.members[NodeId("b")]
    assert core.view.replicas is before.replicas


def test_models_of_others_have_routes_groups_and_names() -> None:
    """A request for them goes there, by any name they have."""
    core = a_core()

    hear(core, a_record("a", serving=(TINY,)), a_record("b", serving=(replace(TINY, model=ModelId("Tiny.Q4_1")),)))

    view = core.view
    assert list(view.replicas) == ["Tiny.Q4_1", "tiny"]
    assert [(group.members, group.host) for group in view.groups.values()] == [(("a", "b"), "a")]
    assert view.names.resolve("TINY") == "tiny"


def test_the_models_of_a_member_that_left_are_gone_with_it() -> None:
    """From routes, groups and names."""
    core = a_core()
    hear(core, a_record("a", serving=(TINY,)))

    hear(core, a_record("a", 1, 1, serving=(TINY,), left=True))

    assert core.view.members[NodeId("a")].state is MemberState.LEFT
    assert (dict(core.view.replicas), dict(core.view.groups)) == ({}, {})


def test_a_node_that_joins_says_so_until_it_has_heard_or_waited() -> None:
    """Before, it cannot say that a model does not exist."""
    waiting = a_core(is_joining=True)
    joining = waiting.view.joining
    due_s = waiting.next_wakeup_s()
    waiting.handle(ev.Woke(), 20.0)

    assert joining
    assert due_s is not None
    assert due_s <= 15.0
    assert not waiting.view.joining
    assert not a_core().view.joining


def test_an_address_is_told_to_the_mesh() -> None:
    """A node that moved is found where it is."""
    core = a_core()
    version = core.view.me.version

    core.handle(ev.OwnAddressesChanged(addresses=(Address(host="192.0.2.1", port=7),)), 1.0)

    assert core.view.me.addresses == (Address(host="192.0.2.1", port=7),)
    assert core.view.me.version == version + 1


def test_a_model_that_is_about_to_answer_is_announced_as_loading() -> None:
    """While its engine starts, and again after a crash: others wait for it and do not say that it does not exist."""
    story = a_story(a_spec(), requested=("tiny",))
    states = [said_of(story)]

    story.tell(ready("tiny"))
    states.append(said_of(story))
    story.tell(exited("tiny", EngineFault.CRASHED))
    states.append(said_of(story))

    assert states == [[("tiny", "loading", 0)], [("tiny", "ready", 4)], [("tiny", "loading", 0)]]


def test_a_model_that_was_unloaded_is_announced_as_draining_and_then_no_more() -> None:
    """Nobody should wait for it."""
    story = a_story(a_spec(), requested=("tiny",))
    story.tell(ready("tiny"))

    story.ask(Verb.UNLOAD, "tiny")
    draining = said_of(story)
    story.tell(ev.EngineDrained(model=ModelId("tiny")))

    assert draining == [("tiny", "draining", 0)]
    assert said_of(story) == []


def said_of(story: Story) -> list[tuple[str, str, int]]:
    """Return what the node says of its models: name, state, slots."""
    return [(one.model, str(one.state), one.slots) for one in story.core.view.me.serving]
