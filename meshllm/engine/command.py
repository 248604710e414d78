"""From a plan to a command: what is run, with which environment, and what it is told on its standard input.

Owns the names of every engine option. Decides nothing: the numbers come from the plan, what is known of
this process from a `Host`. Doesn't know how a command is run. The key of an engine is never in its
arguments, which every user of the machine can read, but on its standard input.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import meshllm
from meshllm.core import limits
from meshllm.core.engine_arguments import as_command_line, as_parameters
from meshllm.core.engines import EngineBuild, EnginePlan, SplitRun

MIB = limits.MIB
PASSED_ON = frozenset({
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "LOGNAME",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH",
    "MESH_FAKE_ENGINE",
})  # fmt: skip
PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "GGML_", "GOMP_", "KMP_", "OMP_", "MTL_", "VK_")
"""What drivers, threads and llama.cpp's back ends are steered by. Everything else stays with the daemon."""
SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
HTTP_THREADS_SPARE = 8
"""For probes, beside one for each request in flight: llama.cpp gives every connection a thread, idle ones too."""
EMBEDDING_BATCH_TOKENS = 2048
"""An embedding needs its whole text in one micro-batch."""
CPU_BATCH_TOKENS = 128
"""llama.cpp hears nobody while it computes a batch, no client that leaves and no probe. On a processor its
own 2048 tokens are half a minute of a small model and minutes of a large one; 128 are as fast (measured
with SmolLM2-135M on one thread: 78 to 85 tokens/s of prompt at 128, 256, 512 and 2048) and take seconds."""
AT_HOME = r"^(output|output_norm|token_embd)\.=CPU"
"""The output layer, and the token table that some models use for it."""
SPLIT_ENVIRONMENT = {"GGML_NO_BACKTRACE": "1"}
"""A host whose worker was lost ends itself; with a debugger installed it would first spend seconds on its stack."""
GENERATES = frozenset({"chat", "completion"})
XLLAMACPP, LLAMA_SERVER, FAKE = "xllamacpp", "llama-server", "fake"
CHILD_MODULES = {XLLAMACPP: "meshllm.engine.xllamacpp_child", FAKE: "meshllm.testing.fake_engine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The parts of this process that a command is made of."""

    python: str
    """Path of the interpreter."""
    package_root: str
    """Folder that holds the package `meshllm`."""
    pid: int
    environment: Mapping[str, str]
    slots_folder: str = ""
    """Where an engine may save its slots, with a slash at the end; empty where it may not."""


def this_host() -> Host:
    """Return the parts of this process that commands are made of."""
    root = Path(meshllm.__file__).parent.parent
    return Host(python=sys.executable, package_root=str(root), pid=os.getpid(), environment=dict(os.environ))


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to run. `stdin` is written to it first, and may hold a secret."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    stdin: bytes = field(default=b"", repr=False)
    holds_stdin: bool = False
    """Its standard input stays open as long as it runs, so that its end tells of our own."""


def make_command(
    plan: EnginePlan, build: EngineBuild, socket_path: str, key: str, host: Host, *, ports: tuple[int, ...] = ()
) -> Command:
    """Return the command that serves a plan's model on a Unix socket.

    `ports` are for a split: the loopback port at which each worker is reached, in their order. Raises
    ValueError for an unknown build kind, for an argument that the engine does not have, and for a split that
    this build or these ports cannot serve.
    """
    environment = child_environment(host, threads=plan.threads)
    if plan.split is not None and len(ports) != len(plan.split.workers):
        raise ValueError(f"{len(ports)} ports for the {len(plan.split.workers)} workers of a split")
    if plan.split is not None and build.kind != FAKE:
        program = _split_program(plan, plan.split, build, socket_path, ports)
        environment = {**environment, **SPLIT_ENVIRONMENT}
        return Command(argv=guarded(host, program), env=environment, stdin=f"{key}\n".encode())
    if build.kind == LLAMA_SERVER:
        saving = ("--slot-save-path", host.slots_folder) if host.slots_folder else ()
        program = (build.program, *_native_arguments(plan, socket_path), *saving)
        return Command(argv=guarded(host, program), env=environment, stdin=f"{key}\n".encode())
    if build.kind not in CHILD_MODULES:
        msg = f"unknown kind of engine build: {build.kind!r}"
        raise ValueError(msg)
    parameters = child_parameters(plan, socket_path, key)
    if build.kind == FAKE and build.program:
        parameters["fake"] = json.loads(build.program)
    if ports:
        parameters["rpc_ports"] = list(ports)
    parameters["slots_folder"] = host.slots_folder
    program = python_module(host, CHILD_MODULES[build.kind])
    line = json.dumps(parameters).encode() + b"\n"
    return Command(argv=guarded(host, program), env=environment, stdin=line, holds_stdin=True)


def python_module(host: Host, module: str) -> tuple[str, ...]:
    """Return the program that runs one of our own modules. `-P`: never one of the working folder's."""
    return (host.python, "-P", "-u", "-m", module)


def guarded(host: Host, program: tuple[str, ...]) -> tuple[str, ...]:
    """Return a program wrapped so that it dies with the daemon. `-S`: the guard needs no installed packages."""
    return (host.python, "-P", "-S", "-m", "meshllm.engine.guard", str(host.pid), "--", *program)


def child_environment(host: Host, *, threads: int | None = None) -> dict[str, str]:
    """Return the whole environment of an engine: little, and none of the daemon's secrets."""
    kept = {name: value for name, value in host.environment.items() if _is_passed_on(name)}
    paths = [host.package_root, host.environment.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = ":".join(path for path in paths if path)
    kept["PYTHONUTF8"] = "1"
    if threads is not None:
        kept.setdefault("OMP_NUM_THREADS", str(threads))
    return kept


def child_parameters(plan: EnginePlan, socket_path: str, key: str) -> dict[str, object]:
    """Return what a child of ours is told, as JSON values."""
    return {
        "model": plan.model.path,
        "mmproj": plan.model.mmproj if plan.options.kind in {"auto", "multimodal"} else None,
        "alias": plan.model.id,
        "socket": socket_path,
        "key": key,
        "context_tokens": plan.context_tokens,
        "slots": plan.slots,
        "threads": plan.threads,
        "http_threads": plan.slots + limits.ENGINE_QUEUE_REQUESTS + HTTP_THREADS_SPARE,
        "gpu_layers": plan.gpu_layers,
        "cache_ram_mib": plan.memory.prompt_cache_bytes // MIB,
        "purpose": purpose_of(plan),
        "batch_tokens": _batch_tokens(plan),
        "chat_template": plan.options.chat_template,
        "has_jinja": plan.options.has_jinja,
        "parameters": as_parameters(plan.options.arguments),
    }


def purpose_of(plan: EnginePlan) -> str:
    """Return what an engine is started for: `generate`, `embed` or `rerank`. llama.cpp serves one of them."""
    if plan.options.kind != "auto":
        return {"embedding": "embed", "rerank": "rerank"}.get(plan.options.kind, "generate")
    capabilities = plan.model.capabilities
    if capabilities & GENERATES or not capabilities & {"embedding", "rerank"}:
        return "generate"
    return "rerank" if "rerank" in capabilities else "embed"


def _batch_tokens(plan: EnginePlan) -> int | None:
    """Return how many tokens of prompts are computed at once; None for the engine's own choice."""
    if purpose_of(plan) != "generate":
        return min(plan.context_tokens, EMBEDDING_BATCH_TOKENS)
    return None if plan.gpu_layers else CPU_BATCH_TOKENS


def _native_arguments(plan: EnginePlan, socket_path: str) -> tuple[str, ...]:
    """Return the arguments of a native llama-server. Only options that its versions of the last year know."""
    told = child_parameters(replace(plan, options=replace(plan.options, arguments=())), socket_path, key="")
    arguments = [
        "--host", socket_path,
        "--model", plan.model.path,
        "--alias", plan.model.id,
        "--ctx-size", str(plan.cache_tokens),
        "--parallel", str(plan.slots),
        "--threads", str(plan.threads),
        "--threads-batch", str(plan.threads),
        "--threads-http", str(told["http_threads"]),
        "--n-gpu-layers", str(plan.gpu_layers),
        "--cache-ram", str(told["cache_ram_mib"]),
        "--api-key-file", "/dev/stdin",
        "--jinja" if plan.options.has_jinja else "--no-jinja", "--metrics", "--slots", "--no-webui",
    ]  # fmt: skip
    if told["mmproj"]:
        arguments += ["--mmproj", str(told["mmproj"])]
    if plan.options.chat_template:
        arguments += ["--chat-template-file", plan.options.chat_template]
    if told["purpose"] != "generate":
        arguments += ["--embeddings" if told["purpose"] == "embed" else "--reranking"]
    if told["batch_tokens"] is not None:
        arguments += ["--batch-size", str(told["batch_tokens"]), "--ubatch-size", str(told["batch_tokens"])]
    return (*arguments, *as_command_line(plan.options.arguments))


def _split_program(
    plan: EnginePlan, split: SplitRun, build: EngineBuild, socket_path: str, ports: tuple[int, ...]
) -> tuple[str, ...]:
    """Return the program of the host of a split. Raises ValueError where the build has none.

    Prompts are not kept in memory beside their slot: each would come back over the network.
    """
    if build.rpc is None:
        raise ValueError("this node has no engine that can share a model; `mesh-llm engine build` makes one")
    alone = replace(plan, memory=replace(plan.memory, prompt_cache_bytes=0))
    # Ours come last, and count: people's own arguments were meant for an engine that has the whole model.
    devices = build.rpc.devices if plan.gpu_layers else ()
    return (build.rpc.server, *_native_arguments(alone, socket_path), *split_arguments(split, ports, devices))


def split_arguments(split: SplitRun, ports: tuple[int, ...], devices: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return what places the layers of a split: so many at each worker, the others and the output at home.

    llama.cpp counts the output as one more layer, and gives the last layers to devices, in their order. Where
    the host has `devices`, they come last and have the rest; where it computes on its processor, that always
    has the first layers, and the output is called home by name. Either way no logits cross the network.
    """
    shares = [worker.layers for worker in split.workers]
    at_home: list[str] = []
    if devices:
        first, rest = divmod(split.home_layers, len(devices))
        shares += [first + (number < rest) for number in range(len(devices))]
    else:
        at_home = ["--override-tensor", AT_HOME, "--no-mmproj-offload"]
    shares[-1] += 1
    return (
        "--rpc", ",".join(f"127.0.0.1:{port}" for port in ports),  # first: devices are named by it
        "--device", ",".join([*(f"RPC{number}" for number in range(len(ports))), *devices]),
        "--split-mode", "layer",
        "--tensor-split", ",".join(str(share) for share in shares),
        "--n-gpu-layers", str(sum(shares)),
        "--fit", "off",
        *at_home,
    )  # fmt: skip


def _is_passed_on(name: str) -> bool:
    """Tell whether an engine gets a variable of the daemon's environment."""
    if any(word in name.upper() for word in SECRET_WORDS):
        return False
    return name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
