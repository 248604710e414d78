"""Inference in the reference: every path, with the shape that its body is checked against."""

from typing import Any

import msgspec
import pytest

from meshllm.proxy.paths import INFERENCE, is_open
from meshllm.proxy.reference import inference_reference


@pytest.mark.parametrize("path", sorted(INFERENCE))
def test_every_inference_path_is_described_by_the_shape_that_checks_it(path: str) -> None:
    """A field that is checked is a field that is written down."""
    paths, schemas = inference_reference()
    door = INFERENCE[path]

    said: Any = paths[path]
    body = said["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    properties: Any = schemas[body]

    assert set(properties["properties"]) == {field.encode_name for field in msgspec.structs.fields(door.shape)}
    assert said["post"]["responses"]["200"]["content"]["application/json"] is not None


def test_lists_of_models_are_described() -> None:
    """The front door answers them itself."""
    paths, _ = inference_reference()

    assert {"/v1/models", "/v1/models/{model}"} <= set(paths)


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_the_reference_needs_no_key(path: str) -> None:
    """It is the same for everybody, and says how a key is shown."""
    assert is_open("GET", path)
    assert is_open("HEAD", path)
    assert not is_open("POST", path)
