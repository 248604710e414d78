"""Models that nobody serves are listed with those that somebody does: known, unloaded, and why."""

import time
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from meshllm.core.announcement import Announcement, ModelOrder, RequestedModel, Role, ServingState
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.known_models import CATALOG
from meshllm.core.policy import LoadMode, ModelPolicy
from meshllm.core.standing import MemberState
from meshllm.core.view import ColdModel, Member
from meshllm.proxy.detail import model_detail
from meshllm.proxy.listing import ListOptions, model_list
from tests.proxy.builders import NODE, a_get, a_house, a_model, a_view
from tests.proxy.tunnels import DIGEST, FIRST, SECOND, a_replica

SMOL = ModelId("SmolLM2-135M-Instruct.Q4_1")
LST_5 = {
    "display_name", "path", "version", "architecture", "parameter_count", "enabled", "health_status", "use_count",
    "size_bytes", "preload",
}  # fmt: skip


def a_cold(model: str = "cold", **facts: Any) -> ColdModel:
    """Return a model that nobody serves and one node has."""
    return ColdModel(**{"model": ModelId(model), "nodes": (FIRST,), "digest": DIGEST, "size_bytes": 7, **facts})


def a_member(node: NodeId, *, state: MemberState = MemberState.ALIVE, **said: Any) -> dict[NodeId, Member]:
    """Return a member by its id."""
    facts = {"incarnation": 1, "version": 1, "role": Role.WORKER, "resources": None, **said}
    return {node: Member(announcement=Announcement(node=node, name=node[0], **facts), state=state, since_s=0.0)}


def listed(view: Any, query: str = "pseudo=false") -> dict[str, dict[str, Any]]:
    """Return the entries of a list, by id."""
    data: Any = model_list(view, ListOptions.parse(query), ())["data"]
    return {entry["id"]: entry for entry in data}


@pytest.mark.rows("LST-3", "LST-4", "LST-5", "LST-7")
def test_a_model_on_another_nodes_disk_has_a_whole_entry() -> None:
    """What the catalogue knows of its file included."""
    view = a_view(cold=(a_cold(SMOL),), members=a_member(FIRST))

    (entry,) = listed(view).values()

    assert {
        "id": SMOL, "object": "model", "created": 0, "owned_by": "mesh", "status": "unloaded", "phase": "sleeping",
        "health_status": "unknown", "warm": False, "enabled": True, "size_bytes": 7, "path": None,
        "parameter_count": "135M", "context_length": 8192, "tools_available": False,
    }.items() <= entry.items()  # fmt: skip
    assert entry.keys() >= LST_5
    assert entry["nodes"] == [
        {
            "node_id": FIRST,
            "name": "b",
            "status": "unloaded",
            "slots": 0,
            "digest": DIGEST,
            "context_length": 0,
            "health_status": "unknown",
        }
    ]
    assert entry["meta"]["quantization"] == "Q4_1"
    assert listed(a_view(cold=(a_cold(),)))["cold"]["parameter_count"] == "0"


@pytest.mark.rows("LST-2", "LST-6", "LST-7", "LST-9")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["default", "cold", "far", "here"]), ("served=true", ["default", "far", "here"]),
        ("pseudo=false", ["cold", "far", "here"]), ("pseudo=all", ["default", "auto", "cold", "far", "here"]),
        ("catalog=true&pseudo=false", ["cold", "far", "here", "user/wanted"]),
    ],
)  # fmt: skip
def test_the_list_is_of_the_whole_mesh_and_in_order(query: str, expected: list[str]) -> None:
    """Everything that a request may name; by wish, only what answers now, or also what is wanted and not there."""
    wants = {
        **a_member(FIRST, requested=(RequestedModel(name="user/wanted"), RequestedModel(name="far"))),
        **a_member(SECOND, state=MemberState.DEAD, requested=(RequestedModel(name="user/gone"),)),
    }
    view = a_view(a_model("here"), replicas=(a_replica(model="far"),), cold=(a_cold(),), members=wants, default="cold")

    document = model_list(view, ListOptions.parse(query), ())

    assert [entry["id"] for entry in document["data"]] == expected  # type: ignore[attr-defined]
    assert document["default_model"] == "cold"


@pytest.mark.rows("REG-16")
def test_the_catalogue_has_what_members_have_what_they_want_and_what_can_be_fetched() -> None:
    """Each once."""
    view = a_view(cold=(a_cold(SMOL),), members=a_member(FIRST, requested=(RequestedModel(name="user/wanted"),)))

    data: Any = model_list(view, ListOptions.parse("catalog=true"), CATALOG)["data"]
    ids = [entry["id"] for entry in data]

    assert {SMOL, "user/wanted", "qwen2.5-3b-instruct-q4_k_m"} < set(ids)
    assert len(ids) == len(set(ids))
    assert {entry["phase"] for entry in data[1:]} == {"sleeping", "requested", "not_downloaded"}


@pytest.mark.rows("LIF-13")
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (ServingState.CLAIMED, ("reloading", "queued", "loading", False)),
        (ServingState.DOWNLOADING, ("reloading", "downloading", "loading", False)),
        (ServingState.LOADING, ("reloading", "loading", "loading", False)),
        (ServingState.READY, ("loaded", "ready", "healthy", True)),
        (ServingState.DRAINING, ("loaded", "draining", "healthy", True)),
    ],
)
def test_every_step_of_a_model_elsewhere_has_its_words(
    state: ServingState, expected: tuple[str, str, str, bool]
) -> None:
    """From the claim to the end."""
    (entry,) = listed(a_view(replicas=(a_replica(state=state),))).values()

    assert (entry["status"], entry["phase"], entry["health_status"], entry["warm"]) == expected


