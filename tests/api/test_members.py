"""Members as JSON: who is here, how they are, and what strangers don't see."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from meshllm.api.deps import MeshFacts
from meshllm.api.members import STATES, member_documents, mesh_document
from meshllm.core.announcement import Address, Role
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.rights import GUEST, OWN_MACHINE, Rights
from meshllm.core.view import Member, MeshView
from tests.core.builders import a_gpu, a_member, a_story


def a_view(*members: Member, rights: Rights = OWN_MACHINE) -> MeshView:
    """Return a view with these other members, of a node with these rights."""
    view = a_story().core.view
    me = replace(view.me, rights=rights, addresses=(Address("10.0.0.1", 1),))
    own = replace(view.members[view.me.node], announcement=me)
    known = {me.node: own, **{member.announcement.node: member for member in members}}
    return replace(view, me=me, members=MappingProxyType(known))


def test_member_tells_everything_that_people_ask() -> None:
    """Who, where, since when, how far, what it serves, and why it is not reached."""
    member = a_member(
        "desk", state="suspect", models=("tiny",), gpus=(a_gpu(),), connected=True, rtt_s=0.0123, last_heard_s=97.5,
        vouched_by=NodeId("n" * 52), why="no answer",
    )  # fmt: skip

    document: dict[str, Any] = member_documents(a_view(member), 100.0, {member.announcement.node: 3})[1]

    assert document | {"memory": 0, "hardware": 0} == {
        "id": "desk" + "2" * 48, "short": "desk2222", "name": "desk", "is_me": False, "state": "suspect",
        "for_s": 10.0, "role": "host", "rights": ["infer", "host"], "connected": True, "rtt_ms": 12.3, "heard_s": 2.5,
        "lines": 3,
        "vouched_by": "n" * 52, "why": "no answer", "addresses": ["192.0.2.7:4000"], "load": 0.0, "memory": 0,
        "hardware": 0, "engine_build": "", "protocol": 1,
        "models": [{"id": "tiny", "digest": "sha256:tiny", "state": "ready", "slots": 4, "busy": 1, "queued": 0,
                    "context_tokens": 8192, "split": None}],
        "lends": [],
    }  # fmt: skip
    assert document["memory"]["gpus"] == 1
    assert document["hardware"] == {"cores": 4, "gpus": ["GPU"]}
    assert document["memory"]["gpu_total_bytes"] == a_gpu().total_bytes


def test_this_node_is_first_then_those_that_can_be_reached() -> None:
    """The order of a table that people read from the top."""
    members = [a_member(f"{state}{number}", state=state) for state in reversed(STATES) for number in (2, 1)]

    found = member_documents(a_view(*members, a_member("odd", state="new")), 100.0, {})
    names = [document["name"] for document in found]

    assert names == ["a", "alive1", "alive2", "suspect1", "suspect2", "dead1", "dead2", "left1", "left2", "odd"]


def test_guest_is_not_told_where_others_are() -> None:
    """Only members that manage others need addresses; everybody knows its own."""
    documents = member_documents(a_view(a_member("desk"), rights=GUEST), 100.0, {})

    assert [document["addresses"] for document in documents] == [["10.0.0.1:1"], []]


def test_memory_of_a_client_is_nobody_s() -> None:
    """CON-4: it lends nothing."""
    phone = a_member("phone", role=Role.CLIENT, gpus=(a_gpu(),))
    client: dict[str, Any] = member_documents(a_view(phone), 100.0, {})[1]

    assert set(client["memory"].values()) == {0}


def test_mesh_is_named_with_what_this_node_may_do_in_it() -> None:
    """Null before there is one."""
    facts = MeshFacts(id=MeshId("m" * 52), name="home", rights=GUEST, is_founder=False)

    assert mesh_document(None) is None
    assert mesh_document(facts) == {
        "id": "m" * 52, "name": "home", "is_founder": False, "rights": ["infer", "host"],
    }  # fmt: skip
