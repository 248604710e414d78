"""Finds the GPUs that an engine could use and how much of their memory is free.

Owns the reading of NVIDIA's management library, and the special case of Apple's shared memory. Decides
nothing; says in words why there is none. Doesn't know whether the engine was built for what it finds.

Invariant: `probe` raises nothing, whatever the driver does short of ending the process.
"""

import ctypes
import importlib
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import psutil

from meshllm.core.resources import Gpu, format_bytes

_APPLE_SHARE: Final = 0.75
"""Of a Mac's memory, what Metal lets one process keep on the GPU by default."""
_DRM: Final = Path("/sys/class/drm")
_AMD_VENDOR: Final = "0x1002"
_NVML: Final = "libnvidia-ml.so.1"
_NO_DRIVER: Final = "no NVIDIA driver is installed"
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProbe:
    """The GPUs of a machine, or the reason in words why there are none."""

    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None


def probe(nvml: ModuleType | None = None, drm: Path = _DRM) -> GpuProbe:
    """Look for GPUs. `nvml` stands in for the `pynvml` module, `drm` for the kernel's list of graphics cards."""
    if nvml is None and sys.platform == "darwin":
        return _apple()
    if nvml is None and sys.platform == "linux" and not _has_library():
        return GpuProbe(problem=_other_cards(drm) or _NO_DRIVER)
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return GpuProbe(problem="the Python package nvidia-ml-py is missing, so no GPU can be seen")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return GpuProbe(problem=_other_cards(drm) or _no_driver(nvml, error))
    try:
        return _nvidia(nvml)
    except nvml.NVMLError as error:
        return GpuProbe(problem=f"the NVIDIA driver does not answer: {error}")
    finally:
        _shut_down(nvml)


def _has_library() -> bool:
    """Tell whether the driver's library is there. Without it, two megabytes of Python need not be loaded to say so."""
    try:
        ctypes.CDLL(_NVML)
    except OSError:
        return False
    return True


def _no_driver(nvml: ModuleType, error: Exception) -> str:
    missing = (getattr(nvml, "NVMLError_LibraryNotFound", ()), _NO_DRIVER)
    not_loaded = (getattr(nvml, "NVMLError_DriverNotLoaded", ()), "the NVIDIA driver is installed but not loaded")
    for kind, words in (missing, not_loaded):
        if isinstance(error, kind):
            return words
    return f"the NVIDIA driver cannot be used: {error}"


def _nvidia(nvml: ModuleType) -> GpuProbe:
    """Ask each device. Raises the library's own error if the driver as a whole fails."""
    count = nvml.nvmlDeviceGetCount()
    if count == 0:
        return GpuProbe(problem="an NVIDIA driver is loaded, but there is no NVIDIA GPU")
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    gpus, problems = [], []
    for index in range(count):
        try:
            gpu, identity = _device(nvml, index, driver)
        except nvml.NVMLError as error:
            problems.append(f"GPU {index} does not answer: {error}")
            continue
        if _is_visible(index, identity):
            gpus.append(gpu)
        else:
            problems.append(f"GPU {index} is hidden by {_VISIBLE}")
    return GpuProbe(gpus=tuple(gpus), problem="; ".join(problems) or None)


def _device(nvml: ModuleType, index: int, driver: str) -> tuple[Gpu, str]:
    """Return a device and its unique identity."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    gpu = Gpu(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        driver=driver,
    )
    return gpu, _text(nvml.nvmlDeviceGetUUID(handle))


def _is_visible(index: int, identity: str) -> bool:
    """Tell whether the environment lets engines use a device, as CUDA reads it."""
    visible = os.environ.get(_VISIBLE)
    if visible is None:
        return True
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return any(name == str(index) or (not name.isdecimal() and identity.startswith(name)) for name in names)


def _shut_down(nvml: ModuleType) -> None:
    try:
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        return


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _apple() -> GpuProbe:
    """Return an Apple chip's GPU, which shares the machine's memory; Intel Macs have none that counts."""
    if platform.machine() != "arm64":
        return GpuProbe(problem="this Mac has no Apple silicon")
    memory = psutil.virtual_memory()
    total = int(memory.total * _APPLE_SHARE)
    gpu = Gpu(index=0, name="Apple silicon (shared memory)", total_bytes=total, free_bytes=min(total, memory.available))
    return GpuProbe(gpus=(gpu,))


def _other_cards(drm: Path) -> str:
    """Say that there is an AMD GPU, whose memory is not counted; empty where there is none."""
    try:
        cards = sorted(drm.glob("card*/device/vendor"))
        found = [card.parent for card in cards if card.read_text(encoding="ascii").strip() == _AMD_VENDOR]
        sizes = [int((card / "mem_info_vram_total").read_text(encoding="ascii")) for card in found]
    except (OSError, ValueError):
        return ""
    if not sizes:
        return ""
    return f"an AMD GPU with {format_bytes(sum(sizes))} is installed; AMD GPUs are not used yet"
