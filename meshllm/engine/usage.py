"""What a process takes of the machine, read from /proc; nothing where the system has no such folder.

Owns the reading of three numbers of one process (memory twice, processor time) and of the kernel's count of
processes that it ended for want of memory. Decides nothing. Doesn't know what the process is.
"""

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
USER_TIME_FIELD, SYSTEM_TIME_FIELD, RESIDENT_FIELD = 11, 12, 21
"""Places in /proc/PID/stat after the command's closing parenthesis; see proc(5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one process takes."""

    resident_bytes: int
    anonymous_bytes: int
    """Of these, what is no file's page: what the process itself wrote."""
    cpu_s: float
    """Processor time since its start, of all its threads."""


def usage_of(pid: int, proc: Path = PROC) -> Usage | None:
    """Return what a process takes; None when it is gone or the system does not tell."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()
        ticks = int(fields[USER_TIME_FIELD]) + int(fields[SYSTEM_TIME_FIELD])
        return Usage(
            resident_bytes=int(fields[RESIDENT_FIELD]) * os.sysconf("SC_PAGE_SIZE"),
            anonymous_bytes=_anonymous_pages(pid, proc) * os.sysconf("SC_PAGE_SIZE"),
            cpu_s=ticks / os.sysconf("SC_CLK_TCK"),
        )
    except (OSError, ValueError, IndexError):
        return None


def _anonymous_pages(pid: int, proc: Path) -> int:
    """Return the pages that a process wrote itself; 0 where the system does not tell."""
    try:
        resident, shared = (proc / str(pid) / "statm").read_text(encoding="ascii").split()[1:3]
        return int(resident) - int(shared)
    except (OSError, ValueError):
        return 0


def oom_kills(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return how many processes the kernel has ended for want of memory, in our control group or at all.

    Only the difference of two readings has a meaning. 0 where nothing tells.
    """
    groups = _own_groups(proc)
    version_2 = [cgroups / group / "memory.events" for group in groups]
    version_1 = [cgroups / "memory" / group / "memory.oom_control" for group in groups]
    counts = [_counter(path) for path in (*version_2, *version_1, proc / "vmstat")]
    return sum(counts)


def _own_groups(proc: Path) -> set[str]:
    """Return the paths of our control groups, relative to the root of theirs; the root itself is one."""
    groups = {"."}
    try:
        for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in {"", "memory"}:
                groups.add(path.strip("/") or ".")
    except (OSError, ValueError):
        pass  # the root is what a container sees
    return groups


def _counter(path: Path) -> int:
    """Return the value of the line `oom_kill N` of a file; 0 without it."""
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        return 0
    return 0
