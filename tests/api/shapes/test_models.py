"""What is said to and of single models is what the reference says, key by key."""

import pytest

from meshllm.core.ids import ModelId
from meshllm.core.intents import Verb
from tests.api.described import asked, mismatches, operation
from tests.api.node import a_node
from tests.api.test_generate import a_door
from tests.core.builders import a_member, a_spec


async def test_orders_about_a_models_life_are_answered_as_described() -> None:
    """Loaded, unloaded, unknown: the closed vocabulary in one shape."""
    async with a_node() as (node, client):
        order = node.begin(asked(client, "POST", "/v1/models/unload", {"model_id": "tiny", "hold": True}))
        await node.asked(Verb.UNLOAD)
        node.finish_unload("tiny")
        unloaded = await order

        later = await asked(client, "POST", "/v1/models/reload", {"model_id": "tiny", "wait": False}, status=202)
        missing = await asked(client, "POST", "/v1/models/reload", {"model_id": "?"}, status=404)

        assert (unloaded["status"], later["status"], missing["status"]) == ("unloaded", "reloading", "not_found")


async def test_what_is_said_of_a_models_place_is_described() -> None:
    """By node, and of a model that nobody has."""
    async with a_node() as (_, client):
        found = await asked(client, "POST", "/v1/models/status", {"model_id": "tiny"})
        await asked(client, "POST", "/v1/models/status", {"model_id": "nonsense"}, status=404)

        assert found["nodes"][0]["status"] == "loaded"


async def test_pins_defaults_drops_and_rescans_are_described() -> None:
    """Small orders, small answers."""
    async with a_node(a_spec("tiny"), a_spec("other")) as (node, client):
        await asked(client, "POST", "/v1/models/pin", {"model_id": "tiny", "pinned": True, "scope": "node"})
        chosen = await asked(client, "POST", "/v1/models/default", {"model_id": "other", "scope": "node"})
        await asked(client, "POST", "/v1/models/rescan", status=202)
        drop = node.begin(asked(client, "POST", "/mesh/drop", {"model": "tiny", "keep_running": True}))
        await node.asked(Verb.DROP)
        node.finish_unload("tiny")

        assert chosen["default_model_id"] == "other"
        assert (await drop)["dropped"] == "tiny"
        assert node.rescans == 1


async def test_a_models_health_is_described() -> None:
    """By both paths, and when somebody has it looked at."""
    async with a_node() as (_, client):
        for path in ("/v1/models/tiny/health", "/health/model/tiny"):
            assert (await asked(client, "GET", path))["nodes"][0]["checks"]["memory"] == "ok"
        looked = await asked(client, "POST", "/health/check", {"model_id": "tiny"})
        everything = await asked(client, "POST", "/health/check")

        assert [one["model_id"] for one in (*looked["results"], *everything["results"])] == ["tiny", "tiny"]


async def test_versions_are_described_with_all_their_notes() -> None:
    """Registered, listed, taken back."""
    notes = {
        "tags": ["a"], "source": "s", "license": "l", "format": "gguf", "quantization": "Q4_1", "temperature": 0.5,
        "max_workers": 2, "max_tokens": 9, "context_length": 64,
    }  # fmt: skip
    order = {"id": "house", "version": "2.0.0", "path": "/models/tiny.gguf", "alias": "h", **notes}
    async with a_node() as (_, client):
        made = await asked(client, "POST", "/v1/models/register", order, status=201)
        listed = await asked(client, "GET", "/v1/models/house/versions")
        gone = await asked(client, "DELETE", "/v1/models/house/versions/2.0.0")

        assert made.keys() >= notes.keys()
        assert listed["versions"][0]["version"] == gone["version"] == "2.0.0"


async def test_one_model_in_detail_is_described_wherever_it_is() -> None:
    """Here with its files; elsewhere with what its node says."""
    async with a_node() as (node, client):
        node.meet(a_member("studio", models=("away",)))

        here = await asked(client, "GET", "/api/models/tiny")
        there = await asked(client, "GET", "/api/models/away")
        removed = node.begin(asked(client, "DELETE", "/api/models/tiny"))
        await node.asked(Verb.UNLOAD)
        node.finish_unload("tiny")

        assert (here["files"], there["files"]) == (["/models/tiny.gguf"], [])
        assert (await removed)["removed"] == "tiny"
        assert node.removed == [ModelId("tiny")]


async def test_plain_prompts_are_answered_as_described() -> None:
    """One and several."""
    async with a_door() as (_, client):
        one = await asked(client, "POST", "/v1/generate", {"prompt": "a", "max_new_tokens": 3, "stop": ["x"]})
        several = await asked(client, "POST", "/v1/generate/batch", {"prompts": ["a", "b"], "temperature": 0.1})

        assert [one["output"], *(each["output"] for each in several["results"])] == ["a!", "a!", "b!"]


@pytest.mark.parametrize(
    "line",
    [
        {"status": "downloading", "share": 0.5, "done_bytes": 1, "total_bytes": 2},
        {"status": "downloading", "share": 0.5, "done_bytes": 1, "total_bytes": 2, "from": ["b"]},
        {"status": "success", "model": "tiny", "message": "it is there"},
    ],
)
def test_lines_of_a_download_are_described(line: dict[str, object]) -> None:
    """Each is a document of its own."""
    said = operation("POST", "/api/pull")["responses"]["200"]["content"]["application/x-ndjson"]["schema"]

    assert mismatches(line, said) == []
