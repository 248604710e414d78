"""Child entry point: llama.cpp's own HTTP server out of the prebuilt wheel, on one Unix socket.

Owns the translation of our parameters, one JSON line on standard input, into the wheel's. Decides
nothing. Doesn't know the daemon: it is told everything, serves until its standard input ends or a signal
comes, and says on standard error why it cannot. `--probe` loads the wheel and prints what it found.

Loading holds the interpreter's lock, so nothing here can watch over it: SIGTERM keeps its default and
ends the process at once, and the guard ties it to its daemon.
"""

import json
import os
import sys
from typing import Any, NoReturn

DEVICES_MAX = 128
"""Of the wheel's: the length of its list of shares."""
TEMPLATE_CHARS = 1_000_000


def main(arguments: list[str]) -> None:
    """Serve what standard input asks for, or print what this machine's wheel can do."""
    try:
        import xllamacpp  # noqa: PLC0415 - the one import that may fail or crash, and its failure is explained
    except ImportError as error:
        _end(f"cannot import xllamacpp: {error}")
    if arguments == ["--probe"]:
        print(json.dumps(probe(xllamacpp)), flush=True)  # noqa: T201 - standard output is the answer
        return
    told = json.loads(sys.stdin.buffer.readline())
    try:
        server = xllamacpp.Server(make_parameters(xllamacpp, told))
    except (RuntimeError, MemoryError) as error:
        _end(f"the engine did not start: {error}")
    while os.read(0, 4096):
        pass  # only the end is of interest: the daemon is gone
    del server
    os._exit(0)


def make_parameters(wheel: Any, told: dict[str, Any]) -> Any:  # noqa: ANN401 - the wheel has no types
    """Return the wheel's parameters for ours."""
    parameters = wheel.CommonParams()
    parameters.model.path = told["model"]
    if told["mmproj"]:
        parameters.mmproj.path = told["mmproj"]
    parameters.model_alias = {told["alias"]}
    parameters.hostnames = [told["socket"]]
    parameters.api_keys = [told["key"]]
    parameters.n_ctx = told["context_tokens"] * told["slots"]
    parameters.n_parallel = told["slots"]
    parameters.kv_unified = False  # a shared cache that runs full ends every request in it, guilty or not
    parameters.cpuparams.n_threads = told["threads"]
    parameters.cpuparams_batch.n_threads = told["threads"]
    parameters.n_threads_http = told["http_threads"]
    parameters.n_gpu_layers = told["gpu_layers"]
    parameters.fit_params = False  # the memory arithmetic is the node's, not the engine's
    parameters.cache_ram_mib = told["cache_ram_mib"]
    parameters.warmup = True  # so that a refused processor instruction shows at the load
    parameters.use_jinja = told["has_jinja"]
    if told["chat_template"]:
        parameters.chat_template = _text_of(told["chat_template"])
    parameters.ui = False
    parameters.endpoint_slots = True
    if told["slots_folder"]:
        parameters.slot_save_path = told["slots_folder"]
    parameters.endpoint_metrics = True
    parameters.endpoint_props = False  # would let clients change them; reading them needs no leave
    parameters.sse_ping_interval = -1  # the front door has its own
    if told["batch_tokens"] is not None:
        parameters.n_batch = parameters.n_ubatch = told["batch_tokens"]
    if told["purpose"] != "generate":
        parameters.embedding = True
    if told["purpose"] == "rerank":
        parameters.pooling_type = wheel.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    for attribute, value in told["parameters"]:
        group, _, name = attribute.rpartition(".")
        setattr(getattr(parameters, group) if group else parameters, name, _as_wheel_takes_it(name, value))
    return parameters


def _as_wheel_takes_it(name: str, value: Any) -> Any:  # noqa: ANN401
    """Return a value of our parameters for the wheel: it wants a share for every device that there could be."""
    return (value + [0.0] * DEVICES_MAX)[:DEVICES_MAX] if name == "tensor_split" else value


def _text_of(path: str) -> str:
    """Return a chat template; end the child where there is none, as the engine would."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - the child loads as little as it can
            return file.read(TEMPLATE_CHARS)
    except (OSError, UnicodeDecodeError) as error:
        _end(f"the chat template {path} cannot be read: {error}")


def probe(wheel: Any) -> dict[str, object]:  # noqa: ANN401
    """Return the wheel's version, its devices and the processor features that it uses."""
    devices = [
        {
            "name": device["name"],
            "description": device["description"],
            "is_gpu": device["type"].name.endswith("GPU"),
            "memory_bytes": device["memory_total"],
        }
        for device in wheel.get_device_info()
    ]
    return {"version": wheel.__version__, "devices": devices, "features": wheel.get_system_info().strip()}


def _end(reason: str) -> NoReturn:
    """Say why, and end without the interpreter's clean-up, which waits for the wheel's threads."""
    sys.stderr.write(f"meshllm: {reason}\n")
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
