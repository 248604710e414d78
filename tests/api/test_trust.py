"""Tokens and nodes over HTTP: made once, listed without secrets, revoked by what people type."""

from dataclasses import replace
from typing import Any

import pytest

from meshllm.api.deps import MeshRefusalError, TokenFacts
from meshllm.api.trust import BUNDLES
from meshllm.core.ids import NodeId, TokenId
from meshllm.core.limits import TOKEN_TTL_S
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE, Rights
from meshllm.core.view import Member
from tests.api.node import Client, a_node
from tests.core.builders import a_member


async def send(client: Client, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Return an answer's status and document."""
    answer = await client.request(method, path, json=body)
    return answer.status, await answer.json()


def a_token(token: str, *, expires_unix_s: float = 4e9, uses_left: int | None = None) -> TokenFacts:
    """Return what is known of a token."""
    return TokenFacts(
        id=TokenId(token), rights=GUEST, expires_unix_s=expires_unix_s, uses_left=uses_left, made_by=NodeId("a" * 52)
    )


@pytest.mark.rows("SEC-1")
@pytest.mark.parametrize(
    ("body", "made"),
    [
        ({}, (OWN_MACHINE, TOKEN_TTL_S, None)),
        ({"rights": "guest", "ttl_s": 60, "uses": 1}, (GUEST, 60.0, 1)),
        ({"rights": "client", "ttl_s": None}, (CLIENT_ONLY, TOKEN_TTL_S, None)),
        ({"rights": ["infer", " RPC"], "ttl_s": 90.5}, (Rights.INFER | Rights.RPC, 90.5, None)),
    ],
)
async def test_token_is_made_as_asked_for_and_shown_once(
    body: dict[str, object], made: tuple[Rights, float, int | None]
) -> None:
    """201, with what it opens in words."""
    async with a_node() as (node, client):
        code, document = await send(client, "POST", "/api/tokens", body)

        assert (code, document["token"], document["uses"]) == (201, "meshllm1-made", made[2])
        assert str(document["meaning"]).startswith("lets a machine send requests")
        assert node.made == [made]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"rights": "root"}, "rights", "own, guest, client"),
        ({"rights": ["root"]}, "rights", "there is no right named 'root'"),
        ({"rights": []}, "rights", "of no use"),
        ({"rights": 5}, "rights", "list of strings"),
        ({"rights": [5]}, "rights", "has to be a string"),
        ({"rights": "\ud800"}, "rights", "lone surrogate"),
        ({"ttl_s": 1}, "ttl_s", "from 60 to 31536000"),
        ({"ttl_s": "1d"}, "ttl_s", "has to be a number"),
        ({"uses": 0}, "uses", "from 1 to 100000"),
        ({"uses": 1.5}, "uses", "whole number"),
        ({"uses": True}, "uses", "has to be a number"),
    ],
)
async def test_wrong_wish_is_refused_with_the_parameter(body: dict[str, object], param: str, words: str) -> None:
    """And no token is made."""
    async with a_node() as (node, client):
        code, document = await send(client, "POST", "/api/tokens", body)

        assert (code, document["error"]["param"]) == (400, param)
        assert words in document["error"]["message"]
        assert not node.made


async def test_tokens_are_listed_without_secrets() -> None:
    """The one that lasts longest first."""
    async with a_node() as (node, client):
        node.given = [a_token("11" * 8, expires_unix_s=5.0, uses_left=2), a_token("22" * 8)]

        code, document = await send(client, "GET", "/api/tokens")

        assert code == 200
        assert [(each["id"], each["uses_left"]) for each in document["tokens"]] == [("22" * 8, None), ("11" * 8, 2)]
        assert document["tokens"][1]["expires_in_s"] == 0
        assert set(document["tokens"][0]) == {
            "id", "rights", "meaning", "expires_unix_s", "expires_in_s", "uses_left", "made_by",
        }  # fmt: skip


async def test_token_is_revoked_by_its_id_or_the_beginning_of_it() -> None:
    """Ids are long; a beginning that could mean two is refused."""
    async with a_node() as (node, client):
        node.given = [a_token("aaaa1111"), a_token("aaaa2222"), a_token("bbbb3333")]

        assert await send(client, "DELETE", "/api/tokens/BBBB") == (200, {"revoked": "bbbb3333"})
        assert (await send(client, "DELETE", "/api/tokens/aaaa"))[0] == 409
        assert (await send(client, "DELETE", "/api/tokens/aaa"))[0] == 404
        assert (await send(client, "DELETE", "/api/tokens/bbbb3333"))[0] == 404
        assert [each.id for each in node.given] == ["aaaa1111", "aaaa2222"]
        assert await send(client, "POST", "/api/tokens/rotate") == (200, {"revoked": 2})


