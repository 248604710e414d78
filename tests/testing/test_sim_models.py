"""Models and machines of a simulated mesh."""

from meshllm.core.limits import GIB
from meshllm.testing.sim_models import USUAL_BYTES, Disk, Library, Machine


def test_a_mark_tells_files_of_one_name_apart() -> None:
    """And makes one file of two names."""
    library = Library()

    found = [library.add(text) for text in ("tiny", "tiny=b", "other=tiny")]

    assert [(spec.id, spec.digest) for spec in found] == [
        ("tiny", "sha256:tiny"), ("tiny", "sha256:b"), ("other", "sha256:tiny"),
    ]  # fmt: skip


def test_a_file_keeps_its_size_wherever_it_lies() -> None:
    """Whoever names it first says how large it is."""
    library = Library()
    library.add("big", 3 * GIB)

    disk = library.of(["big", "tiny"])

    assert [spec.size_bytes for spec in disk.values()] == [3 * GIB, USUAL_BYTES]


def test_the_hub_has_what_the_library_has() -> None:
    """Under the name of its user, and nothing else."""
    library = Library()
    library.add("big", 3 * GIB)

    reference = library.resolve("sim/big")

    assert reference is not None
    assert (reference.id, reference.size_bytes, reference.asked_as) == ("big", 3 * GIB, "sim/big")
    assert library.resolve("sim/small") is None
    assert library.resolve("big") is None


def test_what_is_taken_is_not_free() -> None:
    """On the machine, on its GPU and on its disk."""
    machine = Machine(memory_bytes=16 * GIB, others_bytes=GIB, gpu_bytes=8 * GIB, disk_bytes=100 * GIB)

    found = machine.resources(2 * GIB, 3 * GIB, 10 * GIB)

    assert (found.memory_free_bytes, found.gpu_free_bytes, found.disk_free_bytes) == (13 * GIB, 5 * GIB, 90 * GIB)
    assert machine.build.uses_gpu
    assert Machine().resources(0, 0, 0).gpus == ()


def test_a_downloaded_file_takes_room() -> None:
    """Those that were there before are part of what was not free at the start."""
    library = Library()
    disk = Disk(library.of(["tiny"]))

    disk.add(library.add("big", GIB))

    assert disk.fetched_bytes == GIB
    assert list(disk.files) == ["tiny", "big"]