def test_health_is_that_of_the_best_host() -> None:
    """Loaded and unhealthy is possible, and said."""
    sick, well = a_replica(health="unhealthy"), a_replica(SECOND, health="degraded")

    assert listed(a_view(replicas=(sick,)))["tiny"]["health_status"] == "unhealthy"
    assert listed(a_view(replicas=(sick, well)))["tiny"]["health_status"] == "degraded"


def test_what_keeps_a_model_out_of_memory_is_told() -> None:
    """A hold, the lack of room, or that it is about to come."""
    held = ModelOrder(model=ModelId("held"), verb=Verb.UNLOAD, version=1, author=FIRST, hold=True)
    view = a_view(
        a_model("mine", state=EngineState.STOPPED),
        cold=(a_cold("held", order=held), a_cold("large", lack="it needs 9 GB"), a_cold("coming"), a_cold("mine")),
        members=a_member(FIRST),
    )
    view = replace(view, me=replace(view.me, waiting=(ModelId("coming"), ModelId("large"))))

    entries = listed(view)

    assert {name: (entry["phase"], entry.get("waiting")) for name, entry in entries.items()} == {
        "held": ("held", None), "large": ("queued", "it needs 9 GB"), "coming": ("queued", None),
        "mine": ("sleeping", None),
    }  # fmt: skip
    assert [node["node_id"] for node in entries["mine"]["nodes"]] == [NODE, FIRST]
    assert entries["mine"]["owned_by"] == "local"


@pytest.mark.rows("REG-12", "LST-5")
def test_what_the_configuration_says_of_a_model_is_listed() -> None:
    """A disabled one stays in the list."""
    policies = {ModelId("cold"): ModelPolicy(
        name="cold", is_enabled=False, tags=("vision", "fast"), label="My model", load=LoadMode.EAGER
    )}  # fmt: skip
    view = a_view(a_model("here"), cold=(a_cold(),), policies=MappingProxyType(policies))

    entries = listed(view)

    assert (entries["here"]["enabled"], entries["here"]["tags"]) == (True, [])
    assert {"enabled": False, "tags": ["vision", "fast"], "display_name": "My model", "preload": True}.items() <= (
        entries["cold"].items()
    )


def test_uses_are_counted_over_all_living_nodes() -> None:
    """With those of this node."""
    members = {
        **a_member(FIRST, uses=(("here", 3), ("cold", 2))), **a_member(SECOND, uses=(("here", 4),)),
        **a_member(NodeId("dead"), state=MemberState.DEAD, uses=(("here", 100),)),
    }  # fmt: skip

    entries = listed(a_view(a_model("here", requests=5), cold=(a_cold(),), members=members))

    assert (entries["here"]["use_count"], entries["cold"]["use_count"]) == (12, 2)


def test_a_model_that_was_dropped_here_is_listed_where_somebody_else_has_it() -> None:
    """Otherwise it is gone, as before."""
    dropped = [a_model(name, state=EngineState.STOPPED, dropped=True) for name in ("mine", "ours")]

    entries = listed(a_view(*dropped, cold=(a_cold("mine", nodes=(NODE,)), a_cold("ours", nodes=(NODE, FIRST)))))

    assert list(entries) == ["ours"]
    detail = model_detail(a_view(*dropped), "mine")
    assert isinstance(detail, dict)
    assert detail["phase"] == "sleeping"


@pytest.mark.rows("LST-8")
def test_one_cold_model_has_details() -> None:
    """By any of its names; two names of one file are one."""
    view = a_view(cold=(a_cold(),), aliases={"nick": "cold"})

    for name in ("cold", "COLD", "nick"):
        detail = model_detail(view, name)
        assert isinstance(detail, dict)
        assert (detail["id"], detail["digest"], detail["status"]) == ("cold", DIGEST, "unloaded")


@pytest.mark.rows("LST-1", "LST-10")
async def test_a_client_lists_what_the_mesh_has() -> None:
    """The same on every node."""
    async with a_house(models=lambda _: ()) as house:
        house.views.publish(cold=(a_cold("new-model"),))
        document = (await house.ask(a_get("/v1/models"))).json

    assert document["object"] == "list"
    assert [entry["id"] for entry in document["data"] if entry["id"] == "new-model"] == ["new-model"]


def test_the_list_of_a_large_mesh_is_made_in_milliseconds() -> None:
    """Fifty models at twenty nodes each; afterwards it comes from memory until the view changes."""
    replicas = [
        a_replica(NodeId(f"n{node}"), model=f"model-{model}", capabilities=("chat", "completion"))
        for model in range(25) for node in range(20)
    ]  # fmt: skip
    cold = tuple(a_cold(f"cold-{model}", nodes=tuple(NodeId(f"n{node}") for node in range(20))) for model in range(25))
    view = a_view(replicas=tuple(replicas), cold=cold)

    took_s = []
    for _ in range(5):
        began_s = time.thread_time()
        msgspec.json.encode(model_list(view, ListOptions()))
        took_s.append(time.thread_time() - began_s)

    assert min(took_s) < 0.25
