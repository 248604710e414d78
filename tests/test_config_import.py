"""The formats that people bring, with the examples of those who use them."""

import json
from pathlib import Path

import pytest

from meshllm.core.policy import LoadMode, ModelPolicy
from tests.config_builders import configured, refused

LABELLED = """{
  "llama3-3b": {
    "Plain": {"model_id": "meta-llama/Llama-3.2-3B-Instruct"}
  },
  "qwen3-4b": {
    "Plain": {"model_id": "Qwen/Qwen3-4B", "arch": null, "dtype": "auto"},
    "in_situ_quant": "Q4K"
  },
  "vision-model": {
    "VisionPlain": {"model_id": "google/gemma-3-4b-it"},
    "alias": "eyes"
  },
  "llama-gguf": {
    "GGUF": {
      "tok_model_id": "meta-llama/Llama-3.2-3B-Instruct",
      "quantized_model_id": "bartowski/Other-GGUF",
      "quantized_filename": "Other-Q4_K_M.gguf",
      "max_seq_len": 4096
    },
    "num_device_layers": ["0:10", "1:6"]
  }
}"""


@pytest.mark.rows("CFG-1", "CFG-2", "CFG-3", "CFG-4", "CFG-22")
def test_labelled_models_become_policies(tmp_path: Path) -> None:
    """Labels stay labels; ids are those of the models; options are kept."""
    config = configured(tmp_path, LABELLED, name="c.json")

    eager = LoadMode.EAGER
    assert config.policies == (
        ModelPolicy(
            name="llama-3.2-3b", aliases=("meta-llama/Llama-3.2-3B-Instruct",), label="llama3-3b", kind="text",
            load=eager,
        ),
        ModelPolicy(name="Qwen/Qwen3-4B:Q4_K_M", aliases=("Qwen/Qwen3-4B",), label="qwen3-4b", kind="text", load=eager),
        ModelPolicy(
            name="gemma-3-4b", aliases=("eyes", "google/gemma-3-4b-it"), label="vision-model", kind="multimodal",
            load=eager,
        ),
        ModelPolicy(
            name="bartowski/Other-GGUF/Other-Q4_K_M.gguf", aliases=("bartowski/Other-GGUF",), label="llama-gguf",
            gpu_layers=16, engine_args=("--tensor-split", "10,6"), context_tokens=4096, load=eager,
        ),
    )  # fmt: skip
    assert config.models == tuple(policy.name for policy in config.policies)


@pytest.mark.rows("CFG-1")
def test_label_is_no_name(tmp_path: Path) -> None:
    """Not even as the default."""
    error = refused(tmp_path, LABELLED, name="c.json", flags={"default_model": "qwen3-4b"})

    assert error.key == "--default-model"
    assert configured(tmp_path, LABELLED, name="c.json", flags={"default_model": "Qwen/Qwen3-4B"}).default_model


@pytest.mark.rows("CFG-2")
def test_file_beside_the_configuration_is_used(tmp_path: Path) -> None:
    """`.` is the folder of the file that says so."""
    (tmp_path / "x.gguf").write_bytes(b"")
    text = '{"x": {"GGUF": {"quantized_model_id": ".", "quantized_filename": "x.gguf"}}}'

    policy = configured(tmp_path, text, name="c.json").policies[0]

    assert (policy.name, policy.aliases) == (str(tmp_path / "x.gguf"), ())


