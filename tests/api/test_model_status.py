"""Where a model is in the mesh, node by node."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.api.model_status import mesh_status, status_of
from meshllm.core.announcement import DiskModel, ModelOrder, ServedModel, ServingState
from meshllm.core.engines import EngineFault
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.routing.replicas import replicas_of
from meshllm.core.view import ColdModel, Member, MeshView
from tests.core.builders import a_member, a_spec, a_story, exited, ready

TINY = ModelId("tiny")


def serving(name: str, state: ServingState) -> Member:
    """Return another node with the model in this state."""
    member = a_member(name)
    said = replace(member.announcement, serving=(ServedModel(model=TINY, digest="", state=state),))
    return replace(member, announcement=said)


def having(name: str) -> Member:
    """Return another node with the model's file."""
    member = a_member(name)
    on_disk = (DiskModel(model=TINY, digest="", size_bytes=1),)
    return replace(member, announcement=replace(member.announcement, models_on_disk=on_disk))


def among(view: MeshView, *members: Member) -> MeshView:
    """Return a view with these nodes in it."""
    known = {**view.members, **{member.announcement.node: member for member in members}}
    return replace(view, members=MappingProxyType(known), replicas=replicas_of(known.values(), view.me.node))


@pytest.mark.rows("LIF-3", "LIF-4")
@pytest.mark.parametrize(
    ("state", "status", "phase"),
    [
        ("claimed", "reloading", "queued"), ("downloading", "reloading", "downloading"),
        ("loading", "reloading", "loading"), ("ready", "loaded", "ready"), ("draining", "loaded", "draining"),
    ],
)  # fmt: skip
def test_the_best_of_all_nodes_is_what_the_mesh_can(state: str, status: str, phase: str) -> None:
    """With every node that has the model: here on disk, there on its way or in memory."""
    here = a_story(a_spec(), a_spec("first"), requested=("first",)).core.view

    document = status_of(among(here, serving("b", ServingState(state)), having("c")), TINY, "Tiny")

    assert {name: document[name] for name in ("model_id", "status", "mesh_status", "phase")} == {
        "model_id": "Tiny", "status": status, "mesh_status": status, "phase": phase,
    }  # fmt: skip
    assert document["nodes"] == [
        {"node_id": "a" * 32, "name": "a", "status": "unloaded", "phase": "unloaded"},
        {"node_id": "b".ljust(52, "2"), "name": "b", "status": status, "phase": phase},
        {"node_id": "c".ljust(52, "2"), "name": "c", "status": "unloaded", "phase": "unloaded"},
    ]
    assert "error" not in document


@pytest.mark.rows("LIF-5")
def test_an_error_is_told_while_no_node_answers_for_the_model() -> None:
    """With the node where it happened, and no longer than it matters."""
    story = a_story(a_spec(), requested=("tiny",))
    story.tell(exited("tiny", EngineFault.BAD_FILE, "bad magic"))

    alone = status_of(story.core.view, TINY, "tiny")
    helped = status_of(among(story.core.view, serving("b", ServingState.READY)), TINY, "tiny")

    assert (alone["error"], alone["nodes"][0]["error"]) == ("bad magic", "bad magic")  # type: ignore[index]
    assert ("error" in helped, helped["status"]) == (False, "loaded")


def test_the_dead_have_no_models() -> None:
    """Whatever they said before."""
    gone = replace(serving("b", ServingState.READY), state="dead")  # type: ignore[arg-type]
    nobody = a_story().core.view

    assert mesh_status(among(nobody, gone), TINY) == "not_found"
    known = replace(nobody, cold=MappingProxyType({TINY: ColdModel(model=TINY)}))
    assert (mesh_status(known, TINY), status_of(known, TINY, "tiny")["phase"]) == ("unloaded", "unloaded")


def test_a_model_that_is_held_everywhere_says_so() -> None:
    """Here and at other nodes."""
    order = ModelOrder(model=TINY, verb=Verb.UNLOAD, version=1, author=NodeId("x"), hold=True)
    held = replace(a_story().core.view, orders=MappingProxyType({TINY: order}))

    assert status_of(among(held, having("c")), TINY, "tiny")["phase"] == "held"
    assert status_of(held, TINY, "tiny")["phase"] == "held"


def test_a_dropped_model_is_not_of_this_node() -> None:
    """As the list has it."""
    story = a_story(a_spec(), requested=("tiny",))
    story.tell(ready("tiny"))
    story.ask(Verb.DROP, "tiny", force=True, keep_running=True)
    story.tell(exited("tiny", EngineFault.STOPPED))

    assert mesh_status(story.core.view, TINY) == "not_found"
