"""Quotas over HTTP: shown, changed, reported."""

import pytest

from meshllm.core.events import RightsGranted
from meshllm.core.ids import ModelId
from meshllm.core.quotas.kinds import Admitted, Wanted
from meshllm.core.rights import GUEST
from tests.api.node import Client, FakeNode, a_node
from tests.api.test_lifecycle import post
from tests.api.test_routing import got

TINY = ModelId("tiny")
PATH = "/quotas/tiny"


def use(node: FakeNode, tokens: int) -> None:
    """Let a request use so many tokens."""
    metering = node.metering
    metering.hear()
    verdict = metering.ledger.ask(TINY, Wanted(), metering.clock())
    assert isinstance(verdict, Admitted)
    metering.settled(verdict.charge, tokens)


@pytest.mark.rows("QTA-10")
async def test_limits_are_shown_and_changed_one_by_one() -> None:
    """A change answers with the whole and raises the version; a name that nothing has is none."""
    async with a_node() as (_, client):
        status, before = await got(client, PATH)
        assert (status, before["version"], before["timezone"]) == (200, 0, "UTC")

        first = await post(client, PATH, quotas={"hourly_token_limit": 1000})
        status, second = await post(client, PATH, daily_token_limit=5000, on_limit="queue", version=1)

        assert (first[0], status, second["version"], second["on_limit"]) == (200, 200, 2, "queue")
        inner: dict[str, object] = second["quotas"]  # type: ignore[assignment]
        assert (inner["hourly_token_limit"], inner["daily_token_limit"]) == (1000, 5000)
        assert await got(client, PATH) == (200, second)
        for path in ("/quotas/none", "/quotas/none/report"):
            status, document = await got(client, path)
            assert (status, document["error"]["code"]) == (404, "model_not_found")  # type: ignore[index]
        assert (await post(client, "/quotas/none", hourly_token_limit=1))[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"hourly_token_limit": -1}, 400, "invalid_value", "hourly_token_limit"),
        ({"hourly_tokens": 1}, 400, "unknown_key", "hourly_tokens"),
        ({"hourly_token_limit": 1, "version": 9}, 409, "version_conflict", "version"),
        ({"x" * 20_000: 1}, 413, "body_too_large", None),
    ],
)
async def test_a_bad_change_is_named_and_nothing_of_it_is_taken(
    body: dict[str, object], status: int, code: str, param: str | None
) -> None:
    """The next good one is."""
    async with a_node() as (_, client):
        found, document = await post(client, PATH, **body)

        assert (found, document["error"]["code"], document["error"]["param"]) == (status, code, param)  # type: ignore[index]
        assert (await post(client, PATH, hourly_token_limit=1))[1]["version"] == 1


async def test_names_that_stand_for_others_are_not_limited() -> None:
    """Nor may a guest limit anything."""
    async with a_node() as (node, client):
        assert (await post(client, "/quotas/default", hourly_token_limit=1))[0] == 400
        assert (await got(client, "/quotas/default"))[1]["model_id"] == "tiny"

        node.tell(RightsGranted(rights=GUEST))

        assert (await post(client, PATH, hourly_token_limit=1))[0] == 403


@pytest.mark.rows("MET-7")
async def test_reports_of_all_models_are_in_one_place() -> None:
    """In detail with the limits themselves."""
    async with a_node() as (node, client):
        assert await got(client, "/metrics/quotas") == (200, {"per_model": {}})
        await post(client, PATH, hourly_token_limit=1000)
        use(node, 675)

        plain, detailed = [await got(client, f"/metrics/quotas{query}") for query in ("", "?detailed=true")]

        report = (await got(client, f"{PATH}/report"))[1]
        assert report["windows"]["hourly_tokens"]["percent"] == 67.5  # type: ignore[index]
        assert plain[1] == {"per_model": {"tiny": report}}
        assert detailed[1]["per_model"]["tiny"]["quotas"]["hourly_token_limit"] == 1000  # type: ignore[index]


@pytest.mark.rows("MET-5")
async def test_scrapers_see_how_much_is_used_and_left() -> None:
    """By the names that older dashboards ask for."""
    async with a_node() as (node, client):
        await post(client, PATH, hourly_token_limit=1000, max_concurrent_requests=4)
        use(node, 675)

        text = await _scraped(client)

        assert 'nopenai_quota_usage_percent{model="tiny",type="hourly"} 67.5' in text
        assert 'nopenai_quota_usage_percent{model="tiny",type="concurrent"} 0.0' in text
        assert 'nopenai_quota_remaining_tokens{model="tiny"} 325.0' in text


@pytest.mark.rows("QTA-7")
@pytest.mark.parametrize(
    ("tokens", "mode"),
    [(799, "normal"), (800, "soft_limit"), (900, "throttled"), (1000, "hard_limit"), (0, "emergency")],
)
async def test_how_near_to_its_limits_a_model_is_has_a_name(tokens: int, mode: str) -> None:
    """In the report, and as a series."""
    async with a_node() as (node, client):
        await post(client, PATH, hourly_token_limit=1000)
        if tokens:
            use(node, tokens)
        else:
            await post(client, PATH, emergency=True)

        assert (await got(client, f"{PATH}/report"))[1]["mode"] == mode
        assert f'meshllm_quota_mode{{mode="{mode}",model="tiny"}} 1.0' in await _scraped(client)


async def _scraped(client: Client) -> str:
    answer = await client.get("/metrics")
    return await answer.text()
