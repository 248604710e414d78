"""Real daemons started from files that people bring."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemons import Daemon, Reply, free_port

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


@pytest.mark.rows("ADR-7", "API-4", "API-5")
def test_a_plain_prompt_means_the_same_models_as_every_request(daemon: Maker, tmp_path: Path) -> None:
    """The default of a YAML file, any name of a model, and a refusal for a name that nobody has."""
    file = tmp_path / "models.yaml"
    file.write_text(
        "default_model: other\nmodels:\n  - {id: tiny, type: local, aliases: [little]}\n  - {id: other, type: local}\n"
    )
    with daemon("--config", str(file)) as node:
        node.until_model("tiny", phase="ready")
        node.until_model("other", phase="ready")

        def generated(path: str = "/v1/generate", **body: object) -> Reply:
            return node.request("POST", path, body)

        assert generated(prompt="say").json["model"] == "other"
        assert generated(prompt="say", model="default").json["model"] == "other"
        named = generated(prompt="say", model="LITTLE", max_new_tokens=3)
        assert (named.json["model"], named.status, bool(named.json["output"])) == ("tiny", 200, True)
        assert generated(prompt="say", model="nobody").error["code"] == "model_not_found"
        batch = generated("/v1/generate/batch", prompts=["a", "b"], max_new_tokens=2).json
        assert (batch["model"], len(batch["results"])) == ("other", 2)
        assert generated("/v1/stream", prompt="a", max_new_tokens=2).events[-1] == "[DONE]"
