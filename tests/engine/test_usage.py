"""What a process takes of the machine."""

import os
from pathlib import Path

import pytest

from meshllm.engine.usage import oom_kills, usage_of

ON_LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")


@ON_LINUX
def test_own_process_takes_memory_and_time() -> None:
    """The numbers are those of the kernel."""
    usage = usage_of(os.getpid())

    assert usage is not None
    assert 10**6 < usage.resident_bytes < 10**11
    assert 0 < usage.cpu_s < 10**5


def test_command_with_parentheses_and_spaces_is_read(tmp_path: Path) -> None:
    """A process may be called anything."""
    (tmp_path / "7").mkdir()
    rest = " ".join(["S", *["0"] * 10, "200", "50", *["0"] * 8, "3"])
    (tmp_path / "7" / "stat").write_text(f"7 (a) b (c) {rest}\n", encoding="utf-8")

    usage = usage_of(7, proc=tmp_path)

    assert usage is not None
    assert usage.resident_bytes == 3 * os.sysconf("SC_PAGE_SIZE")
    assert usage.cpu_s == 250 / os.sysconf("SC_CLK_TCK")


def test_gone_process_takes_nothing_that_is_known(tmp_path: Path) -> None:
    """Absent and unreadable are the same: unknown."""
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "stat").write_text("garbage", encoding="utf-8")

    assert usage_of(7, proc=tmp_path) is None
    assert usage_of(8, proc=tmp_path) is None


@pytest.mark.parametrize("layout", ["version 2", "version 1", "machine", "container"])
def test_kills_for_want_of_memory_are_counted(tmp_path: Path, layout: str) -> None:
    """Each layout of control groups has its file."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    membership = "4:memory:/work\n" if layout == "version 1" else "0::/work\n"
    (proc / "self" / "cgroup").write_text(membership, encoding="utf-8")
    file = {
        "version 2": cgroups / "work" / "memory.events",
        "version 1": cgroups / "memory" / "work" / "memory.oom_control",
        "machine": proc / "vmstat",
        "container": cgroups / "memory.events",
    }[layout]
    file.parent.mkdir(parents=True, exist_ok=True)

    before = oom_kills(proc, cgroups)
    file.write_text("oom 9\noom_kill 2\noom_group_kill 1\n", encoding="ascii")

    assert before == 0
    assert oom_kills(proc, cgroups) == 2


def test_unreadable_counters_count_nothing(tmp_path: Path) -> None:
    """A system that doesn't tell is no reason to fail."""
    (tmp_path / "vmstat").write_text("oom_kill many\n", encoding="ascii")

    assert oom_kills(tmp_path, tmp_path) == 0
