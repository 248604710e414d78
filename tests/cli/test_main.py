"""The root command: exit codes, places of options, closed pipes, Ctrl-C."""

import signal
import subprocess
import sys

import pytest

import meshllm
from meshllm.cli import main
from meshllm.cli.failures import CommandError, ExitCode
from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode, a_scripted_node


def test_version_is_the_package_s(shell: Shell) -> None:
    """On standard output, alone."""
    assert shell("--version") == 0
    assert shell.out == f"mesh-llm {meshllm.__version__}\n"


@pytest.mark.parametrize("port", ["0", "70000", "abc", "-1"])
@pytest.mark.parametrize("command", [["--port", "?"], ["serve", "--port", "?"], ["ps", "--port", "?"]])
def test_bad_port_is_a_usage_error(shell: Shell, port: str, command: list[str]) -> None:
    """Exit 2, before anything starts."""
    assert shell(*[port if word == "?" else word for word in command]) == 2
    assert "--port" in shell.err


@pytest.mark.rows("CLI-4")
@pytest.mark.parametrize("line", [["--port", "?", "ps"], ["ps", "--port", "?"], ["--port", "1", "ps", "--port", "?"]])
def test_options_stand_before_or_after_the_command(shell: Shell, node: ScriptedNode, line: list[str]) -> None:
    """CLI-4; the later one wins."""
    assert shell(*[node.port if word == "?" else word for word in line]) == 0
    assert "tiny" in shell.out


def test_port_of_the_environment_is_used(shell: Shell, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """MESH_LLM_PORT."""
    monkeypatch.setenv("MESH_LLM_PORT", str(node.port))

    assert shell("ps") == 0


@pytest.mark.parametrize("command", [["ps"], ["status"], ["drop", "m"], ["load", "m"], ["logs"], ["run", "m", "hi"]])
def test_without_a_node_a_command_says_how_to_start_one(shell: Shell, command: list[str]) -> None:
    """Exit 1, one line, no traceback."""
    with a_scripted_node() as gone:
        port = gone.port

    assert shell(*command, "--port", port) == 1
    assert shell.out == ""
    assert shell.err.count("\n") == 1
    assert "no node is running" in shell.err
    assert "mesh-llm --model" in shell.err


def test_bad_configuration_is_a_usage_error(shell: Shell, home: object) -> None:
    """With file, line and key."""
    (home / "c.toml").write_text("\nprot = 1\n")  # type: ignore[operator]

    assert shell("ps", "--config", home / "c.toml") == 2  # type: ignore[operator]
    assert f"{home}/c.toml:2: prot: unknown setting; did you mean port?" in shell.err


def test_failure_is_one_line_on_standard_error(
    shell: Shell, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its exit code is the one that it brings."""

    def fail(**_: object) -> None:
        raise CommandError("so it goes", 3)

    monkeypatch.setattr(main, "app", fail)

    assert shell("ps") == 3
    assert shell.err == "mesh-llm: so it goes\n"


def test_reader_that_leaves_early_is_no_error(node: ScriptedNode) -> None:
    """`mesh-llm logs | head -1` ends quietly."""
    node.answers["GET /api/logs"] = (200, "a line\n" * 100_000)
    command = [sys.executable, "-m", "meshllm", "logs", "--port", str(node.port)]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(timeout=30)

    assert first == "a line\n"
    assert errors == ""
    assert process.returncode == ExitCode.NO_READER


def test_ctrl_c_ends_a_command_quietly(node: ScriptedNode) -> None:
    """While it waits for the node, which goes on with what it was asked."""
    command = [sys.executable, "-m", "meshllm", "load", "tiny", "--port", str(node.port)]
    processes: list[subprocess.Popen[str]] = []

    def interrupt() -> tuple[int, object]:
        processes[0].send_signal(signal.SIGINT)
        processes[0].wait(timeout=30)
        return 200, {"model_id": "tiny", "status": "loaded"}

    node.answers["POST /v1/models/reload"] = interrupt
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        processes.append(process)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Traceback" not in errors
