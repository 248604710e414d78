"""Measures the machine: processors, memory and disk, as far as this process may use them.

Owns the reading of psutil and of Linux control groups. Decides nothing: the smallest bound that holds is the
answer. Doesn't know what the memory is for. GPUs are measured by `gpu` and only passed through.
"""

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from meshllm.core.resources import Gpu, Resources

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")
_UNLIMITED_BYTES: Final = 2**60
"""Version 1 writes a number near 2^63 where there is no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ContainerMemory:
    """A control group's limit and what its processes hold, without file cache that can be dropped."""

    limit_bytes: int
    used_bytes: int


def measure(
    gpus: tuple[Gpu, ...] = (), problem: str | None = None, root: Path = CGROUP_ROOT, membership: Path = MEMBERSHIP
) -> Resources:
    """Measure processors and memory; add the GPUs that `gpu.probe` found, or why there are none."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    container = _container_memory(root, membership)
    is_limited = container is not None and container.limit_bytes < total
    if container is not None and is_limited:
        total = container.limit_bytes
        free = max(min(free, container.limit_bytes - container.used_bytes), 0)
    return Resources(
        cores=_cores(root, membership),
        memory_total_bytes=total,
        memory_free_bytes=free,
        gpus=gpus,
        gpu_problem=problem,
        container_limited=is_limited,
    )


def free_disk_bytes(folder: Path) -> int:
    """Return what is free on the disk of a folder that may not exist yet; 0 when nobody can tell."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    try:
        return shutil.disk_usage(existing).free if existing is not None else 0
    except OSError:
        return 0


def _cores(root: Path, membership: Path) -> int:
    """Return the physical cores, bounded by this process's affinity and the container's quota; at least one."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = _processor_quota(root, membership)
    return max(min(cores, math.ceil(quota)) if quota is not None else cores, 1)


def _container_memory(root: Path, membership: Path) -> _ContainerMemory | None:
    """Return the tightest memory limit over this process, or None without one."""
    found = [_ContainerMemory(limit_bytes=limit, used_bytes=used) for limit, used in _memory_of(root, membership)]
    limited = [memory for memory in found if 0 < memory.limit_bytes < _UNLIMITED_BYTES]
    return min(limited, key=lambda memory: memory.limit_bytes - memory.used_bytes, default=None)


def _memory_of(root: Path, membership: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, used) of every group over this process that states both."""
    version_2, version_1 = _groups(root, membership, "memory")
    names = [(group, "memory.max", "memory.current", "inactive_file") for group in version_2]
    names += [(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file") for group in version_1]
    for group, limit_name, used_name, cache_name in names:
        limit, used = _number(group / limit_name), _number(group / used_name)
        if limit is not None and used is not None:
            yield limit, max(used - _statistic(group / "memory.stat", cache_name), 0)


def _processor_quota(root: Path, membership: Path) -> float | None:
    """Return the tightest processor quota over this process, in processors, or None without one."""
    version_2, version_1 = _groups(root, membership, "cpu")
    quotas = []
    for group in version_2:
        match _text(group / "cpu.max").split():
            case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period):
                quotas.append(int(quota) / int(period))
    for group in version_1:
        limit, length = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if limit is not None and limit > 0 and length:
            quotas.append(limit / length)
    return min(quotas, default=None)


def _groups(root: Path, membership: Path, controller: str) -> tuple[list[Path], list[Path]]:
    """Return the folders of this process's groups, innermost first: of version 2, and of version 1.

    The root itself is always among them: in a container with a namespace of its own it is the container's.
    """
    version_2, version_1 = [root], [root / controller]
    for line in _text(membership).splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if ".." in path.split("/"):
            continue
        if number == "0" and not names:
            version_2 = _with_parents(root, path)
        elif controller in names.split(","):
            version_1 = _with_parents(root / controller, path)
    return version_2, version_1


def _with_parents(root: Path, path: str) -> list[Path]:
    parts = [part for part in path.split("/") if part]
    return [root.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]


def _statistic(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
