"""Real daemons started from files that people bring."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemons import Daemon, free_port

pytestmark = pytest.mark.e2e
Maker = Callable[..., Daemon]


@pytest.mark.rows("CLI-2", "CFG-1", "CFG-6", "CFG-7", "CFG-15", "CFG-22", "ADR-4")
def test_labelled_models_are_served_by_one_daemon_as_each_was_told(daemon: Maker, tmp_path: Path) -> None:
    """One address, an engine for each model with its own size; labels are no names, aliases are."""
    file = tmp_path / "c.json"
    spec = {"quantized_model_id": "models"}
    file.write_text(json.dumps({
        "first": {"GGUF": {**spec, "quantized_filename": "tiny.gguf", "max_seq_len": 512}, "alias": "little"},
        "second": {"GGUF": {**spec, "quantized_filename": "other.gguf"}, "num_device_layers": 0},
    }))  # fmt: skip
    node = daemon("multi-model", "--config", str(file), "--default-model-id", "little")
    (tmp_path / "models").symlink_to(node.models)

    with node:
        node.until_model("tiny", phase="ready")
        node.until_model("other", phase="ready")
        listed = {entry["id"]: entry for entry in node.get("/v1/models")["data"]}

        assert {"tiny", "other"} <= set(listed)
        assert len(node.engines()) >= 2
        assert node.model("tiny")["context_tokens"] == 512
        assert node.model("other")["context_tokens"] > 512
        assert node.chat(model="little").json["model"] == "tiny"
        assert node.chat(model="first").status == 404


@pytest.mark.rows("CLI-16")
def test_console_has_a_port_of_its_own(daemon: Maker) -> None:
    """The same is to be had at both; a port that is taken is told by its number."""
    console = free_port()
    with daemon("--console", str(console), "--model", "tiny") as node:
        api, node.port = node.port, console

        assert node.get("/v1/models")["object"] == "list"
        assert node.request("GET", "/").status in {200, 404}  # the console itself is built by the wheel

        second = node.run("--state-dir", str(node.home / "s2"), "--port", str(free_port()), "--console", str(api))
        assert second.returncode == 3
        assert f":{api} is already in use" in second.stderr