async def test_nodes_are_listed_with_their_mesh() -> None:
    """The same documents as in the status."""
    async with a_node() as (node, client):
        desk = a_member("desk")
        node.meet(desk)
        node.warm[desk.announcement.node] = 2

        code, document = await send(client, "GET", "/api/nodes")
        _, status = await send(client, "GET", "/api/status")

        assert code == 200
        assert [each["name"] for each in document["nodes"]] == ["a", "desk"]
        assert [each["lines"] for each in document["nodes"]] == [each["lines"] for each in status["members"]] == [0, 2]
        assert document["mesh"]["name"] == status["mesh"]["name"] == "home"
        assert [each["id"] for each in status["members"]] == [each["id"] for each in document["nodes"]]


@pytest.mark.parametrize("asked", ["desk", "DESK", "desk" + "2" * 48, "desk22"])
async def test_node_is_expelled_by_id_beginning_or_name(asked: str) -> None:
    """Whatever `mesh-llm nodes` shows can be typed."""
    async with a_node() as (node, client):
        node.meet(a_member("desk"), a_member("other"))

        answer = await send(client, "POST", f"/api/nodes/{asked}/revoke", {"reason": " sold "})

        assert answer == (200, {"revoked": "desk" + "2" * 48})
        assert node.expelled == [("desk" + "2" * 48, "sold")]


async def test_node_that_nobody_sees_is_expelled_by_its_whole_id() -> None:
    """The notebook that was stolen is not here."""
    async with a_node() as (node, client):
        code, _ = await send(client, "POST", f"/api/nodes/{'z' * 52}/revoke", {})

        assert (code, node.expelled) == (200, [("z" * 52, "")])


@pytest.mark.parametrize(
    ("asked", "body", "code"),
    [
        ("nobody", {}, 404), ("des", {}, 404), ("dup", {}, 409), ("a", {}, 400), ("desk", {"reason": 5}, 400),
        ("desk", {"reason": "x" * 201}, 400), ("desk", {"reason": "a\nb"}, 400), ("desk", None, 400),
        ("desk", [], 400), ("%00%0a", {}, 404),
    ],
)  # fmt: skip
async def test_nobody_is_expelled_by_mistake(asked: str, body: object, code: int) -> None:
    """Unknown, two of one name, this node itself, or a body that makes no sense."""
    async with a_node() as (node, client):
        node.meet(a_member("desk"), a_member("dup"), a_twin("dup"))

        status, document = await send(client, "POST", f"/api/nodes/{asked}/revoke", body)

        assert status == code
        assert document["error"]["message"]
        assert not node.expelled


def a_twin(name: str) -> Member:
    """Return another member of the same name."""
    member = a_member(name)
    return replace(member, announcement=replace(member.announcement, node=NodeId("t" * 52)))


@pytest.mark.parametrize(
    ("refused", "code"), [("no_mesh", 409), ("not_permitted", 403), ("unknown_token", 404), ("revoked", 409)]
)
async def test_what_the_node_may_not_do_is_refused_in_its_words(refused: str, code: int) -> None:
    """A guest's console has these buttons too."""
    async with a_node() as (node, client):
        node.given = [a_token("aaaa1111")]
        node.refusal = MeshRefusalError(refused, "it is so")
        orders: list[tuple[str, str, object]] = [
            ("POST", "/api/tokens", {}), ("POST", "/api/tokens/rotate", None),
            ("DELETE", "/api/tokens/aaaa1111", None), ("POST", f"/api/nodes/{'z' * 52}/revoke", {}),
        ]  # fmt: skip

        for method, path, body in orders:
            status, document = await send(client, method, path, body)
            assert (status, document["error"]["code"], document["error"]["message"]) == (code, refused, "it is so")


def test_bundles_are_those_of_the_core() -> None:
    """What `mesh-llm token --guest` means."""
    assert BUNDLES == {"own": OWN_MACHINE, "guest": GUEST, "client": CLIENT_ONLY}
