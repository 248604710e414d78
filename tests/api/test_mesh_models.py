"""Every model of the mesh as the console lists it: where it is, how far, and why it is not."""

from dataclasses import replace
from types import MappingProxyType

from meshllm.api.mesh_models import WARMTHS, mesh_model_documents
from meshllm.api.status import phase_of
from meshllm.core.announcement import DiskModel
from meshllm.core.ids import ModelId
from meshllm.core.routing.replicas import replicas_of
from meshllm.core.view import ColdModel, Member, MeshView
from tests.core.builders import a_member, a_spec, a_story, ready


def a_view(*others: Member) -> MeshView:
    """Return the view of a node where `tiny` is ready, with these other members."""
    story = a_story(a_spec("tiny"), requested=("tiny",))
    story.tell(ready("tiny"))
    view = story.core.view
    members = {**view.members, **{member.announcement.node: member for member in others}}
    return replace(
        view, members=MappingProxyType(members), replicas=replicas_of(members.values(), view.me.node), demand={}
    )


def with_file(member: Member, model: str) -> Member:
    """Return a member that has a model on its disk."""
    disk = (DiskModel(model=ModelId(model), digest=f"sha256:{model}", size_bytes=7),)
    return replace(member, announcement=replace(member.announcement, models_on_disk=disk))


def test_model_is_listed_with_every_node_that_has_something_of_it() -> None:
    """Who serves it, and who could."""
    view = a_view(with_file(a_member("attic"), "tiny"), a_member("desk", models=("big", "tiny")))

    found = {str(document["id"]): document for document in mesh_model_documents(view, phase_of)}

    assert list(found) == ["big", "tiny"]
    assert [found[model]["warmth"] for model in found] == ["warm", "warm"]
    assert found["tiny"]["nodes"] == [
        {"id": view.me.node, "phase": "ready"},
        {"id": "attic" + "2" * 47, "phase": "unloaded"},
        {"id": "desk" + "2" * 48, "phase": "ready"},
    ]


def test_dead_node_has_nothing() -> None:
    """What it had cannot be used, so it is not listed; a model that it alone had is not there."""
    view = a_view(with_file(a_member("attic", state="dead"), "rare"))

    assert [document["id"] for document in mesh_model_documents(view, phase_of)] == ["tiny"]


def test_cold_model_says_what_keeps_it_out_of_memory() -> None:
    """In the words and bytes of the core."""
    cold = ColdModel(model=ModelId("rare"), size_bytes=9, lack="needs 1.0 TB")
    view = replace(a_view(with_file(a_member("attic"), "rare")), cold=MappingProxyType({cold.model: cold}))

    document = mesh_model_documents(view, phase_of)[0]

    assert (document["id"], document["warmth"], document["lack"]) == ("rare", "cold", "needs 1.0 TB")
    assert document["size_bytes"] == cold.size_bytes
    assert document["warmth"] in WARMTHS
