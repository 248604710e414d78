"""A file in pieces: kept over a restart, named only when it is whole and the right one."""

import errno
import fcntl
import hashlib
import json
import os
from pathlib import Path

import pytest

from meshllm.core.limits import BULK_PIECE_BYTES, BULK_STATE_BYTES
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from meshllm.inventory.piece_file import PieceFile

CONTENT = bytes(range(256)) * 40_000  # three pieces
SHA = hashlib.sha256(CONTENT).hexdigest()


def a_file(tmp_path: Path, sha256: str = SHA) -> PieceFile:
    """Return the file in the making."""
    return PieceFile(tmp_path / "models" / "own.gguf", sha256, len(CONTENT))


def fill(file: PieceFile, *numbers: int) -> None:
    """Write some pieces."""
    for number in numbers:
        start = number * BULK_PIECE_BYTES
        file.write(start, memoryview(CONTENT)[start : start + BULK_PIECE_BYTES])


def names(tmp_path: Path) -> set[str]:
    """Return what lies in the folder."""
    return {path.name for path in (tmp_path / "models").iterdir()}


def test_a_whole_file_gets_its_name(tmp_path: Path) -> None:
    """And nothing is left beside it."""
    with a_file(tmp_path) as file:
        fill(file, 2, 0, 1)
        file.mark({0, 1, 2}, {"n2"}, is_last=True)
        path = file.finish()

    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == {"own.gguf"}


def test_an_unfinished_file_is_no_model(tmp_path: Path) -> None:
    """Nothing that looks like a model file lies there before it is whole."""
    with a_file(tmp_path) as file:
        fill(file, 0)
        file.mark({0}, (), is_last=True)

    assert not any(name.endswith(".gguf") for name in names(tmp_path))


def test_what_has_arrived_outlives_the_process(tmp_path: Path) -> None:
    """Pieces and who sent them."""
    with a_file(tmp_path) as file:
        fill(file, 0, 2)
        file.mark({0, 2}, {"n2", "n3"}, is_last=True)

    with a_file(tmp_path) as again:
        assert (again.done, again.senders) == ({0, 2}, {"n2", "n3"})
        fill(again, 1)
        assert again.finish().read_bytes() == CONTENT


def test_the_list_is_written_now_and_then(tmp_path: Path) -> None:
    """Not with every piece."""
    with a_file(tmp_path) as file:
        file.mark({0}, {"n2"})

        assert not list((tmp_path / "models").glob("*.json"))


def test_a_wrong_file_is_deleted(tmp_path: Path) -> None:
    """With both digests in the words."""
    with a_file(tmp_path, "0" * 64) as file:
        fill(file, 0, 1, 2)
        with pytest.raises(DownloadError) as wrong:
            file.finish()

    assert wrong.value.code is DownloadCode.DIGEST_MISMATCH
    assert SHA[:12] in wrong.value.message
    assert names(tmp_path) == set()


def test_hashing_on_the_way_changes_nothing(tmp_path: Path) -> None:
    """The beginning first, the rest in the end; and it stops when it should."""
    with a_file(tmp_path) as file:
        fill(file, 0, 1, 2)
        file.hash_up_to(BULK_PIECE_BYTES)
        file.hash_up_to(len(CONTENT), lambda: True)

        assert file.finish().exists()


