"""What a file says of models and of servers elsewhere."""

from pathlib import Path

import pytest

from meshllm.core.policy import LoadMode, ModelPolicy
from meshllm.core.remotes import RemoteBackend
from tests.config_builders import configured, refused

FULL = """
models_dirs = ["m"]
default_model = "big"

[[models]]
name = "qwen3-8b"
aliases = ["big", "team/big"]
label = "for all"
tags = ["arabic_nlp"]
load = "lazy"
idle_unload_s = 600
min_replicas = 2
min_warm = 1
pinned = true
temperature = 0.2
max_tokens = 512
kind = "text"
quant = "6"

[models.engine]
context_tokens = 16384
slots = 2
threads = 8
gpu_layers = 20
load_timeout_s = 900
chat_template = "t.jinja"
jinja = true
engine_args = ["--top-k", "20"]

[[models]]
name = "smollm2-135m"
enabled = false
"""


def test_every_key_becomes_what_it_says(tmp_path: Path) -> None:
    """From the file to the policy, none is lost."""
    (tmp_path / "t.jinja").write_text("x")

    config = configured(tmp_path, FULL)

    assert config.policies[0] == ModelPolicy(
        name="qwen3-8b:6", aliases=("big", "team/big", "qwen3-8b"), label="for all", tags=("arabic_nlp",),
        load=LoadMode.LAZY, idle_unload_s=600, min_replicas=2, min_warm=1, is_pinned=True, temperature=0.2,
        max_tokens=512, kind="text", context_tokens=16384, slots=2, threads=8, gpu_layers=20, load_timeout_s=900,
        chat_template=str(tmp_path / "t.jinja"), has_jinja=True, engine_args=("--top-k", "20"),
    )  # fmt: skip
    assert config.policies[1] == ModelPolicy(name="smollm2-135m", load=LoadMode.EAGER, is_enabled=False)
    assert (config.models, config.default_model) == ((), "big")


@pytest.mark.rows("LIF-10", "CFG-15")
def test_load_mode_decides_what_is_served_from_the_start(tmp_path: Path) -> None:
    """Every entry, in order, unless it says otherwise; `preload` is another word for it."""
    names = [
        ("a", ""),
        ("b", 'load = "lazy"'),
        ("c", "preload = true"),
        ("d", "preload = false"),
        ("e", 'load = "off"'),
    ]

    config = configured(tmp_path, "\n".join(f'[[models]]\nname = "{name}"\n{more}' for name, more in names))

    assert config.models == ("a", "c")
    assert [policy.load for policy in config.policies] == ["eager", "lazy", "eager", "lazy", "off"]


def test_names_of_flags_are_served_instead(tmp_path: Path) -> None:
    """A flag wins over a file; what the file says of models still holds."""
    config = configured(tmp_path, '[[models]]\nname = "a"\nslots = 2', flags={"models": ["b"]})

    assert config.models == ("b",)
    assert config.policies[0].slots == 2


def test_names_and_tables_may_be_mixed(tmp_path: Path) -> None:
    """A name alone is an entry that says nothing more."""
    assert configured(tmp_path, 'models = ["a", {name = "b", slots = 1}, "c"]').models == ("a", "b", "c")


def test_path_of_a_model_starts_at_its_file(tmp_path: Path) -> None:
    """As all paths do."""
    (tmp_path / "x.gguf").write_bytes(b"")

    config = configured(tmp_path, 'default_model = "x.gguf"\n[[models]]\nname = "x.gguf"\naliases = ["mine"]')

    assert config.models == (str(tmp_path / "x.gguf"),)
    assert config.default_model == str(tmp_path / "x.gguf")
    assert config.policies[0].aliases == ("mine",)


@pytest.mark.rows("CFG-4", "CFG-11")
@pytest.mark.parametrize(
    ("name", "more", "found"),
    [
        ("meta-llama/Llama-3.2-3B-Instruct", "", "llama-3.2-3b"),
        ("meta-llama/Llama-3.2-3B-Instruct", 'quant = "4"', "llama-3.2-3b:4"),
        ("meta-llama/Llama-3.2-3B-Instruct", 'quant = "Q5_K_M"', "bartowski/Llama-3.2-3B-Instruct-GGUF:Q5_K_M"),
        ("somebody/Llama-3.2-3B-Instruct", "", "somebody/Llama-3.2-3B-Instruct"),
        ("Qwen/Qwen3-4B", "quant = 4", "Qwen/Qwen3-4B:4"),
        ("local-name", 'quant = "Q4K"', "local-name:Q4_K_M"),
    ],
)
def test_model_of_a_hub_is_found_by_its_files(tmp_path: Path, name: str, more: str, found: str) -> None:
    """The name that was written stays a name to ask for it by."""
    config = configured(tmp_path, f'[[models]]\nmodel_id = "{name}"\n{more}')

    assert config.models == (found,)
    assert found == name or name in config.policies[0].aliases


