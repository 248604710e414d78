"""Folders for tensors: one for each model file, few of them, and none where there is no room."""

import os
import shutil
from pathlib import Path

import pytest

from meshllm.core.effects import Lend
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB, TENSOR_FOLDERS
from meshllm.daemon.tensor_cache import TensorCache


def an_order(digit: str, digest: str | None = None) -> Lend:
    """Return an order for the file with a digest of one digit."""
    return Lend(
        model=ModelId("big"), digest=f"sha256:{digit * 64}" if digest is None else digest, epoch=1, host=NodeId("h"),
        first_layer=0, layers=4, memory_bytes=GIB, threads=1,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _a_disk_with_room(monkeypatch: pytest.MonkeyPatch) -> None:
    a_room(monkeypatch, 100 * GIB)


def a_room(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    """Let the disk have so much room."""
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2 * free_bytes, free_bytes, free_bytes)
    )


def names(root: Path) -> set[str]:
    """Return the folders that there are, by their first digit."""
    return {one.name[0] for one in root.iterdir()}


async def test_the_same_file_has_the_same_folder(tmp_path: Path) -> None:
    """Others cannot read it."""
    cache = TensorCache(tmp_path / "tensors", tmp_path)

    first, again = await cache.folder(an_order("a")), await cache.folder(an_order("a"))

    assert first is not None
    assert first == again
    assert first.stat().st_mode & 0o777 == 0o700


async def test_only_the_files_used_last_keep_their_tensors(tmp_path: Path) -> None:
    """A disk is not filled with what nobody runs any more."""
    cache = TensorCache(tmp_path, tmp_path)
    for number, digit in enumerate("abc"):
        folder = await cache.folder(an_order(digit))
        assert folder is not None
        os.utime(folder, (number, number))

    await cache.folder(an_order("d"))

    assert len(names(tmp_path)) == TENSOR_FOLDERS
    assert names(tmp_path) == {"c", "d"}


@pytest.mark.parametrize("digest", ["", "adopted:" + "a" * 64, "sha256:../../etc"])
async def test_a_file_without_a_digest_has_no_folder(digest: str, tmp_path: Path) -> None:
    """Its tensors could not be told from another's."""
    assert await TensorCache(tmp_path, tmp_path).folder(an_order("", digest)) is None


async def test_a_full_disk_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor keeps what it had."""
    cache = TensorCache(tmp_path, tmp_path)
    await cache.folder(an_order("a"))
    a_room(monkeypatch, GIB)

    assert await cache.folder(an_order("a")) is None
    assert names(tmp_path) == set()


async def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path: Path) -> None:
    """The server runs without."""
    place = tmp_path / "tensors"
    place.write_text("a file", encoding="utf-8")

    assert await TensorCache(place, tmp_path).folder(an_order("a")) is None
