"""Who may scrape, in which format, and what that costs those who never do."""

import subprocess
import sys

from tests.api.node import a_node

WITHOUT = "import sys, meshllm.api.app; sys.exit('prometheus_client' in sys.modules)"


async def test_a_scraper_gets_the_format_that_it_asks_for_every_time() -> None:
    """The registry is made once."""
    async with a_node() as (_, client):
        plain = await client.get("/metrics")
        again = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

        assert plain.headers["Content-Type"].startswith("text/plain")
        assert again.headers["Content-Type"].startswith("application/openmetrics-text")
        assert "meshllm_uptime_seconds" in await again.text()


async def test_details_that_nobody_measures_are_refused_with_what_to_do() -> None:
    """And the next scrape is answered."""
    async with a_node() as (_, client):
        refused = await client.get("/metrics?detailed=true")
        plain = await client.get("/metrics?detailed=false")

        assert (refused.status, plain.status) == (403, 200)
        assert "--profile" in (await refused.json())["error"]["message"]


def test_a_node_that_nobody_scrapes_does_not_load_what_scraping_takes() -> None:
    """Three megabytes of an idle daemon's eighty."""
    assert subprocess.run([sys.executable, "-c", WITHOUT], check=False).returncode == 0
