"""Arguments for engines that people write themselves, as llama-server names them.

Owns which of them are ours to give, and what the others are called in the prebuilt wheel, which takes no command
line. Decides whether a list of arguments may be used. Doesn't know what an argument does to an answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class _Parameter:
    """An attribute of the wheel's parameters, dotted, and how its value is read."""

    attribute: str
    read: Callable[[str], object] | None = None
    """None for a switch, which has no value."""
    if_given: object = True
    """What a switch sets."""


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.replace("/", ",").split(",")]


_KEPT: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "`name` says which model it is": (
        "-m", "--model", "-mu", "--model-url", "-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-a", "--alias",
        "-dr", "--docker-repo", "--models-dir", "--models-preset", "--hf-token", "-hft",
    ),
    "the node chooses where its engines listen": (
        "--host", "--port", "--path", "--api-prefix", "--api-key", "--api-key-file", "--ssl-key-file",
        "--ssl-cert-file", "--reuse-port", "--threads-http", "--cors-origins",
    ),
    "the node reads them": (
        "--metrics", "--slots", "--no-slots", "--props", "--webui", "--no-webui", "--ui", "--no-ui", "--log-file",
        "--log-disable", "--slot-save-path", "--media-path", "--sse-ping-interval", "--timeout", "-to", "--help",
        "-h", "--usage", "--version", "--tools", "--sleep-idle-seconds",
    ),
    "`context_tokens` sets it, so that memory is planned with it": ("-c", "--ctx-size", "--kv-unified", "-kvu"),
    "`slots` sets it, so that memory is planned with it": ("-np", "--parallel"),
    "`threads` sets it": ("-t", "--threads", "-tb", "--threads-batch"),
    "`gpu_layers` sets it, so that memory is planned with it": (
        "-ngl", "--gpu-layers", "--n-gpu-layers", "-dev", "--device", "-fit", "--fit",
    ),
    "memory is planned by the node": (
        "-cram", "--cache-ram", "-ctk", "--cache-type-k", "-ctv", "--cache-type-v", "--mlock", "-md",
        "--model-draft", "--lora", "--lora-scaled",
    ),
    "`chat_template` and `jinja` set it": (
        "--chat-template", "--chat-template-file", "--jinja", "--no-jinja",
    ),
    "`kind` sets it": ("--embedding", "--embeddings", "--rerank", "--reranking", "--pooling", "-mm", "--mmproj"),
    "splitting a model between nodes is the mesh's": ("--rpc",),
})  # fmt: skip
_REASONS = {name: reason for reason, names in _KEPT.items() for name in names}
_WHEEL: Mapping[tuple[str, ...], _Parameter] = MappingProxyType({
    ("--temp", "--temperature"): _Parameter("sampling.temp", float),
    ("--top-k",): _Parameter("sampling.top_k", int),
    ("--top-p",): _Parameter("sampling.top_p", float),
    ("--min-p",): _Parameter("sampling.min_p", float),
    ("--repeat-penalty",): _Parameter("sampling.penalty_repeat", float),
    ("--presence-penalty",): _Parameter("sampling.penalty_present", float),
    ("--frequency-penalty",): _Parameter("sampling.penalty_freq", float),
    ("-s", "--seed"): _Parameter("sampling.seed", int),
    ("-n", "--predict", "--n-predict"): _Parameter("n_predict", int),
    ("--keep",): _Parameter("n_keep", int),
    ("-b", "--batch-size"): _Parameter("n_batch", int),
    ("-ub", "--ubatch-size"): _Parameter("n_ubatch", int),
    ("--rope-freq-base",): _Parameter("rope_freq_base", float),
    ("--rope-freq-scale",): _Parameter("rope_freq_scale", float),
    ("-mg", "--main-gpu"): _Parameter("main_gpu", int),
    ("-ts", "--tensor-split"): _Parameter("tensor_split", _numbers),
    ("--cache-reuse",): _Parameter("n_cache_reuse", int),
    ("-sps", "--slot-prompt-similarity"): _Parameter("slot_prompt_similarity", float),
    ("-nkvo", "--no-kv-offload"): _Parameter("no_kv_offload"),
    ("--swa-full",): _Parameter("swa_full"),
    ("--context-shift",): _Parameter("ctx_shift"),
    ("--no-warmup",): _Parameter("warmup", if_given=False),
    ("--no-mmproj-offload",): _Parameter("mmproj_use_gpu", if_given=False),
})  # fmt: skip
_PARAMETERS = {name: parameter for names, parameter in _WHEEL.items() for name in names}


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise ValueError for arguments that the node gives itself, or that are none."""
    for name, value in _pairs(arguments):
        if (reason := _REASONS.get(name)) is not None:
            raise ValueError(f"{name} cannot be given to an engine: {reason}")
        parameter = _PARAMETERS.get(name)
        if parameter is not None:
            _read(parameter, name, value)


def as_command_line(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return arguments as a native llama-server takes them: a value stands behind its name. Raises ValueError."""
    return tuple(part for name, value in _pairs(arguments) for part in (name, value) if part is not None)


def as_parameters(arguments: Sequence[str]) -> tuple[tuple[str, object], ...]:
    """Return arguments as (attribute of the wheel's parameters, value). Raises ValueError for one that it has not."""
    found = []
    for name, value in _pairs(arguments):
        parameter = _PARAMETERS.get(name)
        if parameter is None:
            raise ValueError(
                f"{name} is not among the engine arguments that xllamacpp takes; `engine` can name a llama-server "
                "that knows it"
            )
        found.append((parameter.attribute, _read(parameter, name, value)))
    return tuple(found)


def _read(parameter: _Parameter, name: str, value: str | None) -> object:
    if parameter.read is None:
        if value is not None:
            raise ValueError(f"{name} is a switch and takes no value")
        return parameter.if_given
    try:
        return parameter.read(value or "")
    except ValueError:
        shown = "nothing" if value is None else repr(value[:40])
        raise ValueError(f"{name} wants a number, not {shown}") from None


def _pairs(arguments: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return (name, value or None) of each argument. Raises ValueError where there is a value without a name."""
    found: list[tuple[str, str | None]] = []
    for part in arguments:
        if "\0" in part or not part:
            raise ValueError("an engine argument is empty or contains a NUL character")
        if part.startswith("-") and not _is_number(part):
            name, equals, value = part.partition("=")
            found.append((name, value if equals else None))
        elif found and found[-1][1] is None:
            found[-1] = (found[-1][0], part)
        else:
            raise ValueError(f"{part[:40]!r} stands behind no argument's name")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
