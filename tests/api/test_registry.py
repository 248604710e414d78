"""Versions over HTTP: what is handed on, what is shown, what is refused how."""

import pytest

from meshllm.api.deps import RegistryRefusalError
from meshllm.core.registration import RegistryNotes
from tests.api.node import a_node
from tests.core.builders import a_spec

REGISTER = "/v1/models/register"


@pytest.mark.rows("REG-6", "REG-7", "REG-14")
async def test_a_version_is_registered_with_what_is_said_of_it() -> None:
    """201 with the object; a version that nobody says is 1.0.0; of the path, only the last part is shown."""
    async with a_node(a_spec("tiny"), a_spec("tiny-v2"), requested=("tiny",)) as (node, client):
        plain = await client.post(REGISTER, json={"id": "u/foo", "path": "/models/tiny.gguf"})
        said = await client.post(REGISTER, json={
            "id": "u/foo", "version": "1.1.0", "path": "/models/tiny-v2.gguf", "alias": "stable", "tags": ["chat"],
            "license": "MIT", "temperature": 1, "max_tokens": 64, "source": "home", "context_length": 2048,
            "max_workers": 2, "format": "gguf", "quantization": "Q4_1",
        })  # fmt: skip

        assert (plain.status, said.status) == (201, 201)
        assert await plain.json() == {
            "id": "u/foo", "object": "model.version", "version": "1.0.0", "model": "tiny", "digest": "sha256:tiny",
            "path": "tiny.gguf", "size_bytes": 5, "registered_at": "2023-11-14T22:13:20Z", "aliases": [],
            "nodes": [node.views.newest.me.node],
        }  # fmt: skip
        document = await said.json()
        assert (document["version"], document["aliases"], document["temperature"]) == ("1.1.0", ["stable"], 1.0)
        assert document["tags"] == ["chat"]
        assert node.wishes[1].notes == RegistryNotes(
            max_workers=2, max_tokens=64, temperature=1.0, tags=("chat",), source="home", license="MIT",
            context_length=2048, format="gguf", quantization="Q4_1",
        )  # fmt: skip


@pytest.mark.rows("REG-8")
async def test_versions_are_listed_the_newest_first_under_ids_with_slashes() -> None:
    """And taken back; a model whose own name ends like a suffix is reached by escaping."""
    async with a_node(a_spec("tiny"), a_spec("tiny-v2"), requested=("tiny",)) as (_, client):
        for version, file in (("1.0.0", "tiny"), ("1.1.0", "tiny-v2")):
            body = {"id": "a/versions", "version": version, "path": f"/models/{file}.gguf"}
            assert (await client.post(REGISTER, json=body)).status == 201

        answer = await client.get("/v1/models/a%2Fversions/versions")
        by_file = await client.get("/v1/models/TINY/versions")
        gone = await client.delete("/v1/models/a/versions/versions/1.1.0")
        after = await client.get("/v1/models/a/versions/versions")

        document = await answer.json()
        assert document["model_id"] == "a/versions"
        assert [one["version"] for one in document["versions"]] == ["1.1.0", "1.0.0"]
        assert set(document["versions"][0]) == {
            "version", "digest", "path", "size_bytes", "registered_at", "nodes", "aliases", "model",
        }  # fmt: skip
        assert (await by_file.json())["versions"] == document["versions"]
        assert (gone.status, await gone.json()) == (200, {"id": "a/versions", "version": "1.1.0", "deleted": True})
        assert [one["version"] for one in (await after.json())["versions"]] == ["1.0.0"]
        assert (await client.get("/v1/models/nothing/versions")).status == 404


@pytest.mark.rows("REG-6", "REG-7")
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("reserved_name", 409), ("version_conflict", 409), ("digest_mismatch", 409), ("invalid_version", 400),
        ("path_not_allowed", 400), ("not_hashed_yet", 503), ("cannot_save", 500), ("version_not_found", 404),
    ],
)  # fmt: skip
async def test_refusals_have_their_status_and_the_parameter(code: str, status: int) -> None:
    """The envelope, as everywhere."""
    async with a_node() as (node, client):
        node.registry_refusal = RegistryRefusalError(code, "because", "version")

        answers = [
            await client.post(REGISTER, json={"id": "foo", "path": "x.gguf"}),
            await client.delete("/v1/models/foo/versions/1.0.0"),
        ]

        assert {answer.status for answer in answers} == {status}
        error = (await answers[0].json())["error"]
        assert (error["code"], error["message"], error["param"]) == (code, "because", "version")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"path": 5}, "path"), ({"id": ""}, "id"), ({"version": 1}, "version"), ({"temperature": 3}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"), ({"tags": "chat"}, "tags"), ({"tags": ["x"] * 33}, "tags"),
            ({"capabilities": ["x"] * 33}, "tags"),
        ({"license": "x" * 257}, "license"), ({"tags": ["x" * 257]}, "tags"), ({"max_workers": 0}, "max_workers"),
    ],
)  # fmt: skip
async def test_fields_of_a_wrong_shape_are_refused_by_name(fields: dict[str, object], param: str) -> None:
    """Nothing of them is kept."""
    async with a_node() as (node, client):
        answer = await client.post(REGISTER, json={"id": "foo", "path": "x.gguf", **fields})

        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == param
        assert not node.wishes
