"""What other members serve is listed with what this node has: one entry for each name."""

from dataclasses import replace
from typing import Any

import pytest

from meshllm.core.announcement import ServingState
from meshllm.core.engines import EngineFailure, EngineFault, EngineState
from meshllm.core.routing.routes import Refusal
from meshllm.core.view import LocalModel
from meshllm.proxy.detail import model_detail
from meshllm.proxy.listing import ListOptions, model_list
from tests.core.builders import a_spec
from tests.proxy.builders import NODE, a_get, a_house, a_model, a_view
from tests.proxy.tunnels import DIGEST, FIRST, SECOND, a_replica


def a_shared_model(state: EngineState = EngineState.READY, **more: Any) -> LocalModel:
    """Return a model of this node that others have too."""
    return a_model(state=state, spec=replace(a_spec("tiny"), digest=DIGEST), **more)


def entries(*models: LocalModel, replicas: Any = (), query: str = "pseudo=false") -> dict[str, dict[str, Any]]:
    """Return the entries of a list, by id."""
    data: Any = model_list(a_view(*models, replicas=tuple(replicas)), ListOptions.parse(query))["data"]
    assert len({entry["id"] for entry in data}) == len(data)
    return {entry["id"]: entry for entry in data}


@pytest.mark.rows("LST-3")
def test_a_model_of_others_has_an_entry() -> None:
    """With everything that clients look for."""
    facts = {
        "display_name": "Tiny 135M", "capabilities": ("chat", "tools"), "parameters": 135_000_000, "size_bytes": 7,
        "architecture": "llama", "quantization": "Q4_1",
    }  # fmt: skip
    replicas = (a_replica(FIRST, **facts), a_replica(SECOND, state=ServingState.LOADING, context_tokens=9999, **facts))

    (entry,) = entries(replicas=replicas).values()

    assert {
        "id": "tiny", "object": "model", "created": 0, "owned_by": "mesh", "status": "loaded", "phase": "ready",
        "health_status": "healthy", "display_name": "Tiny 135M", "context_length": 2048, "parameter_count": "135M",
        "capabilities": ["chat", "tools"], "tools_available": True, "input_modalities": ["text"], "path": None,
    }.items() <= entry.items()  # fmt: skip
    assert [(node["node_id"], node["status"], node["slots"]) for node in entry["nodes"]] == [
        (FIRST, "loaded", 2), (SECOND, "reloading", 2),
    ]  # fmt: skip
    assert entry["meta"] == {"n_ctx": 2048, "n_params": 135_000_000, "size": 7, "quantization": "Q4_1", "slots": 4}


@pytest.mark.rows("LST-3")
def test_a_model_of_this_node_and_others_is_one_entry() -> None:
    """The largest ready context, everybody's capabilities, every node."""
    replicas = (a_replica(FIRST, context_tokens=8192, capabilities=("vision",)),)

    (entry,) = entries(a_shared_model(), replicas=replicas).values()

    assert [node["node_id"] for node in entry["nodes"]] == [NODE, FIRST]
    assert (entry["context_length"], entry["meta"]["n_ctx"]) == (8192, 8192)
    assert entry["capabilities"] == ["chat", "completion", "vision"]
    assert entry["owned_by"] == "local"


@pytest.mark.parametrize(
    ("state", "there", "expected"),
    [
        (EngineState.STOPPED, ServingState.READY, ("loaded", "ready", 8192)),
        (EngineState.FAILED, ServingState.READY, ("loaded", "ready", 8192)),
        (EngineState.STOPPED, ServingState.LOADING, ("reloading", "loading", 2048)),
        (EngineState.READY, ServingState.LOADING, ("loaded", "ready", 2048)),
    ],
)
def test_the_state_is_the_best_of_all_nodes(
    state: EngineState, there: ServingState, expected: tuple[str, str, int]
) -> None:
    """A client asks whether it can use a model, not where."""
    failure = EngineFailure(fault=EngineFault.BAD_FILE, message="cut short") if state is EngineState.FAILED else None
    model = a_shared_model(state, failure=failure)

    (entry,) = entries(model, replicas=[a_replica(state=there, context_tokens=8192)]).values()

    assert (entry["status"], entry["phase"], entry["context_length"]) == expected
    assert "error" not in entry


def test_another_file_of_the_same_name_is_listed_and_changes_nothing() -> None:
    """Requests for the name never go there."""
    other = a_replica(digest="sha256:" + "9" * 64, context_tokens=8192)

    (entry,) = entries(a_shared_model(EngineState.STOPPED), replicas=[other]).values()

    assert (entry["status"], entry["context_length"]) == ("unloaded", 2048)
    assert [node["digest"] for node in entry["nodes"]] == [DIGEST, other.served.digest]


def test_a_model_that_was_dropped_here_is_listed_as_others_have_it() -> None:
    """Without this node."""
    (entry,) = entries(a_shared_model(EngineState.STOPPED, dropped=True), replicas=[a_replica()]).values()

    assert [node["node_id"] for node in entry["nodes"]] == [FIRST]
    assert entry["owned_by"] == "mesh"


@pytest.mark.rows("LST-6")
def test_the_query_and_the_catalogue_know_models_of_others() -> None:
    """`served` means ready somewhere; what somebody serves is not offered for download."""
    replicas = [a_replica(model="b"), a_replica(model="c", state=ServingState.LOADING)]

    assert list(entries(a_model("a"), replicas=replicas, query="served=true&pseudo=false")) == ["a", "b"]


def test_one_model_of_others_has_details() -> None:
    """By any of its names."""
    view = a_view(a_model("here"), replicas=(a_replica(),))

    for name in ("tiny", "TINY"):
        detail = model_detail(view, name)
        assert isinstance(detail, dict)
        assert (detail["id"], detail["digest"], detail["aliases"]) == ("tiny", DIGEST, ())
    assert isinstance(model_detail(view, "tinny"), Refusal)


async def test_the_list_is_made_once_for_a_view() -> None:
    """From memory: a member that is gone from the view is gone from the list."""
    async with a_house() as house:
        house.views.publish(replicas=(a_replica(),))
        before = (await house.ask(a_get("/v1/models?pseudo=false"))).json["data"]
        one = (await house.ask(a_get("/v1/models/tiny"))).json
        house.views.publish()
        after = (await house.ask(a_get("/v1/models?pseudo=false"))).json["data"]

    assert [entry["id"] for entry in before] == ["tiny"]
    assert one["nodes"] == before[0]["nodes"]
    assert after == []
