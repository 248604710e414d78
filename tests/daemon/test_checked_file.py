"""A file is whole, or the one before is used, and nothing that was damaged is thrown away."""

import stat
from pathlib import Path

import pytest

from meshllm.core.limits import STATE_FILE_BYTES
from meshllm.daemon import checked_file
from meshllm.daemon.errors import StartError


def names(folder: Path) -> list[str]:
    """Return the names in a folder, with the time of damage left out."""
    return sorted(
        path.name.partition(".corrupt-")[0] + ("!" if ".corrupt-" in path.name else "") for path in folder.iterdir()
    )


def test_content_comes_back_and_the_one_before_is_kept(tmp_path: Path) -> None:
    """One step back is enough for a crash in the middle of a write."""
    file = tmp_path / "x.json"
    assert checked_file.read(file) is None

    checked_file.write(file, {"a": 1})
    checked_file.write(file, {"a": 2, "ö": ["\ud800"]})

    assert checked_file.read(file) == {"a": 2, "ö": ["\ud800"]}
    assert names(tmp_path) == ["x.json", "x.json.bak"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b" ",
        lambda data: data.replace(b"2", b"3"),
        lambda data: b"{}",
        lambda data: data.replace(b"meshllm-state", b"meshllm-stole"),
        lambda data: b"\xff" * 100,
        lambda data: b"\0" * (STATE_FILE_BYTES + 2),
        lambda data: b"meshllm-state 1 2 fea1b3bb\n[]",
    ],
)
def test_damaged_file_is_put_aside_and_the_one_before_is_used(tmp_path: Path, damage) -> None:
    """Disks lie, people edit, power fails."""
    file = tmp_path / "x.json"
    checked_file.write(file, {"a": 1})
    checked_file.write(file, {"a": 2})
    file.write_bytes(damage(file.read_bytes()))

    assert checked_file.read(file) == {"a": 1}
    assert names(tmp_path) == ["x.json!", "x.json.bak"]

    checked_file.write(file, {"a": 3})
    assert checked_file.read(file) == {"a": 3}


def test_two_damaged_files_are_none_and_both_are_kept(tmp_path: Path) -> None:
    """Whoever reads decides what the loss means."""
    file = tmp_path / "x.json"
    for _ in range(2):
        checked_file.write(file, {"a": 1})
    file.write_bytes(b"1")
    (tmp_path / "x.json.bak").write_bytes(b"2")

    assert checked_file.read(file) is None
    assert names(tmp_path) == ["x.json!", "x.json.bak!"]
    assert checked_file.was_damaged(file)
    checked_file.write(file, {})
    assert not checked_file.was_damaged(file)


def test_crash_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    """The moment when only the kept one has its name."""
    file = tmp_path / "x.json"
    checked_file.write(file, {"a": 1})
    file.replace(tmp_path / "x.json.bak")

    assert checked_file.read(file) == {"a": 1}


def test_file_of_a_later_version_stops_the_start(tmp_path: Path) -> None:
    """It is not damaged: the program is too old, and must not put it aside."""
    file = tmp_path / "x.json"
    file.write_bytes(b"meshllm-state 2 2 00000000\n{}")

    with pytest.raises(StartError, match="later version"):
        checked_file.read(file)

    assert names(tmp_path) == ["x.json"]