def test_what_is_hashed_from_memory_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the beginning, as far as nothing is missing; the rest from the disk."""
    read: list[int] = []
    real = os.preadv

    def noted(descriptor: int, blocks: list[memoryview], offset: int) -> int:
        read.append(offset // BULK_PIECE_BYTES)
        return real(descriptor, blocks, offset)

    monkeypatch.setattr("os.preadv", noted)
    with a_file(tmp_path) as file:
        fill(file, 0, 1, 2)
        file.hash_block(memoryview(CONTENT)[:BULK_PIECE_BYTES])
        file.hash_block(memoryview(CONTENT)[BULK_PIECE_BYTES : 2 * BULK_PIECE_BYTES])

        assert file.hashed_bytes == 2 * BULK_PIECE_BYTES
        assert file.finish().exists()
    assert set(read) == {2}


def test_a_file_cut_short_after_it_was_hashed_is_noticed(tmp_path: Path) -> None:
    """It gets no name: what was hashed is not what lies there."""
    with a_file(tmp_path) as file:
        fill(file, 0, 1, 2)
        file.hash_block(memoryview(CONTENT))
        os.truncate(next((tmp_path / "models").glob("*.pieces")), 10)
        with pytest.raises(DownloadError, match="cut short"):
            file.finish()

    assert "own.gguf" not in names(tmp_path)


def test_two_copies_do_not_write_into_one_file(tmp_path: Path) -> None:
    """The second is told so and leaves the first alone; afterwards it can go on."""
    with a_file(tmp_path) as file:
        fill(file, 0, 1)
        file.mark({0, 1}, {"n2"}, is_last=True)
        with pytest.raises(DownloadError, match="another process") as refused:
            a_file(tmp_path)

    assert refused.value.code is DownloadCode.UNSUPPORTED
    with a_file(tmp_path) as again:
        assert again.done == {0, 1}


def test_a_file_that_got_its_name_meanwhile_is_not_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody finished it between our opening it and its being free."""
    real = fcntl.flock

    def finished_first(descriptor: int, operation: int) -> None:
        path = next((tmp_path / "models").glob("*.pieces"))
        path.rename(tmp_path / "models" / "own.gguf")
        real(descriptor, operation)

    with a_file(tmp_path) as file:
        fill(file, 0, 1, 2)
    monkeypatch.setattr("fcntl.flock", finished_first)
    with pytest.raises(DownloadError, match="another process"):
        a_file(tmp_path)

    assert (tmp_path / "models" / "own.gguf").read_bytes() == CONTENT


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have none."""

    def none_here(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none_here)
    with a_file(tmp_path) as file:
        fill(file, 0, 1, 2)

        assert file.finish().exists()


def test_another_file_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    """Somebody put it there meanwhile."""
    with a_file(tmp_path) as file:
        fill(file, 0, 1, 2)
        (tmp_path / "models" / "own.gguf").write_bytes(b"mine")
        with pytest.raises(DownloadError) as refused:
            file.finish()

    assert refused.value.code is DownloadCode.UNSUPPORTED
    assert (tmp_path / "models" / "own.gguf").read_bytes() == b"mine"


def _state(**changes: object) -> str:
    good = {
        "sha256": SHA, "size_bytes": len(CONTENT), "piece_bytes": BULK_PIECE_BYTES, "done": "07", "senders": ["n2"],
    }  # fmt: skip
    return json.dumps({**good, **changes})


@pytest.mark.parametrize(
    "state",
    [
        "", "[]", "{", "[" * 100_000, _state(sha256="1" * 64), _state(size_bytes=1), _state(piece_bytes=1),
        _state(done="zz"), _state(done=7), "x" * (BULK_STATE_BYTES + 10),
    ],
    ids=lambda state: state[:12],
)  # fmt: skip
def test_a_damaged_or_foreign_list_means_nothing(tmp_path: Path, state: str) -> None:
    """Then everything is fetched again."""
    with a_file(tmp_path) as file:
        file.mark({0}, (), is_last=True)
    next((tmp_path / "models").glob("*.json")).write_text(state)

    with a_file(tmp_path) as again:
        assert again.done == frozenset()


def test_a_list_without_its_file_means_nothing(tmp_path: Path) -> None:
    """The file was deleted by hand."""
    with a_file(tmp_path) as file:
        file.mark({0}, (), is_last=True)
    next((tmp_path / "models").glob("*.pieces")).unlink()

    with a_file(tmp_path) as again:
        assert again.done == frozenset()


def test_senders_that_are_none_are_left_out(tmp_path: Path) -> None:
    """The list is on a disk, where anybody may write."""
    with a_file(tmp_path) as file:
        file.mark({0}, (), is_last=True)
    next((tmp_path / "models").glob("*.json")).write_text(_state(senders=[1, "n2"]))

    with a_file(tmp_path) as again:
        assert again.senders == {"n2"}


def test_a_disk_without_room_is_said_with_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is fetched."""

    class Usage:
        free = 5

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(DownloadError) as full:
        a_file(tmp_path)

    assert full.value.code is DownloadCode.NO_SPACE
    assert "free" in full.value.message


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, DownloadCode.NO_SPACE), (errno.EIO, DownloadCode.UNSUPPORTED)]
)
def test_a_disk_that_does_not_take_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: DownloadCode
) -> None:
    """Full, or broken."""

    def fails(*_: object) -> int:
        raise OSError(number, "no")

    with a_file(tmp_path) as file:
        monkeypatch.setattr("os.pwrite", fails)
        with pytest.raises(DownloadError) as failed:
            fill(file, 0)

    assert failed.value.code is code


def test_a_file_that_somebody_cuts_short_is_noticed(tmp_path: Path) -> None:
    """While it is being hashed."""
    with a_file(tmp_path) as file:
        fill(file, 0, 1, 2)
        with next((tmp_path / "models").glob("*.pieces")).open("r+b") as data:
            data.truncate(10)
        with pytest.raises(DownloadError):
            file.finish()
