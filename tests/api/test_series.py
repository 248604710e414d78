"""What Prometheus reads."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshllm.core.events import RemoteProbed, ResourcesMeasured, TrafficMeasured, Woke
from meshllm.core.health import FIRST_TOKEN_STEPS_S
from meshllm.core.ids import ModelId
from meshllm.core.remotes import ListedModel, RemoteBackend
from meshllm.core.routing_config import Strategy
from meshllm.core.standing import MemberState
from meshllm.daemon.profile import Profile
from tests.api.node import a_node
from tests.api.scraped import scraped
from tests.core.builders import a_gpu, a_machine, a_member


@pytest.mark.rows("MET-1")
async def test_metrics_tell_what_the_view_and_the_front_door_know() -> None:
    """MET-1: and they parse."""
    async with a_node() as (node, client):
        node.flying[ModelId("tiny")] = 2
        node.tell(ResourcesMeasured(resources=a_machine(gpus=(a_gpu(),))))

        answer = await client.get("/metrics")
        families = list(text_string_to_metric_families(await answer.text()))
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value for f in families for sample in f.samples
        }

        assert answer.headers["Content-Type"].startswith("text/plain")
        assert samples["meshllm_model_phase", "ready", "tiny"] == 1
        assert samples["meshllm_model_phase", "loading", "tiny"] == 0
        assert samples["meshllm_model_in_flight", "tiny"] == 2
        assert samples["meshllm_requests_total",] == 7
        assert samples["meshllm_refused_body_too_large_total",] == 1
        assert samples["meshllm_gpu_memory_bytes", "0", "GPU", "free"] > 0
        assert all(family.name.startswith(("meshllm_", "nopenai_")) for family in families)


@pytest.mark.rows("MET-1")
async def test_scraper_may_ask_for_openmetrics() -> None:
    """By its Accept header."""
    async with a_node() as (_, client):
        answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (await answer.text()).endswith("# EOF\n")


async def test_lines_are_told_of_peers_that_are_reached() -> None:
    """Those without one have none; this node and those that are gone are no peers."""
    async with a_node() as (node, client):
        desk, shed, attic = a_member("desk"), a_member("shed"), a_member("attic", state=MemberState.DEAD)
        node.meet(desk, shed, attic)
        node.warm[desk.announcement.node] = 2
        found = await scraped(client, "/metrics")

    told = {(one.labels["node"], one.labels["name"]): one.value for one in found if one.name == "meshllm_lines"}
    assert told == {(desk.announcement.node, "desk"): 2, (shed.announcement.node, "shed"): 0}


async def test_an_adopted_server_and_its_models_can_be_told_apart() -> None:
    """By kind, and by whether it answers."""
    box = (RemoteBackend(name="box", base_url="http://h"), RemoteBackend(name="gone", base_url="http://g"))
    async with a_node(adopts=box) as (node, client):
        node.tell(RemoteProbed(server="box", models=(ListedModel(name="qwen"),)))

        families = text_string_to_metric_families(await (await client.get("/metrics")).text())
        samples = [sample for family in families for sample in family.samples]

        kinds = {s.labels["model"]: s.labels["kind"] for s in samples if s.name == "meshllm_model_kind"}
        up = {s.labels["server"]: s.value for s in samples if s.name == "meshllm_server_up"}
        assert kinds == {"tiny": "engine", "qwen": "adopted"}
        assert up == {"box": 1.0, "gone": 0.0}


@pytest.mark.rows("CLI-21")
async def test_what_takes_how_long_is_shown_where_it_is_measured() -> None:
    """By phase; a node that was not told to measure says how to."""
    async with a_node() as (node, client):
        refused = await client.get("/metrics?detailed=true")
        node.profile = Profile()
        node.profile.consumed(Woke(), 0.5e-6, 3e-6)
        node.profile.consumed(TrafficMeasured(finished=(), first_tokens=((ModelId("tiny"), ((5, 2),)),)), 1e-3, 0.0)

        answer = await client.get("/metrics?detailed=true")
        families = list(text_string_to_metric_families(await answer.text()))
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value for f in families for sample in f.samples
        }
        plain = await (await client.get("/metrics")).text()

        assert (refused.status, (await refused.json())["error"]["code"]) == (403, "profiling_disabled")
        assert samples["meshllm_phase_seconds_bucket", "1e-06", "Woke", "decide"] == 1
        assert samples["meshllm_phase_seconds_bucket", "1e-06", "Woke", "carry_out"] == 0
        assert samples["meshllm_phase_seconds_bucket", "+Inf", "Woke", "carry_out"] == 1
        assert samples["meshllm_phase_seconds_count", "first_token", "tiny"] == 2
        assert samples["meshllm_phase_seconds_sum", "first_token", "tiny"] == pytest.approx(2 * FIRST_TOKEN_STEPS_S[5])
        assert samples["meshllm_uptime_seconds",] >= 0
        assert "phase_seconds" not in plain


@pytest.mark.rows("MET-2")
async def test_choices_of_hosts_are_counted_and_timed() -> None:
    """By strategy, as a histogram; and by the names that older dashboards ask for."""
    async with a_node() as (node, client):
        for took_s in [8e-6] * 99 + [4e-3]:
            node.routes.stats.decided(Strategy.CACHE_AWARE, took_s)

        text = await (await client.get("/metrics")).text()
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples
        }  # fmt: skip

        for prefix in ("meshllm", "nopenai"):
            assert samples[f"{prefix}_routing_total", "cache_aware"] == 100
            assert samples[f"{prefix}_routing_total", "random"] == 0
            assert samples[f"{prefix}_routing_duration_seconds_count",] == 100
            assert round(samples[f"{prefix}_routing_duration_seconds_sum",], 6) == 99 * 8e-6 + 4e-3
        assert samples["meshllm_routing_duration_seconds_bucket", "1e-05"] == 99
        assert samples["meshllm_routing_duration_seconds_bucket", "+Inf"] == 100
        assert samples["nopenai_routing_duration_seconds", "0.99"] == 1e-5


async def test_a_quantile_of_nothing_or_beyond_all_bounds_is_a_number() -> None:
    """A dashboard draws it."""
    async with a_node() as (node, client):
        line = 'nopenai_routing_duration_seconds{quantile="0.99"}'
        assert f"{line} 0.0\n" in await (await client.get("/metrics")).text()

        node.routes.stats.decided(Strategy.RANDOM, 1.0)

        assert f"{line} 0.005\n" in await (await client.get("/metrics")).text()