@pytest.mark.rows("CFG-2", "CFG-23")
@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ('{\n"x": {\n"Diffusion": {"model_id": "y"}}}', 3, "x.Diffusion", "not supported"),
        ('{"x": {"Plain": {"model_id": "y"},\n"topology": "t"}}', 2, "x.topology", "not supported"),
        ('{"x": {"Plain": {"model_id": "y",\n"from_uqff": "t"}}}', 2, "x.Plain.from_uqff", "not supported for Plain"),
        ('{"x": {"Plain": {}}}', 1, "x.Plain", "expected a string model_id"),
        ('{"x": {"Plain": {"model_id": 3}}}', 1, "x.Plain.model_id", "expected a string model_id"),
        ('{"x": {"GGUF": {"quantized_model_id": "a/b"}}}', 1, "x.GGUF", "expected a string quantized_filename"),
        ('{"x": {"Plain": 3}}', 1, "x.Plain", "expected an object"),
        ('{"x": {}}', 1, "x", "exactly one of"),
        ('{"x": {"Plain": {"model_id": "y"}, "GGUF": {}}}', 1, "x", "exactly one of"),
        ('{"x": {"Plain": {"model_id": "y"},\n"in_situ_quant": "HQQ8"}}', 2, "x.in_situ_quant", "Q8_0"),
        ('{"x": {"Plain": {"model_id": "y"}},\n"z": {"Plain": {"model_id": "Y"}}}', 2, "z.Plain.model_id",
         "same model"),
        ('{"x": {"Plain": {"model_id": "y"}, "alias": "a"},\n"z": {"Plain": {"model_id": "w"}, "alias": "a"}}', 2,
         "z.alias", "a name of two models"),
        ('{"x": {"Plain": {"model_id": "y"},\n"num_device_layers": "no"}}', 2, "x.num_device_layers", "GPU:LAYERS"),
        ('{"x": 1, "x": 2}', None, "", "stands twice"),
        ("[]", 1, "", "expected an object at the top"),
        ('{"x": \n}', 2, "", "Expecting value"),
        ("[" * 100_000, None, "", "nested too deeply"),
    ],
)  # fmt: skip
def test_option_that_cannot_be_honoured_is_named(
    tmp_path: Path, text: str, line: int | None, key: str, words: str
) -> None:
    """As the file has it, with its line."""
    error = refused(tmp_path, text, name="c.json")

    assert words in error.message
    assert (error.line, error.key) == (line, key)


FROM_CONFIG = """
command = "serve"
default_model_id = "Qwen/Qwen3-4B"

[server]
host = "127.0.0.1"
port = 1234

[[models]]
model_id = "Qwen/Qwen3-4B"
[models.quantization]
quant = "4"

[[models]]
model_id = "google/gemma-3-4b-it"
kind = "auto"
[models.quantization]
quant = "4"
"""


@pytest.mark.rows("CFG-5", "CFG-7", "CFG-8", "CFG-9", "CFG-10", "CFG-11")
def test_from_config_file_is_a_file_of_ours(tmp_path: Path) -> None:
    """One schema for every way in."""
    config = configured(tmp_path, FROM_CONFIG, name="models.toml")

    assert config.models == ("Qwen/Qwen3-4B:4", "gemma-3-4b:4")
    assert (config.port, config.default_model) == (1234, "Qwen/Qwen3-4B")


MODELS_YAML = """
default_model: mistralai/Mistral-7B-v0.1

models:
  - id: mistralai/Mistral-7B-v0.1
    type: local

  - id: deepseek-ai/DeepSeek-R1
    type: remote
    base_url: http://deepseek-node:8000

  - id: microsoft/phi-2
    type: remote
    base_url: http://phi2-node:8000
"""


@pytest.mark.rows("CFG-5", "CFG-16")
def test_yaml_list_mixes_models_here_and_elsewhere(tmp_path: Path) -> None:
    """With the default of the file."""
    config = configured(tmp_path, MODELS_YAML, name="models.yaml")

    assert config.models == ("mistralai/Mistral-7B-v0.1",)
    assert config.default_model == "mistralai/Mistral-7B-v0.1"
    assert [(remote.base_url, remote.models) for remote in config.remotes] == [
        ("http://deepseek-node:8000", ("deepseek-ai/DeepSeek-R1",)), ("http://phi2-node:8000", ("microsoft/phi-2",)),
    ]  # fmt: skip


@pytest.mark.rows("CFG-17")
def test_other_formats_are_read_only_when_named(tmp_path: Path) -> None:
    """A models.yaml that lies about changes nothing."""
    (tmp_path / "models.yaml").write_text(MODELS_YAML)

    assert configured(tmp_path, "").models == ()


@pytest.mark.rows("CFG-16", "CFG-23")
def test_mistake_in_yaml_has_its_line(tmp_path: Path) -> None:
    """As in every other format."""
    error = refused(tmp_path, "models:\n  - id: a\n    type: lokal\n", name="m.yml")  # codespell:ignore

    assert (error.line, error.key) == (3, "models[0].type")


@pytest.mark.rows("CFG-5")
def test_same_configuration_in_three_formats_is_the_same(tmp_path: Path) -> None:
    """The format is a matter of taste."""
    said = {"port": 5, "models": [{"name": "a", "engine": {"threads": 2}}, "b"]}
    toml = 'port = 5\nmodels = [{name = "a", engine = {threads = 2}}, "b"]'

    found = [
        configured(tmp_path, text, name=name)
        for text, name in ((toml, "c.toml"), (json.dumps(said), "c.json"), (json.dumps(said), "c.yaml"))
    ]

    assert found[0] == found[1] == found[2]
    assert found[0].policies[0].threads == 2
