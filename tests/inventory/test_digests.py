"""Digests are computed once, remembered across restarts, and never believed of a changed file."""

import asyncio
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from meshllm.core import limits
from meshllm.inventory import digests
from meshllm.inventory.digests import DigestStore, FileVersion


def version_of(path: Path) -> FileVersion:
    """Return a file's version."""
    return FileVersion.of(str(path), path.stat())


def file_with(path: Path, content: bytes) -> FileVersion:
    """Write a file and return its version."""
    path.write_bytes(content)
    return version_of(path)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return where the digests are kept."""
    return tmp_path / "state" / "digests.json"


def obstruct(path: Path) -> None:
    """Put a folder where a file should be."""
    path.mkdir(parents=True)


def saved(path: Path) -> list[list[object]]:
    """Return the rows of a state file."""
    rows: list[list[object]] = json.loads(path.read_text())["files"]
    return rows


def mode_of(path: Path) -> int:
    """Return what others than the owner may do with a file."""
    return path.stat().st_mode & 0o077


async def test_a_file_is_hashed_and_remembered_across_restarts(tmp_path: Path, state: Path) -> None:
    """Forty gigabytes take a minute; once is enough."""
    version = file_with(tmp_path / "a", b"hello")
    expected = hashlib.sha256(b"hello").hexdigest()

    computed = await DigestStore(state).hash_file(version)

    assert computed == expected
    assert DigestStore(state).digest_of(version) == expected
    assert mode_of(state) == 0


async def test_a_changed_file_is_unknown_again(tmp_path: Path, state: Path) -> None:
    """Path, size and time have to be the same."""
    store = DigestStore(state)
    version = file_with(tmp_path / "a", b"hello")
    await store.hash_file(version)
    os.utime(tmp_path / "a", ns=(1, 1))

    known = store.digest_of(version_of(tmp_path / "a"))

    assert known == ""


async def test_a_file_that_is_not_that_version_is_not_hashed(tmp_path: Path, state: Path) -> None:
    """It changed between the scan and now."""
    version = file_with(tmp_path / "a", b"hello")
    file_with(tmp_path / "a", b"hello, world")

    computed = await DigestStore(state).hash_file(version)

    assert computed == ""


async def test_a_file_that_is_gone_has_no_digest(tmp_path: Path, state: Path) -> None:
    """And it is no error."""
    version = file_with(tmp_path / "a", b"hello")
    (tmp_path / "a").unlink()

    computed = await DigestStore(state).hash_file(version)

    assert computed == ""


async def test_a_known_file_is_not_read_again(tmp_path: Path, state: Path) -> None:
    """The digest of a file that is gone by now is still known."""
    store = DigestStore(state)
    version = file_with(tmp_path / "a", b"hello")
    first = await store.hash_file(version)
    (tmp_path / "a").unlink()

    again = await store.hash_file(version)

    assert again == first


async def test_the_digest_of_a_set_is_that_of_its_digests_in_order(tmp_path: Path, state: Path) -> None:
    """A set is known when all its files are."""
    store = DigestStore(state)
    one, two = file_with(tmp_path / "1", b"one"), file_with(tmp_path / "2", b"two")
    first = await store.hash_file(one)
    partly = store.combined([one, two])
    second = await store.hash_file(two)

    assert partly == ""
    assert store.combined([one]) == f"sha256:{first}"
    assert store.combined([one, two]) == "sha256:" + hashlib.sha256(f"{first}\n{second}".encode()).hexdigest()
    assert store.combined([]) == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b'{"files": 5}',
        b'{"files": [5, ["a", 1], ["a", "b", "c", "d"], ["a", 1, 2, "short"]]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (limits.STATE_FILE_BYTES + 1),
    ],
)
def test_a_damaged_state_file_is_like_none(state: Path, content: bytes) -> None:
    """It only costs time."""
    state.parent.mkdir()
    state.write_bytes(content)

    store = DigestStore(state)

    assert store.digest_of(FileVersion("a", 1, 2)) == ""


async def test_a_state_file_that_cannot_be_written_is_no_failure(tmp_path: Path, state: Path) -> None:
    """A full disk does not stop serving."""
    obstruct(state)
    store = DigestStore(state)
    version = file_with(tmp_path / "a", b"hello")

    computed = await store.hash_file(version)

    assert computed == store.digest_of(version) != ""
    assert not list(state.parent.glob("*.part"))


async def test_the_state_file_stays_small(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept."""
    monkeypatch.setattr(limits, "DIGEST_ENTRIES", 2)
    store = DigestStore(state)
    for name in "abc":
        await store.hash_file(file_with(tmp_path / name, name.encode()))

    kept = [row[0] for row in saved(state)]

    assert kept == [str(tmp_path / "b"), str(tmp_path / "c")]


