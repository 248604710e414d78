"""How requests are routed, over HTTP: the configuration, the numbers, and why a request would go where."""

import json
import os
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest

from meshllm.core.announcement import DiskModel
from meshllm.core.events import RightsGranted
from meshllm.core.ids import ModelId
from meshllm.core.limits import GIB
from meshllm.core.rights import GUEST
from meshllm.core.routing.explain import Decision
from meshllm.core.routing.route_memory import Ask
from meshllm.core.routing_config import DEFAULT, Strategy
from tests.api.node import Client, FakeNode, a_node
from tests.api.test_lifecycle import post
from tests.core.builders import a_member, a_spec
from tests.core.routing.routed import a_candidate

PATH = "/routing/config"
DOCUMENTS = Path(__file__).parent / "documents" / "routing"
PLAIN = {
    "strategy": "cache_aware", "model_strategy": "least_loaded", "enable_health_checks": True,
    "enable_quota_checks": True, "enable_cache_optimization": True, "max_load_threshold": 0.85,
    "min_cache_hit_rate": 0.3, "affinity_timeout_sec": 300, "max_retries": 3, "retry_delay_ms": 100,
    "unknown_model": "reject", "ab_test_enabled": False, "ab_test_split": 0.5, "ab_test_model_a": None,
    "ab_test_model_b": None, "weights": {}, "shadow": [], "scope": "mesh", "version": 0,
}  # fmt: skip


async def got(client: Client, path: str) -> tuple[int, dict[str, object]]:
    """Return what a path answers."""
    answer = await client.get(path)
    return answer.status, await answer.json()


def decide(node: FakeNode, request_id: str, *hosts: str) -> Decision:
    """Let the front door's memory choose among hosts, as for a request."""
    candidates = [a_candidate(host, model=ModelId("tiny")) for host in hosts]
    decision = node.routes.choose(candidates, Ask(request_id=request_id), DEFAULT, 1.0)
    node.routes.decisions.add(decision, 5e-6)
    node.routes.stats.decided(decision.strategy, 5e-6)
    node.routes.stats.ended("tiny", hosts[0], is_ok=True)
    return decision


@pytest.mark.rows("RTE-12")
async def test_the_configuration_is_the_document_of_the_specification() -> None:
    """Every key of it, with its default."""
    async with a_node() as (_, client):
        status, document = await got(client, PATH)

        assert status == HTTPStatus.OK
        assert document.items() >= PLAIN.items()


@pytest.mark.rows("RTE-13")
async def test_a_change_answers_with_the_whole_and_raises_the_version() -> None:
    """A person posts one key."""
    async with a_node() as (_, client):
        assert await post(client, PATH, ab_test_enabled=False) == (200, (await got(client, PATH))[1])
        status, document = await post(client, PATH, strategy="round_robin", max_retries=1)

        assert (status, document["strategy"], document["max_retries"]) == (200, "round_robin", 1)
        assert (document["scope"], document["version"]) == ("mesh", 2)
        assert (await got(client, PATH))[1] == document


@pytest.mark.rows("CFG-19")
async def test_keys_below_routing_config_mean_the_same() -> None:
    """Examples of other programs nest them."""
    async with a_node() as (_, client):
        flat = await post(client, PATH, strategy="random")
        nested = await post(client, PATH, routing_config={"strategy": "random"})

        assert flat[1]["strategy"] == nested[1]["strategy"] == "random"


