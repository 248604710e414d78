"""What a node has and what is free: memory, processors, GPUs, disk. Values only, measured elsewhere."""

import re
from dataclasses import dataclass

from meshllm.core.limits import GIB, KIB, MIB

_UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1024 * GIB, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator. `free_bytes` counts what other programs leave."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    driver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """A machine at one moment. `memory_*` respect a container's limit where there is one."""

    cores: int
    memory_total_bytes: int
    memory_free_bytes: int
    gpus: tuple[Gpu, ...] = ()
    gpu_problem: str | None = None
    """Why no GPU was found, in words, where the reason is more than 'none installed'."""
    container_limited: bool = False
    disk_free_bytes: int = 0
    """Where downloads go; 0 while unknown."""

    @property
    def gpu_total_bytes(self) -> int:
        """Return the memory of all GPUs together."""
        return sum(gpu.total_bytes for gpu in self.gpus)

    @property
    def gpu_free_bytes(self) -> int:
        """Return the free memory of all GPUs together."""
        return sum(gpu.free_bytes for gpu in self.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """What a node would use of its machine if nothing else ran: as it was told, and as its engine can."""

    memory_bytes: int
    gpu_bytes: int = 0
    """0 also where its engine cannot use the GPUs that there are."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """How much of the machine the node may use: a share of the total or a number of bytes."""

    share: float | None = None
    size_bytes: int | None = None

    @classmethod
    def parse(cls, text: str) -> "MemoryLimit":
        """Read `80%`, `12GB`, `12GiB` or `12g`. Raises ValueError naming the accepted forms."""
        text = text.strip()
        if match := _SHARE.fullmatch(text):
            percent = float(match[1])
            if not 0 < percent <= 100:
                msg = f"{text!r} is outside 0 % to 100 %"
                raise ValueError(msg)
            return cls(share=percent / 100)
        return cls(size_bytes=parse_size(text))

    def of(self, total_bytes: int) -> int:
        """Return the bytes that this limit allows of a total."""
        if self.size_bytes is not None:
            return min(self.size_bytes, total_bytes)
        return int(total_bytes * (self.share if self.share is not None else 1.0))


def parse_size(text: str) -> int:
    """Read `12GB` (10^9), `12GiB` or `12g` (2^30) as bytes. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        msg = f"{text!r} is not a size; write for example 12GB, 12GiB or 80%"
        raise ValueError(msg)
    return int(float(match[1]) * unit)


def format_bytes(count: int) -> str:
    """Return a count of bytes for people: `98 MB`, `1.3 GB` (powers of ten, as disks are sold)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
