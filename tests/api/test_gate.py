"""Who may change the node over HTTP."""

from http import HTTPMethod

import pytest

from meshllm.api.audit import CALLER, READERS
from meshllm.api.gate import right_in
from meshllm.api.routes import ROUTES, Route
from meshllm.core.callers import CallerRight
from tests.api.node import a_node

CHANGING = [route for route in ROUTES if route.handler in READERS]
LOOKING = ("/v1/models/status", "/v1/models/rescan", "/health/check")


def plain(path: str) -> str:
    """Return a route's path with something in the place of its names."""
    for name in ("model:.+", "model", "node", "token", "version"):
        path = path.replace(f"{{{name}}}", "tiny")
    return path


@pytest.mark.rows("SEC-1", "SEC-2")
@pytest.mark.parametrize("route", CHANGING, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize(
    ("right", "status", "code"), [("stranger", 403, "not_allowed"), ("unkeyed", 401, "missing_admin_key")]
)
async def test_every_route_that_changes_something_refuses_who_has_no_right(
    route: Route, right: str, status: int, code: str
) -> None:
    """Drop, load, tokens, quotas and all others; nothing is asked of the core."""
    async with a_node() as (node, client):
        answer = await client.request(
            HTTPMethod(route.method),
            plain(route.path),
            json={},
            headers={CALLER: f"127.0.0.1 {right}"},
        )
        error = (await answer.json())["error"]

        assert (answer.status, error["code"]) == (status, code)
        assert "MESH_LLM_ADMIN_KEY" in error["message"]
        assert not node.intents
        assert not node.made


@pytest.mark.rows("SEC-1", "SEC-2")
@pytest.mark.parametrize("right", [right for right in CallerRight if right.may_administer])
async def test_who_has_a_right_is_let_in(right: CallerRight) -> None:
    """By whichever it is."""
    async with a_node() as (node, client):
        answer = await client.post("/api/tokens", json={}, headers={CALLER: f"192.0.2.7 {right}"})

        assert answer.status == 201
        assert len(node.made) == 1


@pytest.mark.rows("SEC-2")
@pytest.mark.parametrize("path", LOOKING)
async def test_what_only_looks_is_everybodys(path: str) -> None:
    """As reading is."""
    async with a_node() as (_, client):
        answer = await client.post(path, json={"model_id": "tiny"}, headers={CALLER: "127.0.0.1 stranger"})

        assert answer.status in {200, 202, 404}


@pytest.mark.parametrize(
    ("caller", "right"),
    [
        ("", CallerRight.OWNER), ("127.0.0.1 owner", CallerRight.OWNER), ("::1 local", CallerRight.LOCAL),
        ("127.0.0.1 open", CallerRight.STRANGER), ("owner ", CallerRight.STRANGER),
    ],
)  # fmt: skip
def test_the_last_word_is_the_right_and_an_unknown_one_is_none(caller: str, right: CallerRight) -> None:
    """Without any, somebody speaks to the private socket."""
    assert right_in(caller) is right