@pytest.mark.rows("CFG-3", "CFG-6")
@pytest.mark.parametrize(
    ("given", "layers", "arguments"),
    [
        ("12", 12, ()),
        ('"12"', 12, ()),
        ('["0:20"]', 20, ()),
        ('["0:20", "2:12"]', 32, ("--tensor-split", "20,0,12")),
        ('"0:20;1:12"', 32, ("--tensor-split", "20,12")),
    ],
)
def test_layers_are_counted_and_spread(tmp_path: Path, given: str, layers: int, arguments: tuple[str, ...]) -> None:
    """One number for the memory, and the shares of several GPUs for the engine."""
    policy = configured(tmp_path, f'[[models]]\nname = "a"\nnum_device_layers = {given}').policies[0]

    assert (policy.gpu_layers, policy.engine_args) == (layers, arguments)


@pytest.mark.rows("CFG-13")
def test_processor_is_chosen_for_all_or_none(tmp_path: Path) -> None:
    """Unless the file says that it is meant."""
    mixed = '[[models]]\nname = "a"\n[models.device]\ncpu = true\n[[models]]\nname = "b"\n'

    error = refused(tmp_path, mixed)
    allowed = configured(tmp_path, "allow_mixed_cpu = true\n" + mixed)

    assert (error.line, error.key) == (4, "models[0].device.cpu")
    assert "allow_mixed_cpu" in error.message
    assert [policy.gpu_layers for policy in allowed.policies] == [0, None]


@pytest.mark.rows("CFG-14")
def test_default_has_to_be_one_of_the_models(tmp_path: Path) -> None:
    """By any of its names; a flag beside a named file is held to the same."""
    models = '[[models]]\nmodel_id = "a"\nalias = ["x"]\n[[models]]\nmodel_id = "b"\n'

    error = refused(tmp_path, f'default_model_id = "c"\n{models}')

    assert (error.line, error.key) == (1, "default_model_id")
    assert error.message == "'c' is none of the models that the file names: a, b"
    assert refused(tmp_path, models, flags={"default_model": "c"}).key == "--default-model"
    assert configured(tmp_path, f'default_model_id = "X"\n{models}').default_model == "X"
    assert configured(tmp_path, 'default_model = "elsewhere"').default_model == "elsewhere"


@pytest.mark.rows("CFG-16", "MSH-17")
def test_servers_elsewhere_are_read(tmp_path: Path) -> None:
    """As tables of their own, or as a model that is remote; keys come from where they are kept."""
    (tmp_path / "key").write_text("from-a-file\n")
    text = """
[[remotes]]
name = "ollama"
base_url = "http://127.0.0.1:11434/"
models = ["llama3:8b"]
aliases = {"llama3:8b" = "llama3"}
[[remotes]]
base_url = "https://vllm.example:8443/v1"
api_key_env = "VLLM_KEY"
[[models]]
id = "deepseek-ai/DeepSeek-R1"
type = "remote"
base_url = "http://deepseek-node:8000"
api_key_file = "key"
"""

    config = configured(tmp_path, text, VLLM_KEY="from-a-variable")

    assert config.remotes == (
        RemoteBackend(
            name="deepseek-ai/DeepSeek-R1", base_url="http://deepseek-node:8000", api_key="from-a-file",
            models=("deepseek-ai/DeepSeek-R1",),
        ),
        RemoteBackend(
            name="ollama", base_url="http://127.0.0.1:11434", models=("llama3:8b",), aliases={"llama3:8b": "llama3"}
        ),
        RemoteBackend(
            name="vllm.example:8443", base_url="https://vllm.example:8443/v1", api_key="from-a-variable"
        ),
    )  # fmt: skip
    assert (config.models, config.policies) == ((), ())
    assert "from-a" not in repr(config)


MODEL = '[[models]]\nname = "a"\n'


