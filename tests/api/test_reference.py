"""The reference is an OpenAPI document that holds together, and a page that fetches nothing."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from meshllm.api.app import make_app
from meshllm.api.reference import openapi
from meshllm.api.routes import ROUTES, Route
from meshllm.api.schemas import REFERENCE
from meshllm.proxy.reference import inference_reference
from tests.api.described import DOCUMENT, mismatches
from tests.api.node import FakeNode
from tests.core.builders import a_spec, a_story

OF_THE_SPEC = [
    ("GET", "/v1/models/{model}/health"), ("GET", "/health/model/{model}"), ("POST", "/health/check"),
    ("GET", "/routing/config"), ("GET", "/quotas/{model}"), ("GET", "/quotas/{model}/report"),
    ("GET", "/metrics/quotas"), ("GET", "/cache/allocation"), ("GET", "/cache/stats"), ("GET", "/metrics/cache"),
]  # fmt: skip


def every(document: object) -> Iterator[dict[str, Any]]:
    """Return every object within a document."""
    if isinstance(document, dict):
        yield document
    for inner in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from every(inner)


def answered(method: str, path: str) -> dict[str, Any]:
    """Return the schema that an answer refers to."""
    said = DOCUMENT["paths"][path][method.lower()]["responses"]["200"]["content"]["application/json"]["schema"]
    return DOCUMENT["components"]["schemas"][said["$ref"].removeprefix(REFERENCE)]


def test_every_reference_within_the_document_leads_somewhere() -> None:
    """And no schema is there that nothing refers to."""
    found = {one["$ref"] for one in every(DOCUMENT) if "$ref" in one}

    assert found == {REFERENCE + name for name in DOCUMENT["components"]["schemas"]}


def test_the_document_has_what_the_standard_asks_for() -> None:
    """Unique names of operations, parameters for every part of a path, a description of every answer and shape."""
    operations = [
        (path, said) for path, item in DOCUMENT["paths"].items() for said in item.values() if "responses" in said
    ]

    assert DOCUMENT["openapi"] == "3.1.0"
    names = [said["operationId"] for _, said in operations if "operationId" in said]
    assert len(names) == len(set(names))
    for path, said in operations:
        parameters = {one["name"] for one in said.get("parameters", ()) if one["in"] == "path"}
        assert parameters == set(re.findall(r"{(\w+)}", path)), path
        assert all(answer["description"] for answer in said["responses"].values())
    assert [name for name, one in DOCUMENT["components"]["schemas"].items() if not one.get("description")] == []


@pytest.mark.rows("API-10")
@pytest.mark.parametrize(("method", "path"), OF_THE_SPEC)
def test_the_shapes_that_the_specification_proposes_are_in_the_reference(method: str, path: str) -> None:
    """Each row of section 1.T, with the keys that it names; what really comes back is held against it elsewhere."""
    keys = {
        "/v1/models/{model}/health": "model_id health_status status last_check checks nodes",
        "/health/model/{model}": "model_id health_status status last_check checks nodes",
        "/health/check": "results duration_ms",
        "/routing/config": (
            "strategy model_strategy enable_health_checks enable_quota_checks enable_cache_optimization "
            "max_load_threshold min_cache_hit_rate affinity_timeout_sec max_retries retry_delay_ms unknown_model "
            "ab_test_enabled ab_test_split ab_test_model_a ab_test_model_b weights shadow scope version"
        ),
        "/quotas/{model}": "model_id quotas on_limit timezone version",
        "/quotas/{model}/report": "model_id mode windows concurrent ram_mb ssd_gb violations nodes",
        "/metrics/quotas": "per_model",
        "/cache/allocation": "allocation_strategy global_eviction_policy global_cache_size_gb models nodes",
        "/cache/stats": "global per_model", "/metrics/cache": "global per_model",
    }[path]  # fmt: skip

    schema = answered(method, path)

    assert set(keys.split()) <= set(schema["required"])


def test_what_is_described_twice_is_a_mistake() -> None:
    """One of the two would be lost."""
    paths, schemas = inference_reference()

    with pytest.raises(ValueError, match="described twice: /healthz"):
        openapi(ROUTES, "1", ({**paths, "/healthz": {}}, schemas))
    with pytest.raises(ValueError, match="described twice: ErrorAnswer"):
        openapi(ROUTES, "1", (paths, {**schemas, "ErrorAnswer": {}}))


def test_a_key_that_is_not_described_is_found() -> None:
    """The tests of answers rest on it."""
    schema = {"$ref": REFERENCE + "PinAnswer"}

    assert mismatches({"model_id": "a", "pinned": True}, schema) == []
    assert mismatches({"model_id": "a", "pinned": True, "more": 1}, schema) == ["$: more is described nowhere"]
    assert mismatches({"model_id": 1, "pinned": 1}, schema) == [
        "$.model_id: 1 is no string",
        "$.pinned: 1 is no boolean",
    ]
    assert mismatches({"pinned": False}, schema) == ["$: model_id is missing"]


def test_routes_without_inference_are_described_too() -> None:
    """A part alone holds together."""
    route = Route("GET", "/x/{a:.+}/y", "Something.", "x", None, dict[str, int], topic="t")

    document: Any = openapi((route,), "1", ({}, {}))

    assert list(document["paths"]) == ["/x/{a}/y"]
    assert document["paths"]["/x/{a}/y"]["get"]["operationId"] == "get_x_a_y"


@pytest.mark.rows("API-10")
async def test_both_forms_are_served_and_ask_for_nothing_else() -> None:
    """The same to everybody, with a policy that lets the page fetch nothing."""
    app = make_app(FakeNode(a_story(a_spec())), None, inference_reference)  # type: ignore[arg-type]
    async with TestClient(TestServer(app)) as client:
        told = await client.get("/openapi.json")
        document = json.loads(await told.read())
        page = await client.get("/docs")
        text = await page.text()

    assert document == json.loads(json.dumps(DOCUMENT))
    assert (told.content_type, page.content_type) == ("application/json", "text/html")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search(r"(?:src|href)=\"?(?:https?:)?//|<script|@import|url\(", text)
