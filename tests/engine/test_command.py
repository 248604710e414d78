"""From a plan to a command."""

import dataclasses
import json

import pytest

import meshllm
from meshllm.core.engines import EngineBuild, EngineOptions, EnginePlan, RpcBuild, SplitPart, SplitRun
from meshllm.core.ids import NodeId
from meshllm.engine.command import child_environment, make_command, split_arguments, this_host
from tests.engine.builders import A_HOST, a_fake_build, a_plan

WHEEL = EngineBuild(kind="xllamacpp", version="1", uses_gpu=False)
NATIVE = EngineBuild(kind="llama-server", version="1", uses_gpu=False, program="/opt/llama/llama-server")
SHARING = dataclasses.replace(WHEEL, rpc=RpcBuild(version="7 x", server="/opt/rpc/llama-server", worker="/opt/rpc/w"))
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


def a_split(*layers: int, home_layers: int = 0) -> SplitRun:
    """Return a split whose workers have so many layers each."""
    workers = tuple(SplitPart(node=NodeId(f"n{number}"), layers=count) for number, count in enumerate(layers))
    return SplitRun(epoch=3, workers=workers, home_layers=home_layers)


def a_split_plan(*layers: int) -> EnginePlan:
    """Return a plan of one slot over so many layers at each worker."""
    return dataclasses.replace(a_plan(slots=1), split=a_split(*layers))


def told(line: tuple[str, ...], option: str) -> str:
    """Return what stands behind an option."""
    return line[line.index(option) + 1]


def test_host_of_a_split_runs_the_program_that_can_share() -> None:
    """The wheel stays the engine of everything else; the key is no argument here either."""
    command = make_command(a_split_plan(15, 15), SHARING, "/s.sock", KEY, A_HOST, ports=(7001, 7002))

    line = command.argv[7:]
    assert line[0] == "/opt/rpc/llama-server"
    assert told(line, "--rpc") == "127.0.0.1:7001,127.0.0.1:7002"
    assert line.index("--rpc") < line.index("--device")
    assert told(line, "--cache-ram") == "0"
    assert command.stdin == f"{KEY}\n".encode()
    assert KEY not in " ".join(line)
    assert command.env["GGML_NO_BACKTRACE"] == "1"


def test_every_layer_is_placed_and_the_output_stays_at_home() -> None:
    """On a processor the last devices have the last layers, and the output is called home by name."""
    line = split_arguments(a_split(10, 5, home_layers=15), (1, 2))

    assert told(line, "--device") == "RPC0,RPC1"
    assert told(line, "--tensor-split") == "10,6"
    assert told(line, "--n-gpu-layers") == "16"
    assert "output" in told(line, "--override-tensor")


@pytest.mark.parametrize(
    ("home_layers", "devices", "names", "shares"),
    [
        (10, ("CUDA0",), "RPC0,CUDA0", "20,11"),
        (0, ("CUDA0",), "RPC0,CUDA0", "20,1"),
        (5, ("CUDA0", "CUDA1"), "RPC0,CUDA0,CUDA1", "20,3,3"),
    ],
)
def test_a_gpu_at_home_is_the_last_device(home_layers: int, devices: tuple[str, ...], names: str, shares: str) -> None:
    """So the output is on it, and nothing has to be called home."""
    line = split_arguments(a_split(20, home_layers=home_layers), (1,), devices)

    assert told(line, "--device") == names
    assert told(line, "--tensor-split") == shares
    assert told(line, "--n-gpu-layers") == str(21 + home_layers)
    assert "--override-tensor" not in line


def test_what_people_want_of_a_whole_model_does_not_move_layers_of_a_split() -> None:
    """The last of two equal options counts."""
    plan = dataclasses.replace(a_split_plan(30), options=EngineOptions(arguments=("--tensor-split=1,9",)))

    line = make_command(plan, SHARING, "/s.sock", KEY, A_HOST, ports=(1,)).argv

    assert [line[at + 1] for at, word in enumerate(line) if word == "--tensor-split"] == ["1,9", "31"]


def test_split_needs_a_build_and_a_port_for_each_worker() -> None:
    """What is missing is said, and nothing is started."""
    with pytest.raises(ValueError, match="engine build"):
        make_command(a_split_plan(30), WHEEL, "/s.sock", KEY, A_HOST, ports=(1,))
    with pytest.raises(ValueError, match="1 ports for the 2 workers"):
        make_command(a_split_plan(15, 15), SHARING, "/s.sock", KEY, A_HOST, ports=(1,))


def test_fake_engine_is_told_the_ports_of_its_workers() -> None:
    """It plays the host of a split, too."""
    command = make_command(a_split_plan(15, 15), a_fake_build(), "/s.sock", KEY, A_HOST, ports=(7001, 7002))

    assert json.loads(command.stdin)["rpc_ports"] == [7001, 7002]


def test_an_engine_is_told_where_to_save_its_slots() -> None:
    """Where it may; a split never is."""
    host = dataclasses.replace(A_HOST, slots_folder="/state/slots/")
    native = make_command(a_plan(), NATIVE, "/run/e.sock", "k", host).argv
    child = json.loads(make_command(a_plan(), a_fake_build(), "/run/e.sock", "k", host).stdin)

    assert native[native.index("--slot-save-path") + 1] == "/state/slots/"
    assert child["slots_folder"] == "/state/slots/"
    assert "--slot-save-path" not in make_command(a_plan(), NATIVE, "/run/e.sock", "k", A_HOST).argv