@pytest.mark.rows("CFG-23", "CFG-12")
@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        (MODEL + "contxt_tokens = 1", 3, "models[0].contxt_tokens", "did you mean context_tokens?"),
        (MODEL + "[models.engine]\nthread = 1", 4, "models[0].engine.thread", "did you mean threads?"),
        (MODEL + "[models.engine]\nquant = 4", 4, "models[0].engine.quant", "stands in [models.quantization]"),
        (MODEL + "[models.engine]\nname = 'x'", 4, "models[0].engine.name", "stands beside `name`"),
        (MODEL + "[models.quota]\nx = 1", 3, "models[0].quota", "unknown key"),
        (MODEL + "engine = 3", 3, "models[0].engine", "expected a table, [models.engine]"),
        (MODEL + "slots = 'two'", 3, "models[0].slots", "expected a whole number"),
        (MODEL + "slots = true", 3, "models[0].slots", "not the boolean true"),
        (MODEL + "slots = 0", 3, "models[0].slots", "from 1 to 256"),
        (MODEL + "slots = 1\nparallel = 1", 4, "models[0].parallel", "says the same as models[0].slots"),
        (MODEL + "model_id = 'b'", 3, "models[0].model_id", "says the same as models[0].name"),
        (MODEL + "load = 'now'", 3, "models[0].load", "expected one of lazy, eager, off"),
        (MODEL + "load = 'off'\npreload = true", 4, "models[0].preload", "contradicts"),
        (MODEL + "kind = 'diffusion'", 3, "models[0].kind", "expected one of auto, text, multimodal"),
        (MODEL + "quant = 'HQQ4'", 3, "models[0].quant", "the nearest is Q4_K_M"),
        (MODEL + "quant = true", 3, "models[0].quant", "expected"),
        (MODEL + "isq = '8'", 3, "models[0].isq", 'quant = "Q8_0"'),
        ("[[models]]\nname = 'a.gguf'\nquant = 4", 3, "models[0].quant", "names its file already"),
        ("[[models]]\nname = 'a:Q4_0'\nquant = 4", 3, "models[0].quant", "names its file already"),
        (MODEL + "gpu_layers = 'all'", 3, "models[0].gpu_layers", '"0:20"'),
        (MODEL + "gpu_layers = -1", 3, "models[0].gpu_layers", '"0:20"'),
        (MODEL + "gpu_layers = ['0:1', '0:2']", 3, "models[0].gpu_layers", '"0:20"'),
        (MODEL + "gpu_layers = 3\ncpu = true", 3, "models[0].gpu_layers", "contradicts cpu"),
        (MODEL + "engine_args = ['--port', '1']", 3, "models[0].engine_args", "--port cannot be given"),
        (MODEL + "chat_template = 'none'", 3, "models[0].chat_template", "there is no file"),
        (MODEL + "jinja_explicit = 'none'", 3, "models[0].jinja_explicit", "there is no file"),
        (MODEL + "jinja = 'x'\nchat_template = 'y'", 3, "models[0].jinja", "one of them is enough"),
        (MODEL + "base_url = 'http://x'", 3, "models[0].base_url", 'type = "remote"'),
        (MODEL + "type = 'remote'", 3, "models[0].type", "needs a base_url"),
        (
            MODEL + "type = 'remote'\nbase_url = 'http://x'\nslots = 1",
            5,
            "models[0].slots",
            "is for models that run here",
        ),
        (MODEL + "aliases = ['default']", 3, "models[0].aliases", "reserved"),
        (
            MODEL + "[[models]]\nname = 'b'\naliases = ['A']",
            5,
            "models[1].aliases",
            "a name of two models: 'a' and 'b'",
        ),
        (MODEL + "[[models]]\nname = 'a'", 4, "models[1].name", "is the same model as 'a'"),
        (
            "[[models]]\nname = 'qwen3-8b:4'\n[[models]]\nname = 'Qwen_Qwen3-8B-Q4_K_M'",
            4,
            "models[1].name",
            "same model",
        ),
        ("[[models]]\nslots = 1", 1, "models[0]", "which model is it?"),
        ("allow_mixed_cpu = 1", 1, "allow_mixed_cpu", "expected true or false"),
        ("remotes = 3", 1, "remotes", "[[remotes]]"),
        ("remotes = ['x']", 1, "remotes[0]", "expected a table"),
        ("[[remotes]]\nname = 'x'", 1, "remotes[0]", "where is the server?"),
        ("[[remotes]]\nbase_url = 'x'", 2, "remotes[0].base_url", "expected http://host:port"),
        ("[[remotes]]\nbase_url = 'ftp://x'", 2, "remotes[0].base_url", "expected http://host:port"),
        ("[[remotes]]\nbase_url = 'http://x:99999'", 2, "remotes[0].base_url", "is no address"),
        ("[[remotes]]\nbase_url = 'http://u:p@x'", 2, "remotes[0].base_url", "password"),
        ("[[remotes]]\nbase_url = 'http://x/?a=1'", 2, "remotes[0].base_url", "without spaces, ? and #"),
        ("[[remotes]]\nbase_url = 'http://x'\napi_key_env = 'NONE'", 3, "remotes[0].api_key_env", "NONE is not set"),
        ("[[remotes]]\nbase_url = 'http://x'\napi_key_file = 'no'", 3, "remotes[0].api_key_file", "cannot be read"),
        ("[[remotes]]\nbase_url = 'http://x'\napi_key = 'k'", 3, "remotes[0].api_key", "did you mean api_key_"),
        ("[[remotes]]\nbase_url = 'http://x'\naliases = 3", 3, "remotes[0].aliases", "expected a table of names"),
        ("[[remotes]]\nbase_url = 'http://x'\n[[remotes]]\nbase_url = 'http://x/y'", 3, "remotes[1]", "two servers"),
    ],
)
def test_mistake_is_refused_with_its_line_and_key(tmp_path: Path, text: str, line: int, key: str, words: str) -> None:
    """A person can go to the place and mend it."""
    error = refused(tmp_path, text)

    assert words in error.message
    assert (error.line, error.key) == (line, key)


def test_key_of_a_server_is_never_shown(tmp_path: Path) -> None:
    """Not even when it is none."""
    (tmp_path / "key").write_text("two words\n")

    error = refused(tmp_path, '[[remotes]]\nbase_url = "http://x"\napi_key_file = "key"')

    assert error.message == "holds no key: expected ASCII characters without spaces"
