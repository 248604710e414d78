"""Facts about engines that cross between core and shells: the build, the plan, the endpoint, the failure."""

from dataclasses import dataclass, field
from enum import StrEnum

from meshllm.core.catalog import ModelSpec
from meshllm.core.ids import NodeId


class EngineState(StrEnum):
    """Where one engine is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKING_OFF = "backing_off"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcBuild:
    """A program that can share a model with other machines, as its self-test found it."""

    version: str
    """Protocol and build, equal on all machines that share a model: `7.0.0 b10064`."""
    server: str
    """Path of its llama-server, which the host of a split runs."""
    worker: str
    """Path of its ggml-rpc-server, which the others run."""
    devices: tuple[str, ...] = ()
    """What its server calls the GPUs that it computes on, such as `CUDA0`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBuild:
    """An inference program that this node can run, as its self-test found it."""

    kind: str
    """`xllamacpp`, `llama-server`, or `fake` in tests."""
    version: str
    uses_gpu: bool
    program: str = ""
    """Path of the program, for a native one."""
    rpc: RpcBuild | None = None
    """What it runs models with that are shared; others are none of its business."""

    @property
    def sharing(self) -> RpcBuild | None:
        """Return what shares models here; None also where that would compute on the processor beside a GPU's engine.

        Memory is counted where the node's models lie: a part that lay elsewhere would be counted wrong at both places.
        """
        return None if self.rpc is None or (self.uses_gpu and not self.rpc.devices) else self.rpc


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """What one engine takes, in bytes, by cause. On the device that holds it, GPU or machine."""

    weights_bytes: int
    kv_bytes: int
    overhead_bytes: int
    prompt_cache_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Return the sum of all causes."""
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes + self.prompt_cache_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What people say about how an engine runs a model, that no arithmetic depends on."""

    chat_template: str = ""
    """Path of a file with a template; empty for the model's own."""
    has_jinja: bool = True
    """Whether templates are read as Jinja, which tools need."""
    arguments: tuple[str, ...] = ()
    """Further arguments, as llama-server names them; `core.engine_arguments` knows which may be given."""
    kind: str = "auto"
    """What the model is run as: `auto`, `text`, `multimodal`, `embedding` or `rerank`."""
    load_timeout_s: float | None = None
    """How long its load may go without progress; None for the node's setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPart:
    """What one worker takes of a model that is shared."""

    node: NodeId
    layers: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRun:
    """How an engine shares its model: the workers in the order of the layers, and what stays at home."""

    epoch: int
    workers: tuple[SplitPart, ...]
    home_layers: int
    """Beside the token table and the output layer, which always stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """How to run one model: everything `engine.command` needs besides the build."""

    model: ModelSpec
    context_tokens: int
    """Context of one request. Each slot has its own: no request takes another's."""
    slots: int
    """Requests that are computed at the same time."""
    gpu_layers: int
    """Layers on the GPU; 0 for none, the model's count plus one for all and the output layer."""
    threads: int
    memory: MemoryNeed
    options: EngineOptions = EngineOptions()
    attempt: int = 1
    split: SplitRun | None = None
    """None: this machine holds all of it."""

    @property
    def cache_tokens(self) -> int:
        """Return the context of all slots together, in tokens: what the KV cache has to hold."""
        return self.context_tokens * self.slots


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEndpoint:
    """Where a ready engine answers HTTP. Exactly one of `socket_path` and `address` is set."""

    socket_path: str = ""
    address: tuple[str, int] | None = None
    key: str = field(default="", repr=False)
    """Bearer key, random for each start, or a server's own; never logged, never shown."""
    served_name: str = ""
    """What an adopted server calls the model; empty for engines of our own, which are asked by the model's id."""
    is_tls: bool = False
    authority: str = ""
    """What `Host` says, for an adopted server."""
    prefix: str = ""
    """What comes before `/v1/…` at an adopted server."""

    @property
    def is_adopted(self) -> bool:
        """Tell whether it is a server that this node neither started nor can end."""
        return bool(self.served_name)


class EngineFault(StrEnum):
    """Why an engine ended. People see these in `status`; programs in `/v1/models`."""

    STOPPED = "stopped"  # asked to
    OUT_OF_MEMORY = "out_of_memory"
    BAD_FILE = "bad_file"
    MISSING_FILE = "missing_file"
    UNKNOWN_ARCHITECTURE = "unknown_architecture"
    ILLEGAL_INSTRUCTION = "illegal_instruction"
    CRASHED = "crashed"  # a signal that nothing explains
    EXITED = "exited"  # an exit code that nothing explains
    HUNG = "hung"
    LOAD_TIMEOUT = "load_timeout"
    CANNOT_START = "cannot_start"  # the program is missing or not executable
    UNUSABLE_BUILD = "unusable_build"  # the self-test failed
    DOWNLOAD_FAILED = "download_failed"  # there is no file to run
    UNREACHABLE = "unreachable"  # an adopted server does not answer
    REFUSED = "refused"  # an adopted server does not take the key
    BAD_ANSWER = "bad_answer"  # an adopted server speaks something else
    NOT_LISTED = "not_listed"  # an adopted server does not have the model


PERMANENT_FAULTS = frozenset({
    EngineFault.BAD_FILE, EngineFault.MISSING_FILE, EngineFault.UNKNOWN_ARCHITECTURE,
    EngineFault.ILLEGAL_INSTRUCTION, EngineFault.CANNOT_START, EngineFault.UNUSABLE_BUILD,
})  # fmt: skip
"""Faults that another try would only repeat. Until the file, the plan or the build changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFailure:
    """An engine's end, with a sentence for people: what happened and what would help."""

    fault: EngineFault
    message: str
    exit_code: int | None = None
    """Exit status; negative for the number of the signal that ended it."""
