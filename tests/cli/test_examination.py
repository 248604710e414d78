"""What `doctor` asks of a node, and what becomes of the answers."""

import socket
from pathlib import Path

import pytest

from meshllm.cli import standalone
from meshllm.cli.examination import Examination
from meshllm.cli.failures import CommandError
from meshllm.config import Config
from meshllm.core.doctor.discovery import Search
from meshllm.core.doctor.findings import Finding, Result
from tests.cli.scripted import Answer, ScriptedNode, a_scripted_node, document

STATUS = "GET /api/status"
SETTINGS = {"host": "127.0.0.1", "max_vram": "90%", "load_timeout_s": 300, "models_dirs": ["/theirs"]}
ON_DISK = Search(asked="late", folders=("/theirs",), found="late", path="/theirs/late.gguf")
NOWHERE = Search(asked="nope", folders=("/theirs",))


@pytest.fixture(autouse=True)
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Let the folders have one model, and keep by which settings they were looked at."""
    configs: list[Config] = []

    def search(config: Config, asked: str) -> Search:
        configs.append(config)
        return ON_DISK if asked == "late" else NOWHERE

    port = Finding(name="port", result=Result.NOTE, message="held by process 7")
    monkeypatch.setattr(standalone, "checks", lambda _: (port,))
    monkeypatch.setattr(standalone, "search", search)
    return configs


def with_settings(node: ScriptedNode) -> ScriptedNode:
    """Let a node tell its settings, and take a rescan."""
    node.answers |= {
        "GET /api/settings": (200, {"settings": SETTINGS, "metrics_read": 1}),
        "POST /v1/models/rescan": (202, {"status": "rescanning"}),
    }
    return node


def examined(node: ScriptedNode) -> Examination:
    """Look at a node."""
    return Examination({"port": node.port})


def by_name(found: list[Finding], model: str = "") -> dict[str, Finding]:
    """Return the findings about a model, or about none, by name."""
    return {one.name: one for one in found if one.model == model}


@pytest.mark.rows("OPS-5", "OPS-1")
def test_a_node_in_trouble_is_told_with_what_is_missed_and_what_does_not_load() -> None:
    """Each model that is stuck, each name that stands for nothing; its own port is no news."""
    with a_scripted_node("troubled") as node:
        found = examined(with_settings(node)).everything()

    assert by_name(found)["node"].result is Result.OK
    assert "port" not in by_name(found)
    assert by_name(found, "bad")["file integrity"].message == "it is broken"
    assert by_name(found, "shaky")["another try"].result is Result.NOTE
    assert by_name(found, "nope")["location"].result is Result.FAIL
    assert {"full precision", "model sizes", "prompt caches"} <= set(by_name(found))
    assert by_name(found, "shaky")["health"].result is Result.WARN


def test_folders_are_those_of_the_node(node: ScriptedNode, looked: list[Config]) -> None:
    """Not those of whoever asks."""
    examined(with_settings(node)).model("nope")

    assert looked[0].models_dirs == (Path("/theirs"),)


@pytest.mark.rows("OPS-1")
def test_the_node_is_asked_to_look_again_and_to_list_what_it_found(node: ScriptedNode) -> None:
    """What it lists only then is waited for."""
    status = document("serving")
    listed = {**status, "models": [*status["models"], {"id": "late", "phase": "unloaded"}]}  # type: ignore[misc]
    answers: list[Answer] = [(200, status), (200, listed)]
    with_settings(node).answers |= {
        STATUS: lambda: answers.pop(0),
        "GET /api/events": (200, "event: changes\ndata: 1\n\n"),
    }

    found = by_name(examined(node).model("late"), "late")

    assert found["rescan"].result is Result.OK
    assert ("POST /v1/models/rescan", {}) in node.asked
    assert found["memory"].result is Result.OK


def test_a_node_that_does_not_list_it_in_time_is_said_to(node: ScriptedNode) -> None:
    """The stream of changes ends without it."""
    with_settings(node).answers |= {"GET /api/events": (200, "event: status\ndata: 1\n\n")}

    assert by_name(examined(node).model("late"), "late")["rescan"].result is Result.FAIL


@pytest.mark.rows("OPS-6", "OPS-9")
def test_quotas_health_and_hints_are_asked_for() -> None:
    """The words of the node are passed on."""
    status = document("serving")
    models = [
        {"id": "huge", "size_bytes": 10**10, "quantization": "F16", "wanted": True, "health_status": "degraded"},
        {"id": "small", "size_bytes": 10**8, "quantization": "Q4_1", "wanted": True, "health_status": "healthy"},
    ]
    with a_scripted_node() as node:
        with_settings(node).answers |= {
            STATUS: (200, {**status, "machine": {"memory_total_bytes": 16 * 10**9}, "models": models}),
            "GET /quotas/huge": (200, {"quotas": {"max_ram_mb": 100}}),
            "GET /v1/models/huge/health": (200, {"nodes": [{"reason": "2 of 9 requests failed"}]}),
            "GET /cache/stats": (200, {"hints": ["9 caches were emptied for others in the last hour"]}),
        }

        found = examined(node).everything()

    assert by_name(found, "huge")["full precision"].result is Result.WARN
    assert by_name(found, "huge")["health"].message == "degraded: 2 of 9 requests failed"
    assert "for small" in by_name(found)["model sizes"].advice
    assert by_name(found)["prompt caches"].message.startswith("9 caches")


@pytest.mark.rows("OPS-9")
def test_tunables_have_the_values_of_the_node(node: ScriptedNode) -> None:
    """Quotas of those models that have some."""
    with_settings(node).answers |= {
        "GET /routing/config": (200, {"strategy": "random"}),
        "GET /cache/allocation": (200, {"global_cache_size_gb": 5}),
        "GET /cache/stats": (200, {"global": {"hit_rate": 0.5, "evictions": 3}}),
        "GET /quotas/tiny": (200, {"quotas": {"hourly_token_limit": 9}, "soft_limits": [1, 2, 3, 4]}),
    }

    found = {one.name: one.value for one in examined(node).tunables()}

    assert found["routing: strategy"] == "random"
    assert found["cache: global_cache_size_gb"] == 5
    assert (found["cache: hit rate"], found["cache: evictions since the start"]) == (0.5, 3)
    assert found["quotas of tiny: soft_limits"] == [1, 2, 3, 4]
    assert not [name for name in found if name.startswith("quotas of") and "tiny" not in name]


def test_tunables_show_the_quotas_that_a_model_could_have(node: ScriptedNode) -> None:
    """Where none has any."""
    with_settings(node).answers |= {
        "GET /routing/config": (200, {}), "GET /cache/allocation": (200, {}), "GET /cache/stats": (200, {}),
    }  # fmt: skip

    assert "quotas of MODEL: soft_limits" in {one.name for one in examined(node).tunables()}


def test_a_model_of_an_adopted_server_is_not_loaded_here() -> None:
    """Its server is named."""
    status = {**document("serving"), "models": [{"id": "far", "kind": "adopted", "server": "box"}]}
    with a_scripted_node() as node:
        with_settings(node).answers[STATUS] = (200, status)

        found = by_name(examined(node).model("far"), "far")

    assert found == by_name([Finding(
        name="loading", result=Result.NOTE, message="the server box has it, which nobody here loads", model="far"
    )], "far")  # fmt: skip


def test_a_node_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is still looked at."""
    monkeypatch.setattr("meshllm.cli.api_client.NODE_ANSWER_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = by_name(Examination({"port": silent.getsockname()[1]}).everything())

    assert found["node"].result is Result.FAIL
    assert "does not answer" in found["node"].message
    assert found["port"].result is Result.NOTE


def test_an_engine_that_cannot_run_is_a_finding() -> None:
    """The node answers all the same."""
    with a_scripted_node("no_engine") as node:
        found = by_name(examined(with_settings(node)).everything())

    assert found["node's engine"].result is Result.FAIL


def test_a_node_that_wants_a_key_says_so(node: ScriptedNode) -> None:
    """Nothing is guessed without it."""
    node.answers[STATUS] = (401, {"error": {"message": "key"}})

    with pytest.raises(CommandError, match="API key"):
        examined(node)
