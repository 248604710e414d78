"""Fetching and deleting model files over HTTP."""

import json

import pytest

from meshllm.core.catalog import ModelReference
from meshllm.core.events import DownloadFailed, DownloadFinished, DownloadProgressed, ModelAsked
from meshllm.core.ids import ModelId
from meshllm.core.intents import Verb
from tests.api.node import FakeNode, a_node
from tests.core.builders import a_spec

FRESH = ModelReference(id=ModelId("fresh"), repository="u/r", filename="fresh.gguf", size_bytes=100, asked_as="u/r:Q4")


async def start(node: FakeNode) -> None:
    """Let the core find out what `u/r:Q4` is and begin to fetch it."""
    await node.asked(Verb.PULL)
    node.tell(ModelAsked(asked="u/r:Q4", reference=FRESH))


async def test_pull_tells_how_far_it_is_and_how_it_ended() -> None:
    """One object a line, the last one says success."""
    async with a_node() as (node, client):
        request = node.begin(client.post("/api/pull", json={"model": "u/r:Q4"}))
        await start(node)
        node.tell(DownloadProgressed(model=FRESH.id, done_bytes=40, total_bytes=100))
        answer = await request
        first = json.loads(await answer.content.readline())
        node.tell(DownloadFinished(model=FRESH.id, path="/models/fresh.gguf"))
        last = json.loads(await answer.content.readline())

        assert answer.status == 200
        assert first == {"status": "downloading", "share": 0.4, "done_bytes": 40, "total_bytes": 100}
        assert (last["status"], last["model"]) == ("success", "fresh")


async def test_pull_of_what_is_there_is_done_at_once() -> None:
    """Nothing is fetched twice."""
    async with a_node() as (_, client):
        answer = await client.post("/api/pull", json={"model": "tiny"})

        assert answer.status == 200
        assert json.loads(await answer.text())["status"] == "success"


async def test_pull_of_nothing_is_404() -> None:
    """The status is still open while nothing has been fetched."""
    async with a_node() as (node, client):
        request = node.begin(client.post("/api/pull", json={"model": "u/nope"}))
        await node.asked(Verb.PULL)
        node.tell(ModelAsked(asked="u/nope", reference=None, message="no such model"))
        answer = await request

        assert answer.status == 404
        assert (await answer.json())["error"]["message"] == "no such model"


async def test_pull_that_breaks_ends_with_an_error_line() -> None:
    """After the first line, the error comes in the stream."""
    async with a_node() as (node, client):
        request = node.begin(client.post("/api/pull", json={"model": "u/r:Q4"}))
        await start(node)
        answer = await request
        await answer.content.readline()
        node.tell(DownloadFailed(model=FRESH.id, code="disk_full", message="the disk is full"))
        last = json.loads(await answer.content.readline())

        assert last["error"]["code"] == "download_failed"
        assert last["error"]["message"] == "the disk is full"


async def test_whoever_hangs_up_stops_watching_not_the_download() -> None:
    """A closed laptop must not throw forty gigabytes away."""
    async with a_node() as (node, client):
        request = node.begin(client.post("/api/pull", json={"model": "u/r:Q4"}))
        await start(node)
        answer = await request
        answer.close()
        node.tell(DownloadProgressed(model=FRESH.id, done_bytes=50, total_bytes=100))

        progress = node.views.newest.local[FRESH.id].progress
        assert progress is not None
        assert progress.done_bytes == 50


async def test_remove_unloads_first_and_keeps_requests_away() -> None:
    """A file that an engine has open is not pulled from under it."""
    async with a_node() as (node, client):
        request = node.begin(client.delete("/api/models/tiny"))
        await node.asked(Verb.UNLOAD)
        is_early = bool(node.removed)
        node.finish_unload("tiny")
        answer = await request

        assert not is_early
        assert await answer.json() == {"removed": "tiny", "files": ["/models/tiny.gguf"]}
        assert node.intents[0].hold
        assert node.rescans == 1


async def test_file_that_cannot_be_deleted_is_said() -> None:
    """Folders of models may be read-only."""
    async with a_node() as (node, client):
        node.remove_error = PermissionError(13, "Permission denied")
        request = node.begin(client.delete("/api/models/tiny"))
        await node.asked(Verb.UNLOAD)
        node.finish_unload("tiny")
        answer = await request

        assert answer.status == 500
        assert "Permission denied" in (await answer.json())["error"]["message"]


@pytest.mark.parametrize("name", ["default", "DEFAULT", "auto"])
async def test_files_are_never_deleted_by_a_name_that_stands_for_others(name: str) -> None:
    """The default model's files are too much for a slip of the tongue."""
    async with a_node(a_spec("tiny"), requested=("tiny",)) as (node, client):
        answer = await client.delete(f"/api/models/{name}")
        error = (await answer.json())["error"]

        assert (answer.status, error["code"], error["param"]) == (400, "invalid_value", "model")
        assert ("tiny" in error["message"]) == (name != "auto")
        assert (node.intents, node.removed) == ([], [])


async def test_pull_wants_a_real_name_too() -> None:
    """There is nothing to fetch under `default`."""
    async with a_node() as (node, client):
        answer = await client.post("/api/pull", json={"model": "default"})

        assert answer.status == 400
        assert not node.intents


async def test_remove_of_an_unknown_model_is_404() -> None:
    """Nothing is deleted by a guess."""
    async with a_node() as (node, client):
        answer = await client.delete("/api/models/nope")

        assert answer.status == 404
        assert not node.intents
