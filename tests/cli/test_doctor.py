"""`doctor`: its lines, its JSON, its exit codes."""

import json

import pytest

from meshllm.cli import standalone
from meshllm.core.doctor.discovery import Search
from meshllm.core.doctor.findings import Finding, Result
from meshllm.core.limits import all_limits
from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode

FINE = Finding(name="port", result=Result.OK, message="9337 is free")
NOTE = Finding(name="GPU", result=Result.NOTE, message="none")
BAD = Finding(name="engine", result=Result.FAIL, message="does not start", advice="reinstall")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """Let this machine be well; what a test adds is wrong with it."""
    found = [FINE, NOTE]
    monkeypatch.setattr(standalone, "checks", lambda _: tuple(found))
    monkeypatch.setattr(standalone, "search", lambda _, asked: Search(asked=asked, folders=("/models",)))
    return found


def test_doctor_prints_findings_and_fails_on_bad_ones(shell: Shell, machine: list[Finding]) -> None:
    """Its exit code is a check of its own."""
    good = shell("doctor")
    machine.append(BAD)
    bad = shell("doctor")

    assert (good, bad) == (0, 1)
    assert "does not start: reinstall" in shell.out
    assert shell.err == "mesh-llm: not well: engine\n"
    assert "none runs at 127.0.0.1:9337" in shell.out


def test_findings_are_to_be_had_as_json(shell: Shell, machine: list[Finding]) -> None:
    """With result, advice and model of each; the exit code stays."""
    machine.append(BAD)

    assert shell("doctor", "--json") == 1

    last = json.loads(shell.out)["checks"][2]
    assert last == {
        "name": "engine", "result": "fail", "message": "does not start", "advice": "reinstall", "model": "",
    }  # fmt: skip


@pytest.mark.rows("OPS-1")
def test_a_model_that_is_missed_is_told_step_by_step(shell: Shell) -> None:
    """Under its name, without what this machine is otherwise."""
    assert shell("doctor", "mine") == 1

    lines = [line.split("  ")[0] for line in shell.out.splitlines()]
    assert lines == ["CHECK OF mine", "location", "permissions", "file", "log", "rescan", "register by hand"]
    assert "not well: location of mine" in shell.err


@pytest.mark.rows("OPS-9")
def test_what_can_be_tuned_is_listed_without_a_node_too(shell: Shell) -> None:
    """As the configuration says it."""
    assert shell("doctor", "--tune") == 0
    assert "affinity_timeout_sec" in shell.out

    assert shell("doctor", "--tune", "--json") == 0
    found = {one["name"]: one for one in json.loads(shell.out)["tunables"]}
    assert found["node: max_vram"]["value"] == "90%"


@pytest.mark.rows("SEC-3")
def test_the_list_for_production_needs_no_node(shell: Shell, node: ScriptedNode) -> None:
    """What the configuration says is judged; a node that runs is judged by its own."""
    assert shell("doctor", "--production", "--config", "/dev/null") == 0
    assert "only the user who runs the node may change it" in shell.out

    settings = {"host": "127.0.0.1", "log_level": "debug"}
    node.answers |= {
        "GET /api/settings": (200, {"settings": settings, "metrics_read": 2}),
        "GET /routing/config": (200, {"enable_health_checks": False}),
    }
    assert shell("doctor", "--production", "--port", node.port) == 1
    assert "they are bypassed" in shell.out
    assert "/metrics was read 2 times" in shell.out


def test_limits_are_shown_when_asked_for(shell: Shell) -> None:
    """All of them."""
    assert shell("doctor", "--limits") == 0
    assert all(name in shell.out for name in all_limits())

    assert shell("doctor", "--limits", "--json") == 0
    assert json.loads(shell.out)["limits"] == all_limits()


def test_one_thing_is_looked_at_a_time(shell: Shell) -> None:
    """Several would be several answers."""
    assert shell("doctor", "tiny", "--tune") == 2
    assert "one of MODEL, --production, --tune and --limits" in shell.err
