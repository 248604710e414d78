"""From a plan to a command."""

import dataclasses
import json

import pytest

import meshllm
from meshllm.core.engines import EngineBuild, EngineOptions
from meshllm.engine.command import child_environment, make_command, this_host
from tests.engine.builders import A_HOST, a_fake_build, a_plan

WHEEL = EngineBuild(kind="xllamacpp", version="1", uses_gpu=False)
NATIVE = EngineBuild(kind="llama-server", version="1", uses_gpu=False, program="/opt/llama/llama-server")
KEY = "only-for-the-two-of-us"


@pytest.mark.parametrize("build", [WHEEL, NATIVE, a_fake_build()], ids=lambda build: build.kind)
def test_key_is_on_standard_input_and_nowhere_else(build: EngineBuild) -> None:
    """Every user of a machine can read arguments, and logs quote commands."""
    command = make_command(a_plan(), build, "/run/m/e1.sock", KEY, A_HOST)

    assert KEY.encode() in command.stdin
    assert KEY not in " ".join(command.argv)
    assert KEY not in str(command.env)
    assert KEY not in repr(command)


@pytest.mark.parametrize("build", [WHEEL, NATIVE, a_fake_build()], ids=lambda build: build.kind)
def test_every_engine_is_tied_to_its_daemon(build: EngineBuild) -> None:
    """The guard is what makes an engine die with the process that started it."""
    argv = make_command(a_plan(), build, "/run/m/e1.sock", KEY, A_HOST).argv

    assert argv[:6] == ("/usr/bin/python3", "-P", "-S", "-m", "meshllm.engine.guard", "4711")
    assert argv[6] == "--"


def test_wheel_is_told_the_plan() -> None:
    """What the memory arithmetic planned is what the engine gets."""
    plan = dataclasses.replace(a_plan("/models/a.gguf", slots=3, context_tokens=9216), gpu_layers=12, threads=5)

    command = make_command(plan, WHEEL, "/run/m/e1.sock", KEY, A_HOST)

    told = json.loads(command.stdin)
    assert command.argv[-2:] == ("-m", "meshllm.engine.xllamacpp_child")
    assert command.holds_stdin
    assert told["model"] == "/models/a.gguf"
    assert told["alias"] == "a"
    assert told["socket"] == "/run/m/e1.sock"
    assert (told["slots"], told["context_tokens"], told["gpu_layers"], told["threads"]) == (3, 9216, 12, 5)
    assert told["cache_ram_mib"] == 16
    assert told["http_threads"] > 3 + 64
    assert (told["purpose"], told["batch_tokens"]) == ("generate", None)


def test_batches_of_a_processor_are_small() -> None:
    """It hears neither probes nor clients that leave while it computes one."""
    told = json.loads(make_command(a_plan(), WHEEL, "/s.sock", KEY, A_HOST).stdin)
    argv = make_command(a_plan(), NATIVE, "/s.sock", KEY, A_HOST).argv

    assert told["batch_tokens"] == 128
    assert argv[argv.index("--batch-size") + 1] == argv[argv.index("--ubatch-size") + 1] == "128"


def test_native_server_is_told_the_plan() -> None:
    """Its options say the same as the wheel's parameters, and its standard input ends after the key."""
    command = make_command(a_plan(mmproj="/models/eyes.gguf"), NATIVE, "/run/m/e1.sock", KEY, A_HOST)

    line = " ".join(command.argv[7:])
    assert line.startswith("/opt/llama/llama-server --host /run/m/e1.sock --model /models/tiny.gguf --alias tiny ")
    assert "--ctx-size 1024 --parallel 2 --threads 1" in line
    assert "--kv-unified" not in line
    assert "--n-gpu-layers 0 --cache-ram 16 --api-key-file /dev/stdin" in line
    assert "--mmproj /models/eyes.gguf" in line
    assert command.stdin == f"{KEY}\n".encode()
    assert not command.holds_stdin


@pytest.mark.parametrize(
    ("capabilities", "purpose", "option"),
    [
        ({"chat", "completion", "embedding"}, "generate", None),
        (set(), "generate", None),
        ({"embedding"}, "embed", "--embeddings"),
        ({"embedding", "rerank"}, "rerank", "--reranking"),
    ],
)
def test_purpose_follows_what_the_model_can_do(capabilities: set[str], purpose: str, option: str | None) -> None:
    """llama.cpp either generates, embeds or reranks; a text model that could embed generates."""
    plan = a_plan(capabilities=frozenset(capabilities))

    told = json.loads(make_command(plan, WHEEL, "/s.sock", KEY, A_HOST).stdin)
    argv = make_command(plan, NATIVE, "/s.sock", KEY, A_HOST).argv

    assert told["purpose"] == purpose
    assert told["batch_tokens"] == (128 if option is None else 512)
    assert {"--embeddings", "--reranking"} & set(argv) == ({option} if option else set())