async def test_cancelling_stops_the_thread(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's end does not wait for a hundred gigabytes."""
    monkeypatch.setattr(digests, "_CHUNK_BYTES", 16)
    stops: list[threading.Event] = []

    def watched(version: FileVersion, stop: threading.Event) -> str:
        stops.append(stop)
        loop.call_soon_threadsafe(started.set)
        stop.wait(5)
        return real(version, stop)

    loop, started, real = asyncio.get_running_loop(), asyncio.Event(), digests._sha256
    monkeypatch.setattr(digests, "_sha256", watched)
    version = file_with(tmp_path / "a", b"x" * 1000)
    store = DigestStore(state)

    async with asyncio.TaskGroup() as tasks:
        hashing = tasks.create_task(store.hash_file(version))
        await asyncio.wait_for(started.wait(), 5)
        hashing.cancel()

    assert stops[0].is_set()
    assert real(version, stops[0]) == ""
    assert store.digest_of(version) == ""


async def test_a_save_that_has_begun_ends_before_its_task(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever deletes the folder when the node is gone would find it written again."""
    loop, saving, may_go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    store = DigestStore(state)
    real = store.save

    def slowly() -> None:
        loop.call_soon_threadsafe(saving.set)
        may_go_on.wait(30)
        real()

    monkeypatch.setattr(store, "save", slowly)
    version = file_with(tmp_path / "a", b"hello")

    async with asyncio.TaskGroup() as tasks:
        hashing = tasks.create_task(store.hash_file(version))
        await asyncio.wait_for(saving.wait(), 30)
        hashing.cancel()
        await asyncio.sleep(0)
        was_done = hashing.done()
        may_go_on.set()

    assert (was_done, hashing.cancelled()) == (False, True)
    assert [row[0] for row in saved(state)] == [version.path]


@pytest.mark.rows("REG-17")
async def test_content_that_changed_without_its_time_is_found_by_hashing_it_again(tmp_path: Path, state: Path) -> None:
    """A digest of an earlier run is only a memory; one of this run is not computed twice."""
    path = tmp_path / "a"
    version = file_with(path, b"hello")
    first = DigestStore(state)
    await first.hash_file(version)
    path.write_bytes(b"jello")
    os.utime(path, ns=(version.mtime_ns, version.mtime_ns))
    later = DigestStore(state)

    unread = await first.verify_file(version)
    found = await later.verify_file(version)

    assert (unread, found) == (False, True)
    assert "sha256 was 2cf24dba5fb0" in later.damage_of(version)
    assert not first.damage_of(version)
    assert not await later.verify_file(version)
    assert not later.damage_of(file_with(path, b"another"))


async def test_a_file_that_is_gone_or_unknown_is_not_called_damaged(tmp_path: Path, state: Path) -> None:
    """The watcher sees that it is gone."""
    version = file_with(tmp_path / "a", b"hello")
    await DigestStore(state).hash_file(version)
    later = DigestStore(state)
    (tmp_path / "a").unlink()

    assert not await later.verify_file(version)
    assert not await later.verify_file(FileVersion("nothing", 1, 1))
    assert not later.damage_of(version)
