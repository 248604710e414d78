"""`GET /api/settings`: what is in force, and whether anybody watches."""

import pytest

from tests.api.node import a_node


@pytest.mark.rows("SEC-3")
async def test_settings_are_told_with_how_often_metrics_were_read() -> None:
    """`doctor --production` judges by both. A scrape that was refused is none."""
    async with a_node() as (node, client):
        node.settings = {"log_level": "debug", "api_key": "(set)"}
        before = await (await client.get("/api/settings")).json()
        for path, status in (("/metrics", 200), ("/metrics?scope=mesh", 200), ("/metrics?scope=moon", 400)):
            assert (await client.get(path)).status == status

        after = await (await client.get("/api/settings")).json()

        assert before == {"settings": {"log_level": "debug", "api_key": "(set)"}, "metrics_read": 0}
        assert after["metrics_read"] == 2
