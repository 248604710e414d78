"""The child's translation of our parameters. The wheel itself is run by tests/engine_real."""

import dataclasses
import enum
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from meshllm.core.engines import EngineBuild, EngineOptions
from meshllm.engine.command import make_command
from meshllm.engine.xllamacpp_child import main, make_parameters, probe
from tests.engine.builders import A_HOST, a_plan

WHEEL = EngineBuild(kind="xllamacpp", version="1", uses_gpu=False)


class Device(enum.Enum):
    """What the wheel calls its devices."""

    GGML_BACKEND_DEVICE_TYPE_CPU = 0
    GGML_BACKEND_DEVICE_TYPE_IGPU = 2


def a_wheel() -> SimpleNamespace:
    """Return a module that takes any parameter."""
    pooling = SimpleNamespace(LLAMA_POOLING_TYPE_RANK="rank")

    def parameters() -> SimpleNamespace:
        groups = {name: SimpleNamespace() for name in ("model", "mmproj", "cpuparams", "cpuparams_batch", "sampling")}
        return SimpleNamespace(**groups)

    devices = [
        {"name": kind.name, "description": "d", "type": kind, "memory_total": 5} for kind in Device
    ]  # fmt: skip
    return SimpleNamespace(
        CommonParams=parameters, llama_pooling_type=pooling, __version__="2026.1",
        get_device_info=lambda: devices, get_system_info=lambda: " AVX = 1 | \n",
    )  # fmt: skip


def told(**of_spec: object) -> dict[str, object]:
    """Return what a child is told for a plan."""
    line: dict[str, object] = json.loads(make_command(a_plan(**of_spec), WHEEL, "/run/e1.sock", "k", A_HOST).stdin)
    return line


def test_every_line_of_the_plan_reaches_the_wheel() -> None:
    """What is told and not used would be a lie."""
    parameters = make_parameters(a_wheel(), told(mmproj="/models/eyes.gguf"))

    assert parameters.model.path == "/models/tiny.gguf"
    assert parameters.mmproj.path == "/models/eyes.gguf"
    assert parameters.hostnames == ["/run/e1.sock"]
    assert parameters.api_keys == ["k"]
    assert parameters.model_alias == {"tiny"}
    assert (parameters.n_ctx, parameters.n_parallel, parameters.kv_unified) == (2 * 512, 2, False)
    assert parameters.cpuparams.n_threads == parameters.cpuparams_batch.n_threads == 1
    assert (parameters.n_gpu_layers, parameters.cache_ram_mib) == (0, 16)


def test_clients_cannot_change_the_engine() -> None:
    """The wheel's `endpoint_props` is the leave to change them."""
    parameters = make_parameters(a_wheel(), told())

    assert parameters.endpoint_props is False
    assert parameters.endpoint_slots is True
    assert parameters.sse_ping_interval == -1


@pytest.mark.parametrize("capability", ["embedding", "rerank"])
def test_models_that_do_not_generate_get_their_mode(capability: str) -> None:
    """An embedding needs the whole text in one micro-batch; reranking needs its pooling."""
    parameters = make_parameters(a_wheel(), told(capabilities=frozenset({capability})))

    assert parameters.embedding is True
    assert parameters.n_batch == parameters.n_ubatch == 512
    assert getattr(parameters, "pooling_type", None) == ("rank" if capability == "rerank" else None)


def test_probe_tells_gpus_from_processors() -> None:
    """An integrated GPU is one, too."""
    found = probe(a_wheel())

    assert found["version"] == "2026.1"
    assert found["features"] == "AVX = 1 |"
    assert [device["is_gpu"] for device in found["devices"]] == [False, True]  # type: ignore[attr-defined]


def test_probe_prints_one_line_of_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon reads the last line; the wheel may print others before."""
    monkeypatch.setitem(__import__("sys").modules, "xllamacpp", a_wheel())

    main(["--probe"])

    assert json.loads(capsys.readouterr().out.splitlines()[-1])["version"] == "2026.1"


@pytest.mark.rows("CFG-3")
def test_what_people_said_of_a_model_reaches_the_wheel(tmp_path: Path) -> None:
    """A template is read where it is used, by the child."""
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    options = EngineOptions(
        chat_template=str(template), has_jinja=False, arguments=("--temp", "0.5", "--tensor-split", "3,1")
    )
    plan = dataclasses.replace(a_plan(), options=options)
    line = json.loads(make_command(plan, WHEEL, "/run/e1.sock", "k", A_HOST).stdin)

    parameters = make_parameters(a_wheel(), line)

    assert (parameters.chat_template, parameters.use_jinja) == ("{{ messages }}", False)
    assert parameters.sampling.temp == 0.5
    assert (parameters.tensor_split[:3], len(parameters.tensor_split)) == ([3.0, 1.0, 0.0], 128)
