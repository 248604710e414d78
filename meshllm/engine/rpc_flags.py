"""How llama.cpp is built so that it can share models: the flags for a platform and the tools that it has.

Owns the flags and the order in which GPU tools are preferred. Decides that a build is portable unless somebody wants
it native. Doesn't look for tools: it is told which there are.
"""

import hashlib
import json

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
"""Of the package, whose source carries llama.cpp."""
COMMON = (
    "-DGGML_RPC=ON",
    "-DLLAVA_BUILD=OFF",  # the tools build it themselves
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_TOOLS_INSTALL=ON",
)
ORIGIN = {"darwin": "@loader_path"}
"""What a program's own folder is called where libraries are looked for."""


def build_flags(platform: str, tools: frozenset[str] = frozenset(), *, native: bool = False) -> tuple[str, ...]:
    """Return the flags for CMake. `tools` are programs that were found: `nvcc`, `nvidia-smi`, `hipcc`, `glslc`.

    Portable by default: what a processor says it can do is not always what its virtual machine lets it do.
    """
    flags = [f"-DGGML_NATIVE={'ON' if native else 'OFF'}", *COMMON]
    flags.append(f"-DCMAKE_INSTALL_RPATH={ORIGIN.get(platform, '$ORIGIN')}/../lib")
    if platform == "darwin":
        return tuple(flags)  # Metal is there by itself
    if {"nvcc", "nvidia-smi"} <= tools:  # a compiler alone is on many machines that have no GPU
        flags += ["-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native"]  # the GPUs of this machine, not all there are
    elif "hipcc" in tools:
        flags.append("-DGGML_HIP=ON")
    elif "glslc" in tools:
        flags.append("-DGGML_VULKAN=ON")
    return tuple(flags)


def build_key(flags: tuple[str, ...], platform: str, machine: str) -> str:
    """Return the name of a build's folder: the same for the same source, flags and kind of machine."""
    facts = json.dumps([VERSION, flags, platform, machine])
    return f"{PACKAGE}-{VERSION}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"
