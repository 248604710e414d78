"""What a process may use is measured, with the container's limits where there are some."""

from pathlib import Path

import psutil
import pytest

from meshllm.core.limits import GIB, MIB
from meshllm.core.resources import Gpu
from meshllm.inventory.machine import free_disk_bytes, measure


class Container:
    """A tree of control group files."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cgroup"
        self.membership = folder / "membership"
        self.membership.write_text("0::/\n")

    def put(self, path: str, text: str) -> None:
        """Write one file of the tree."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)


@pytest.fixture
def container(tmp_path: Path) -> Container:
    """Return an empty tree: no limits."""
    return Container(tmp_path)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a machine with 8 cores and 64 GiB, 48 of them available."""
    memory = psutil.virtual_memory()._replace(total=64 * GIB, available=48 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 16 if logical else 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(16)), raising=False)


def test_without_a_container_the_machine_counts(container: Container) -> None:
    """Physical cores: a second thread on one core makes nothing faster."""
    measured = measure(root=container.root, membership=container.membership)

    assert (measured.cores, measured.memory_total_bytes, measured.memory_free_bytes) == (8, 64 * GIB, 48 * GIB)
    assert not measured.container_limited


def test_gpus_are_passed_through(container: Container) -> None:
    """They are measured elsewhere."""
    gpu = Gpu(index=0, name="G", total_bytes=2, free_bytes=1)

    measured = measure((gpu,), "GPU 1 does not answer", container.root, container.membership)

    assert (measured.gpus, measured.gpu_problem) == ((gpu,), "GPU 1 does not answer")


def test_the_limit_of_a_container_counts(container: Container) -> None:
    """Version 2. File cache that can be dropped is free."""
    container.put("memory.max", str(4 * GIB))
    container.put("memory.current", str(3 * GIB))
    container.put("memory.stat", f"anon 5\ninactive_file {1 * GIB}\n")
    container.put("cpu.max", "250000 100000\n")

    measured = measure(root=container.root, membership=container.membership)

    assert (measured.cores, measured.memory_total_bytes, measured.memory_free_bytes) == (3, 4 * GIB, 2 * GIB)
    assert measured.container_limited


def test_the_limit_of_an_outer_group_counts_too(container: Container) -> None:
    """A service in a slice."""
    container.membership.write_text("0::/machine.slice/unit.service\n")
    container.put("machine.slice/unit.service/memory.max", "max")
    container.put("machine.slice/unit.service/memory.current", str(1 * GIB))
    container.put("machine.slice/memory.max", str(2 * GIB))
    container.put("machine.slice/memory.current", str(1 * GIB))
    container.put("machine.slice/cpu.max", "max 100000")

    measured = measure(root=container.root, membership=container.membership)

    assert (measured.memory_total_bytes, measured.memory_free_bytes) == (2 * GIB, 1 * GIB)
    assert measured.cores == 8


def test_version_1_counts_too(container: Container) -> None:
    """Its groups have a tree for each controller."""
    container.membership.write_text("12:memory:/box\n3:cpu,cpuacct:/box\n")
    container.put("memory/box/memory.limit_in_bytes", str(2 * GIB))
    container.put("memory/box/memory.usage_in_bytes", str(512 * MIB))
    container.put("memory/box/memory.stat", f"total_inactive_file {256 * MIB}\n")
    container.put("memory/memory.limit_in_bytes", str(2**63 - 4096))
    container.put("memory/memory.usage_in_bytes", "1")
    container.put("cpu/box/cpu.cfs_quota_us", "150000")
    container.put("cpu/box/cpu.cfs_period_us", "100000")
    container.put("cpu/cpu.cfs_quota_us", "-1")
    container.put("cpu/cpu.cfs_period_us", "100000")

    measured = measure(root=container.root, membership=container.membership)

    assert (measured.cores, measured.memory_total_bytes) == (2, 2 * GIB)
    assert measured.memory_free_bytes == 2 * GIB - 256 * MIB


def test_a_limit_above_the_machine_is_none(container: Container) -> None:
    """What counts is what there is."""
    container.put("memory.max", str(128 * GIB))
    container.put("memory.current", "0")

    measured = measure(root=container.root, membership=container.membership)

    assert measured.memory_total_bytes == 64 * GIB
    assert not measured.container_limited


@pytest.mark.parametrize("text", ["", "nonsense", "-5", "max", "9" * 30])
def test_files_that_make_no_sense_are_no_limits(container: Container, text: str) -> None:
    """The kernel's files differ; a wrong guess would stop all serving."""
    container.membership.write_text("nonsense\n0::/../../etc\n")
    for name in ("memory.max", "memory.current", "memory.stat", "cpu.max"):
        container.put(name, text)

    measured = measure(root=container.root, membership=container.membership)

    assert (measured.cores, measured.memory_total_bytes) == (8, 64 * GIB)


def test_at_least_one_core_is_left(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a processor is still one thread; and physical cores are not known everywhere."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 4 if logical else None)
    container.put("cpu.max", "10000 100000")

    limited = measure(root=container.root, membership=container.membership)

    assert limited.cores == 1


def test_affinity_counts(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """`taskset` and batch systems."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1}, raising=False)

    measured = measure(root=container.root, membership=container.membership)

    assert measured.cores == 2


def test_the_free_disk_is_that_of_a_folder_which_may_not_exist_yet(tmp_path: Path) -> None:
    """Downloads make it when they need it."""
    free = free_disk_bytes(tmp_path / "not" / "there")

    assert free > 0
    assert abs(free - psutil.disk_usage(str(tmp_path)).free) < GIB


def test_a_disk_that_cannot_be_asked_has_nothing_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched to where nobody knows the room."""

    def refuse(_path: Path) -> None:
        raise OSError

    monkeypatch.setattr("shutil.disk_usage", refuse)

    assert free_disk_bytes(tmp_path) == 0
