"""Commands against a running node, as a person types them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemons import Daemon, until
from tests.inventory import gguf_builder

pytestmark = pytest.mark.e2e
Maker = Callable[..., Daemon]


def done(ended: subprocess.CompletedProcess[str]) -> str:
    """Return a command's output; it must have succeeded and kept its complaints to itself."""
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_reading_commands_show_the_model_in_words_and_as_json(daemon: Maker) -> None:
    """Data on standard output, in a form for people and in one for programs."""
    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")

        words = {command: done(node.run(*command.split())) for command in ("status", "ps", "list", "show tiny")}
        data = {command: json.loads(done(node.run(*command.split(), "--json"))) for command in words}

    assert all("tiny" in text for text in words.values())
    assert all(data.values())
    assert data["status"]["models"][0]["id"]
    assert "other" not in words["ps"]
    assert "other" in words["list"]


def test_show_knows_models_of_folders_that_only_the_node_has(daemon: Maker, tmp_path: Path) -> None:
    """The node is asked, not the disk of whoever asks."""
    gguf_builder.write(tmp_path / "elsewhere" / "far.gguf")
    with daemon("--models-dir", str(tmp_path / "elsewhere"), "--model", "tiny") as node:
        node.until_model("far", phase="unloaded")

        shown = done(node.run("show", "far"))

    assert str(tmp_path / "elsewhere" / "far.gguf") in shown
    assert "memory: fits" in shown


@pytest.mark.rows("CLI-17", "LIF-13", "LIF-14")
def test_load_unload_and_drop_do_what_they_say(daemon: Maker) -> None:
    """The life of a model by hand; the node ends with its last one."""
    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")

        done(node.run("load", "other"))
        assert node.model("other")["phase"] == "ready"
        done(node.run("unload", "other", "--hold"))
        assert node.chat(model="other").error["code"] == "model_held"
        done(node.run("load", "other"))
        done(node.run("drop", "tiny"))
        assert node.chat(model="tiny").status == 404
        done(node.run("drop", "other"))

        assert node.ended() == 0


@pytest.mark.rows("CLI-17")
def test_drop_that_drops_nothing_fails(daemon: Maker) -> None:
    """A script must be able to tell."""
    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")

        ended = node.run("drop", "nonsense")

        assert ended.returncode == 1
        assert "nonsense" in ended.stderr
        assert node.chat().status == 200


def test_run_answers_one_prompt_on_standard_output(daemon: Maker) -> None:
    """Good for pipes: the text and nothing else."""
    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")

        text = done(node.run("run", "tiny", "count for me"))

    assert text.strip().startswith("0 1 2")


def test_logs_show_the_node_and_the_engine(daemon: Maker) -> None:
    """Where to look when something is wrong."""
    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")

        assert "model ready" in done(node.run("logs"))
        assert "model loaded" in done(node.run("logs", "tiny"))


@pytest.mark.rows("REG-5")
def test_files_come_and_go_while_it_runs(daemon: Maker) -> None:
    """Folders are watched; nothing needs a restart."""
    with daemon("--model", "tiny", models=("tiny",)) as node:
        node.until_model("tiny", phase="ready")
        (node.models / "later.gguf").write_bytes((node.models / "tiny.gguf").read_bytes())

        node.until_model("later", phase="unloaded")
        assert node.chat(model="later").status == 200
        done(node.run("rm", "later"))

        assert not (node.models / "later.gguf").exists()
        assert node.chat().status == 200


@pytest.mark.parametrize("command", ["status", "ps", "load tiny", "unload tiny", "drop tiny", "logs"])
def test_without_a_node_commands_say_how_to_start_one(daemon: Maker, command: str) -> None:
    """No traceback, no riddle."""
    node = daemon()

    ended = node.run(*command.split())

    assert ended.returncode == 1
    assert "no node is running" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["list", "show tiny", "doctor", "engine show"])
def test_some_commands_need_no_node(daemon: Maker, command: str) -> None:
    """What lies on the disk can be known without one."""
    node = daemon()

    assert done(node.run(*command.split()))


@pytest.mark.rows("OPS-1", "OPS-5", "SEC-3")
def test_doctor_tells_step_by_step_what_is_wrong_with_a_model(daemon: Maker) -> None:
    """One that runs out of memory, one in another format, one that came late; and the list for production."""
    with daemon("--model", "tiny", engine='fake:{"load": "oom"}') as node:
        until(lambda: node.model("tiny").get("failure"), "the load to fail")
        (node.models / "mine.safetensors").write_bytes(b"weights")
        gguf_builder.write(node.models / "late.gguf")

        failed, foreign, late = (node.run("doctor", name) for name in ("tiny", "mine", "late"))
        whole = node.run("doctor", "--production", "--json")

    assert re.search(r"out of memory +fail ", failed.stdout)
    assert "memory of tiny, out of memory of tiny" in failed.stderr
    assert "mine.safetensors is of another format than GGUF" in foreign.stdout
    assert re.search(r"rescan +pass +the node looked through its folders again and lists it", late.stdout)
    assert (failed.returncode, foreign.returncode, late.returncode, whole.returncode) == (1, 1, 0, 1)
    assert {"rate limits", "quotas", "audit trail"} <= {one["name"] for one in json.loads(whole.stdout)["checks"]}


def test_the_command_line_starts_quickly() -> None:
    """Importing the command line takes less than 150 ms of a processor, so that `--help` feels like nothing."""
    code = "import time; a=time.process_time(); import meshllm.cli.main; print(time.process_time()-a)"

    best_s = min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5))

    assert best_s < 0.150
