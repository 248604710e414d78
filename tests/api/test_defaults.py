"""Choosing the default over HTTP."""

import pytest

from meshllm.core.intents import Verb
from tests.api.node import a_node
from tests.api.test_lifecycle import post
from tests.core.builders import a_member, a_spec

PATH = "/v1/models/default"


@pytest.mark.rows("ADR-10")
async def test_a_choice_says_what_was_and_what_is() -> None:
    """In the mesh, where this node may choose for it; else at this node."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("tiny",)) as (node, client):
        assert await post(client, PATH, model_id="OTHER") == (
            200, {"default_model_id": "other", "previous": "tiny", "scope": "mesh"},
        )  # fmt: skip
        assert node.views.newest.default_model == "other"

        assert await post(client, PATH, model_id="tiny", scope="node") == (
            200, {"default_model_id": "tiny", "previous": "other", "scope": "node"},
        )  # fmt: skip
        assert node.views.newest.default_model == "tiny"
        assert await post(client, PATH, model_id=None, scope="node") == (
            200, {"default_model_id": "other", "previous": "tiny", "scope": "node"},
        )  # fmt: skip


@pytest.mark.rows("ADR-10")
async def test_an_unknown_model_is_refused_and_the_old_default_stays() -> None:
    """With what is near."""
    async with a_node(a_spec("tiny"), requested=("tiny",)) as (node, client):
        status, document = await post(client, PATH, model_id="tinny")

        assert (status, document["error"]["code"]) == (404, "model_not_found")  # type: ignore[index]
        assert "did you mean tiny" in document["error"]["message"]  # type: ignore[index]
        assert node.views.newest.default_model == "tiny"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model_id"), ({"model_id": "default"}, "model_id"), ({"model_id": None}, "model_id"),
        ({"model_id": "tiny", "scope": "elsewhere"}, "scope"),
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_named(body: dict[str, object], param: str) -> None:
    """`default` is not a model, and a mesh cannot be without a choice that it once had."""
    async with a_node(a_spec("tiny"), requested=("tiny",)) as (node, client):
        status, document = await post(client, PATH, **body)

        assert (status, document["error"]["param"]) == (400, param)  # type: ignore[index]
        assert not node.intents


async def test_a_choice_for_another_node_goes_there() -> None:
    """What comes back from there is the answer."""
    async with a_node(a_spec("tiny"), requested=("tiny",)) as (node, client):
        node.meet(a_member("studio"))
        status, _ = await post(client, PATH, model_id="tiny", scope="studio")

        assert (node.intents[0].verb, node.intents[0].scope) == (Verb.DEFAULT, "studio".ljust(52, "2"))
        assert status == 503  # the core of this test knows of no such node
