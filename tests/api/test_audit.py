"""Everything that is changed over HTTP is written down: who, what, before and after."""

from typing import Any

import pytest

from meshllm.api.audit import CALLER, CHANGES_NOTHING, READERS
from meshllm.api.deps import TokenFacts
from meshllm.api.routes import ROUTES
from meshllm.core.ids import NodeId, TokenId
from meshllm.core.intents import Verb
from meshllm.core.rights import OWN_MACHINE
from tests.api.node import Client, FakeNode, a_node
from tests.api.test_lifecycle import post
from tests.core.builders import a_member, a_spec, ready

Trail = pytest.LogCaptureFixture


@pytest.fixture
def trail(caplog: pytest.LogCaptureFixture) -> Trail:
    """Return what catches the records of the audit trail."""
    caplog.set_level("INFO", "meshllm.audit")
    return caplog


def said(trail: Trail) -> dict[str, Any]:
    """Return the fields of the newest line."""
    record: Any = trail.records[-1]
    assert (record.name, record.levelname, record.getMessage()) == ("meshllm.audit", "INFO", "admin change")
    return record.fields  # type: ignore[no-any-return]


@pytest.mark.rows("LOG-4")
def test_every_route_that_changes_something_is_in_the_trail() -> None:
    """A new one has to say what is read before and after it, or that it changes nothing."""
    changing = {route.handler for route in ROUTES if route.method != "GET"}

    assert changing == READERS.keys() | CHANGES_NOTHING
    assert not READERS.keys() & CHANGES_NOTHING


@pytest.mark.rows("LOG-4")
async def test_a_change_says_who_what_before_and_after(trail: Trail) -> None:
    """Who is as the front door says."""
    async with a_node() as (_, client):
        lines = {CALLER: "192.0.2.7 api_key", "User-Agent": "curl/8", "X-Request-ID": "r1"}
        await client.post("/routing/config", json={"strategy": "random"}, headers=lines)

    fields = said(trail)
    assert (fields["who"], fields["agent"], fields["request_id"]) == ("192.0.2.7 api_key", "curl/8", "r1")
    assert (fields["action"], fields["path"], fields["status"]) == ("change_routing", "/routing/config", 200)
    assert fields["said"] == {"strategy": "random"}
    assert (fields["before"]["strategy"], fields["before"]["version"]) == ("cache_aware", 0)
    assert (fields["after"]["strategy"], fields["after"]["version"]) == ("random", 1)


@pytest.mark.rows("LOG-4")
async def test_a_caller_without_a_right_is_in_the_trail(trail: Trail) -> None:
    """With what was tried."""
    async with a_node() as (_, client):
        await client.post("/mesh/drop", json={"model": "tiny"}, headers={CALLER: "127.0.0.1 stranger"})

    fields = said(trail)
    assert (fields["who"], fields["action"], fields["status"]) == ("127.0.0.1 stranger", "drop", 403)
    assert fields["before"] == fields["after"]


@pytest.mark.rows("LOG-4", "SEC-3")
async def test_a_refused_change_is_in_the_trail_too(trail: Trail) -> None:
    """Somebody tried, and nothing is different."""
    async with a_node() as (_, client):
        await post(client, "/quotas/tiny", hourly_token_limit=-1)
        refused = said(trail)
        await post(client, "/quotas/tiny", hourly_token_limit=10)

    assert (refused["status"], refused["model"], refused["before"]) == (400, "tiny", refused["after"])
    accepted = said(trail)
    assert accepted["before"]["quotas"]["hourly_token_limit"] == 0
    assert accepted["after"]["quotas"]["hourly_token_limit"] == 10


async def unload(node: FakeNode, client: Client) -> None:
    """Unload, and wait for the end of its engine."""
    answer = node.begin(post(client, "/v1/models/unload", model_id="tiny"))
    await node.asked(Verb.UNLOAD)
    node.finish_unload("tiny")
    await answer


async def load(node: FakeNode, client: Client) -> None:
    """Load, and wait until it answers."""
    answer = node.begin(post(client, "/v1/models/reload", model_id="other"))
    await node.asked(Verb.LOAD)
    node.tell(ready("other"))
    await answer


async def default(_: FakeNode, client: Client) -> None:
    """Choose another default."""
    await post(client, "/v1/models/default", model_id="other")


async def register(_: FakeNode, client: Client) -> None:
    """Register a version."""
    await client.post("/v1/models/register", json={"id": "phi", "version": "1.0.0", "path": "/models/tiny.gguf"})


async def revoke(_: FakeNode, client: Client) -> None:
    """Revoke a token."""
    await client.delete("/api/tokens/aaaa")


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (unload, {"state": "ready", "wanted": True}, {"state": "stopped", "wanted": False}),
        (load, {"state": "stopped", "wanted": False}, {"state": "ready", "wanted": True}),
        (default, "tiny", "other"),
        (register, [], ["1.0.0 sha256:tiny"]),
        (revoke, ["aaaa1111", "bbbb3333"], ["bbbb3333"]),
    ],
)
async def test_each_kind_of_change_shows_what_it_is_about(
    change: Any, before: Any, after: Any, trail: list[Any]
) -> None:
    """Not the whole node: what was changed."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("tiny",)) as (node, client):
        for name in ("aaaa1111", "bbbb3333"):
            facts = TokenFacts(
                id=TokenId(name), rights=OWN_MACHINE, expires_unix_s=0.0, uses_left=None, made_by=NodeId("a")
            )  # fmt: skip
            node.given.append(facts)
        await change(node, client)

    fields = said(trail)
    for found, wanted in ((fields["before"], before), (fields["after"], after)):
        assert ({key: found[key] for key in wanted} if isinstance(wanted, dict) else found) == wanted


async def test_what_only_looks_is_not_in_the_trail(trail: Trail) -> None:
    """Whatever its method."""
    async with a_node() as (_, client):
        await post(client, "/v1/models/status", model_id="tiny")
        await client.get("/routing/config")

    assert trail.records == []


async def test_a_member_is_named_with_what_it_was(trail: Trail) -> None:
    """An expulsion is for good: the trail has to say of whom."""
    async with a_node() as (node, client):
        other = a_member("other")
        node.meet(other)
        await post(client, f"/api/nodes/{other.announcement.node}/revoke", reason="lost")

    assert said(trail)["before"] == {other.announcement.node: "alive"}
    assert said(trail)["said"] == {"reason": "lost"}