def test_environment_is_small_and_holds_no_secret() -> None:
    """An engine parses files from strangers: it has no use for the daemon's tokens."""
    given = {
        "PATH": "/usr/bin", "HOME": "/home/me", "LD_LIBRARY_PATH": "/opt/lib", "CUDA_VISIBLE_DEVICES": "0",
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY": "1", "OPENAI_API_KEY": "x", "HF_TOKEN": "x", "MESH_LLM_API_KEY": "x",
        "CUDA_SECRET": "x", "GGML_TOKEN": "x", "AWS_PROFILE": "x", "LD_PRELOAD": "/evil.so",
        "PYTHONPATH": "/opt/mine",
    }  # fmt: skip

    environment = child_environment(dataclasses.replace(A_HOST, environment=given), threads=3)

    assert environment == {
        "PATH": "/usr/bin", "HOME": "/home/me", "LD_LIBRARY_PATH": "/opt/lib", "CUDA_VISIBLE_DEVICES": "0",
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY": "1", "PYTHONPATH": "/opt/app:/opt/mine", "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "3",
    }  # fmt: skip


def test_what_people_set_for_threads_is_kept() -> None:
    """Whoever sets it knows why."""
    host = dataclasses.replace(A_HOST, environment={"OMP_NUM_THREADS": "8"})

    assert child_environment(host, threads=2)["OMP_NUM_THREADS"] == "8"


def test_switches_reach_the_fake_engine() -> None:
    """Tests order troubles through the build."""
    told = json.loads(make_command(a_plan(), a_fake_build(load="oom"), "/s.sock", KEY, A_HOST).stdin)

    assert told["fake"] == {"load": "oom"}


def test_unknown_kind_of_build_is_a_mistake() -> None:
    """Nothing is run that isn't known."""
    build = EngineBuild(kind="abacus", version="1", uses_gpu=False)

    with pytest.raises(ValueError, match="abacus"):
        make_command(a_plan(), build, "/s.sock", KEY, A_HOST)


def test_this_host_is_this_process() -> None:
    """The package that runs here is the one that the child runs."""
    host = this_host()

    assert meshllm.__file__.startswith(host.package_root)
    assert host.python
    assert host.pid > 1


@pytest.mark.rows("CFG-3", "CFG-6")
def test_what_people_said_of_a_model_reaches_both_kinds_of_engine() -> None:
    """Template, Jinja and arguments; a value that only one engine knows is refused by the other."""
    options = EngineOptions(chat_template="/t.jinja", has_jinja=False, arguments=("--seed=3", "--swa-full"))
    plan = dataclasses.replace(a_plan(), options=options)

    told = json.loads(make_command(plan, WHEEL, "/s.sock", KEY, A_HOST).stdin)
    line = " ".join(make_command(plan, NATIVE, "/s.sock", KEY, A_HOST).argv)

    assert (told["chat_template"], told["has_jinja"]) == ("/t.jinja", False)
    assert told["parameters"] == [["sampling.seed", 3], ["swa_full", True]]
    assert " --no-jinja " in line
    assert "--chat-template-file /t.jinja" in line
    assert line.endswith("--seed 3 --swa-full")

    odd = dataclasses.replace(plan, options=EngineOptions(arguments=("--only-native", "1")))
    assert make_command(odd, NATIVE, "/s.sock", KEY, A_HOST).argv[-2:] == ("--only-native", "1")
    with pytest.raises(ValueError, match="--only-native"):
        make_command(odd, WHEEL, "/s.sock", KEY, A_HOST)


@pytest.mark.parametrize(
    ("kind", "purpose", "eyes"),
    [
        ("auto", "generate", True), ("text", "generate", False), ("multimodal", "generate", True),
        ("embedding", "embed", False), ("rerank", "rerank", False),
    ],
)  # fmt: skip
@pytest.mark.rows("CFG-12")
def test_kind_decides_what_a_model_is_run_as(kind: str, purpose: str, eyes: bool) -> None:
    """Set only to force it."""
    plan = dataclasses.replace(a_plan(mmproj="/models/eyes.gguf"), options=EngineOptions(kind=kind))

    told = json.loads(make_command(plan, WHEEL, "/s.sock", KEY, A_HOST).stdin)
    argv = make_command(plan, NATIVE, "/s.sock", KEY, A_HOST).argv

    assert (told["purpose"], told["mmproj"] is not None) == (purpose, eyes)
    assert ("--mmproj" in argv) is eyes
