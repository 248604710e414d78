"""GPUs are found, or it is said honestly why there are none; the probe itself never fails."""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from meshllm.core.limits import GIB
from meshllm.core.resources import Gpu
from meshllm.inventory import gpu
from meshllm.inventory.gpu import probe


class Nvml(ModuleType):
    """Stands in for the `pynvml` module: some devices, some of them broken."""

    class NVMLError(Exception):
        """The library's own error."""

    class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818
        """No driver."""

    class NVMLError_DriverNotLoaded(NVMLError):  # noqa: N801, N818
        """A driver that is not loaded."""

    def __init__(self, devices: int = 0, *, broken: int | None = None, init: type[Exception] | None = None) -> None:
        super().__init__("fake_nvml")
        self.devices = devices
        self.broken = broken
        self.init = init
        self.shut_down = 0

    def nvmlInit(self) -> None:  # noqa: N802
        """Start, or fail as told."""
        if self.init is not None:
            raise self.init("init")

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Count the ends."""
        self.shut_down += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """Return the devices, or fail with a negative number of them."""
        if self.devices < 0:
            raise self.NVMLError("lost")
        return self.devices

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        """Return bytes, as old versions do."""
        return b"570.1"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        """Return a handle, unless the device is broken."""
        if index == self.broken:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, _handle: int) -> SimpleNamespace:  # noqa: N802
        """Return the memory."""
        return SimpleNamespace(total=24 * GIB, free=20 * GIB, used=4 * GIB)

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        """Return the name."""
        return f"Card {handle}"

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        """Return the identity."""
        return f"GPU-{handle}abc"


@pytest.fixture(autouse=True)
def _every_device_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide nothing, whatever the machine of the test does."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def card(index: int) -> Gpu:
    """Return what a fake device looks like."""
    return Gpu(index=index, name=f"Card {index}", total_bytes=24 * GIB, free_bytes=20 * GIB, driver="570.1")


def test_every_device_is_measured_and_the_library_shut_down() -> None:
    """The library holds the driver open otherwise."""
    nvml = Nvml(2)

    found = probe(nvml)

    assert found.gpus == (card(0), card(1))
    assert found.problem is None
    assert nvml.shut_down == 1


@pytest.mark.parametrize(
    ("nvml", "words"),
    [
        (Nvml(init=Nvml.NVMLError_LibraryNotFound), "no NVIDIA driver is installed"),
        (Nvml(init=Nvml.NVMLError_DriverNotLoaded), "not loaded"),
        (Nvml(init=Nvml.NVMLError), "cannot be used"),
        (Nvml(0), "no NVIDIA GPU"),
        (Nvml(-1), "does not answer"),
    ],
)
def test_without_a_gpu_the_reason_is_said(nvml: Nvml, words: str, tmp_path: Path) -> None:
    """Each reason has its words."""
    found = probe(nvml, tmp_path)

    assert found.gpus == ()
    assert words in (found.problem or "")


def test_without_the_python_package_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody installed without dependencies."""

    def missing(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: None)
    monkeypatch.setattr("importlib.import_module", missing)

    found = probe()

    assert "nvidia-ml-py" in (found.problem or "")


def test_without_the_drivers_library_the_python_package_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its two megabytes are for those who have a GPU."""

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", missing)
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was imported"))

    assert probe(drm=tmp_path).problem == "no NVIDIA driver is installed"


def test_a_broken_device_does_not_hide_the_others() -> None:
    """A GPU that fell off the bus."""
    found = probe(Nvml(2, broken=0))

    assert found.gpus == (card(1),)
    assert "GPU 0 does not answer" in (found.problem or "")


@pytest.mark.parametrize(
    ("visible", "expected"), [("1", [1]), ("GPU-0", [0]), ("", []), ("-1", []), ("1, 0", [0, 1]), ("NoDevFiles", [])]
)
def test_hidden_devices_do_not_count(monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[int]) -> None:
    """An engine would not see them either."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    found = probe(Nvml(2))

    assert [gpu.index for gpu in found.gpus] == expected


def test_a_failing_shutdown_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is known by then."""

    def failing() -> None:
        raise Nvml.NVMLError("late")

    nvml = Nvml(1)
    monkeypatch.setattr(nvml, "nvmlShutdown", failing)

    found = probe(nvml)

    assert found.gpus == (card(0),)


@pytest.mark.parametrize(("vendor", "named"), [("0x1002", True), ("0x8086", False)])
def test_an_amd_gpu_is_named_as_unused(tmp_path: Path, vendor: str, named: bool) -> None:
    """Its owner would wonder."""
    device = tmp_path / "card0" / "device"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "mem_info_vram_total").write_text(f"{16 * 10**9}\n")

    found = probe(Nvml(init=Nvml.NVMLError_LibraryNotFound), tmp_path)

    assert ("AMD GPU with 16.0 GB" in (found.problem or "")) is named


@pytest.mark.parametrize(("machine", "count"), [("arm64", 1), ("x86_64", 0)])
def test_apple_silicon_shares_the_memory(monkeypatch: pytest.MonkeyPatch, machine: str, count: int) -> None:
    """Metal takes three quarters of it."""
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: machine)

    found = probe()

    assert len(found.gpus) == count
    assert (found.problem is None) == bool(count)
    assert all(0 < item.free_bytes <= item.total_bytes for item in found.gpus)
    assert gpu._APPLE_SHARE < 1