@pytest.mark.rows("RTE-22")
async def test_ab_test_as_a_strategy_compares_two_models() -> None:
    """Within each variant, hosts are chosen as before."""
    async with a_node() as (_, client):
        status, document = await post(client, PATH, strategy="ab_test", ab_test_model_a="tiny", ab_test_model_b="other")

        assert (status, document["ab_test_enabled"], document["strategy"]) == (200, True, "cache_aware")


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"strategy": "fastest"}, 400, "invalid_strategy", "strategy"),
        ({"max_load_threshold": 2}, 400, "invalid_value", "max_load_threshold"),
        ({"weights": {"a": -1}}, 400, "invalid_value", "weights.a"),
        ({"stratgy": "random", "retries": 2}, 400, "unknown_key", "stratgy"),
        ({"strategy": "random", "version": 7}, 409, "version_conflict", "version"),
        ({"version": [1]}, 400, "invalid_value", "version"),
        ({"scope": {"a": 1}}, 400, "invalid_value", "scope"),
        ({"weights": {"x" * 70_000: 1}}, 413, "body_too_large", None),
    ],
)
async def test_a_bad_change_is_named_and_nothing_of_it_is_taken(
    body: dict[str, object], status: int, code: str, param: str | None
) -> None:
    """The next good one is."""
    async with a_node() as (_, client):
        body = {"enable_health_checks": False, **body}
        found, document = await post(client, PATH, **body)

        assert (found, document["error"]["code"], document["error"]["param"]) == (status, code, param)  # type: ignore[index]
        assert (await got(client, PATH))[1]["version"] == 0
        assert (await post(client, PATH, enable_health_checks=False))[1]["version"] == 1


async def test_unknown_keys_are_all_named() -> None:
    """So that one look mends them."""
    async with a_node() as (_, client):
        _, document = await post(client, PATH, stratgy="random", retries=2)

        assert "'stratgy', 'retries'" in document["error"]["message"]  # type: ignore[index]


async def test_a_node_that_may_not_administer_chooses_for_itself() -> None:
    """Without a scope, and never for the mesh."""
    async with a_node() as (node, client):
        node.tell(RightsGranted(rights=GUEST))

        refused, document = await post(client, PATH, strategy="random", scope="mesh")
        status, own = await post(client, PATH, strategy="random")

        assert (refused, document["error"]["code"]) == (403, "not_allowed")  # type: ignore[index]
        assert (status, own["scope"], own["version"]) == (200, "node", 0)


@pytest.mark.rows("RTE-18")
async def test_statistics_are_the_same_on_both_paths() -> None:
    """With all eight strategies and the alias; the total is what succeeded and what failed."""
    async with a_node() as (node, client):
        decide(node, "r1", "studio", "attic")
        node.routes.stats.ended("tiny", "", is_ok=False, is_fallback=True)

        status, document = await got(client, "/routing/stats")

        assert (status, document) == await got(client, "/metrics/routing")
        assert document == {
            "total_routes": 2, "successful_routes": 1, "failed_routes": 1, "fallback_routes": 1,
            "affinity_rebinds": 0, "avg_routing_time_us": 5.0,
            "per_strategy": dict.fromkeys([*Strategy, "affinity"], 0) | {"cache_aware": 1},
        }  # fmt: skip


@pytest.mark.rows("RTE-19")
async def test_detailed_statistics_have_times_picks_and_decisions() -> None:
    """The newest hundred, with the score of each candidate."""
    async with a_node() as (node, client):
        for number in range(120):
            decide(node, f"r{number}", "studio", "attic")

        _, document = await got(client, "/metrics/routing?detailed=true")

        assert document["routing_time_us"]["5"] == 120  # type: ignore[index]
        assert (document["per_model"], document["per_node"]) == ({"tiny": 120}, {"studio": 120})
        decisions = document["decisions"]
        assert isinstance(decisions, list)
        assert (len(decisions), decisions[0]["request_id"], decisions[-1]["request_id"]) == (100, "r119", "r20")
        assert {one["candidate"]: one["score"] for one in decisions[0]["candidates"]} == {"attic": 0.6, "studio": 0.6}


async def test_explain_says_where_a_request_would_go_and_why_not_elsewhere() -> None:
    """Nothing is sent, nothing is remembered."""
    far = a_member("attic", models=("tiny",))
    disk = (DiskModel(model=ModelId("tiny"), digest="sha256:tiny", size_bytes=1),)
    other = replace(a_member("cellar"), announcement=replace(a_member("cellar").announcement, models_on_disk=disk))
    async with a_node() as (node, client):
        node.meet(far, other)

        status, document = await got(client, "/api/explain?model=TINY")

        assert status == HTTPStatus.OK
        me = node.views.newest.me.node
        assert (document["model_id"], document["picked"], document["strategy"]) == ("tiny", me, "cache_aware")
        candidates = document["candidates"]
        assert isinstance(candidates, list)
        assert [(one["node"], one["here"]) for one in candidates] == [("a", True), ("attic", False)]
        assert document["rejected"] == [
            {"candidate": other.announcement.node, "node": "cellar", "why": "has the file and does not serve it"}
        ]
        assert (document["decisions"], document["waits"], document["code"]) == ([], False, None)
        assert len(node.routes.decisions) == 0


async def test_explain_says_what_a_request_would_be_told_that_goes_nowhere() -> None:
    """It waits, or is refused with a code."""
    async with a_node(a_spec("tiny"), a_spec("other")) as (_, client):
        _, cold = await got(client, "/api/explain?model=other")
        _, narrow = await got(client, "/api/explain?model=tiny&tokens=999999")

        assert (cold["waits"], cold["picked"]) == (True, None)
        assert "other" in str(cold["message"])
        assert (narrow["code"], narrow["picked"]) == ("context_length_exceeded", None)
        assert "too small for 999999" in str(narrow["rejected"])


async def test_explain_says_what_would_become_of_a_model_that_fits_nowhere() -> None:
    """What is in the way of a split, node by node; and nothing of models that fit."""
    async with a_node(a_spec("tiny"), a_spec("huge", size_bytes=900 * GIB)) as (_, client):
        _, tiny = await got(client, "/api/explain?model=tiny")
        _, huge = await got(client, "/api/explain?model=huge")

        assert tiny["split"] is None
        split = huge["split"]
        assert isinstance(split, dict)
        assert (split["possible"], split["runs"]) == (False, False)
        assert split["message"].startswith("no split: ")
        assert [(one["node"], one["lack"]) for one in split["nodes"]] == [("a", "no_rpc")]


async def test_explain_has_what_was_decided_of_a_model_and_of_a_request() -> None:
    """The newest first."""
    async with a_node() as (node, client):
        decide(node, "r1", "studio")
        decide(node, "r2", "attic")

        _, of_model = await got(client, "/api/explain?model=tiny")
        _, of_all = await got(client, "/api/explain")
        _, newest = await got(client, "/api/explain?model=tiny&count=1")
        _, one = await got(client, "/api/explain?request=r1")

        for document in (of_model, of_all):
            decisions = document["decisions"]
            assert isinstance(decisions, list)
            assert [each["request_id"] for each in decisions] == ["r2", "r1"]
        assert len(newest["decisions"]) == 1  # type: ignore[arg-type]
        assert (one["request_id"], one["decisions"][0]["picked"]) == ("r1", "studio")  # type: ignore[index]


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [("model=tinny", 404, "model"), ("request=r9", 404, "request"), ("model=tiny&tokens=many", 400, "tokens")],
)
async def test_a_question_about_nothing_is_refused(query: str, status: int, param: str) -> None:
    """With the part that is wrong."""
    async with a_node() as (_, client):
        found, document = await got(client, f"/api/explain?{query}")

        assert (found, document["error"]["param"]) == (status, param)  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "path"),
    [("config", PATH), ("stats", "/routing/stats?detailed=true"), ("explain", "/api/explain")],
)
async def test_document_is_the_one_that_the_console_knows(name: str, path: str) -> None:
    """A change of shape has to be seen by both sides; `MESHLLM_REWRITE_DOCUMENTS=1` writes the files anew."""
    async with a_node() as (node, client):
        decide(node, "r1", "studio", "attic")
        _, document = await got(client, path)
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    file = DOCUMENTS / f"{name}.json"

    if os.environ.get("MESHLLM_REWRITE_DOCUMENTS"):
        DOCUMENTS.mkdir(exist_ok=True)
        file.write_text(text)

    assert file.read_text() == text
