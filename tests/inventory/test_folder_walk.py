"""The search for files goes as deep and as far as said, and no further."""

import os
from pathlib import Path

import pytest

from meshllm.core import limits
from meshllm.inventory.folder_walk import shown, walk


def touch(path: Path) -> Path:
    """Make an empty file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_files_are_found_in_order_with_what_identifies_them(tmp_path: Path) -> None:
    """Folder, name, size, time and inode."""
    deep, flat = touch(tmp_path / "a" / "Deep.gguf"), touch(tmp_path / "Flat.GGUF")

    files, problems = walk(tmp_path)

    assert problems == []
    assert [file.path for file in files] == [str(flat), str(deep)]
    assert (files[1].folder, files[1].name, files[1].stem) == (str(deep.parent), "Deep.gguf", "Deep")
    assert (files[1].inode, files[1].version.mtime_ns) == (deep.stat().st_ino, deep.stat().st_mtime_ns)


def test_a_root_that_is_a_file_is_that_file_with_what_belongs_to_it(tmp_path: Path) -> None:
    """Whoever names a model by its path means it, its other shards and its projector, and no other file there."""
    shards = [touch(tmp_path / f"Foo-0000{number}-of-00002.gguf") for number in (1, 2)]
    projector = touch(tmp_path / "mmproj-Foo.gguf")
    for other in ("Foo.gguf", "Bar-00001-of-00002.gguf", "Foo-00001-of-00003.gguf", "mmproj.txt"):
        touch(tmp_path / other)

    files, problems = walk(shards[1])
    alone, _ = walk(tmp_path / "Foo.gguf")
    missing, said = walk(tmp_path / "Nobody.gguf")

    assert [file.path for file in files] == [str(path) for path in (*shards, projector)]
    assert [file.name for file in alone] == ["Foo.gguf", "mmproj-Foo.gguf"]
    assert (problems, missing, said) == ([], [], [])


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    """Models often lie on another disk. A circle leads to nothing that was not found already."""
    touch(tmp_path / "disk" / "Far.gguf")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "models" / "circle").symlink_to(tmp_path / "models")
    touch(tmp_path / "models" / "Near.gguf")

    files, problems = walk(tmp_path / "models")

    assert [file.path for file in files] == [
        str(tmp_path / "models" / "Near.gguf"), str(tmp_path / "models" / "linked" / "Far.gguf"),
    ]  # fmt: skip
    assert problems == []


def test_a_folder_with_two_ways_to_it_is_found_by_the_shorter_one(tmp_path: Path) -> None:
    """One model is one entry, under the path that people would give."""
    touch(tmp_path / "a" / "deep" / "Model.gguf")
    (tmp_path / "z").symlink_to(tmp_path / "a" / "deep")

    files, _ = walk(tmp_path)

    assert [file.path for file in files] == [str(tmp_path / "z" / "Model.gguf")]


def test_a_folder_is_found_in_its_own_place_rather_than_by_a_link_beside_it(tmp_path: Path) -> None:
    """The link may be there for another program."""
    touch(tmp_path / "real" / "Model.gguf")
    (tmp_path / "alias").symlink_to(tmp_path / "real")

    files, _ = walk(tmp_path)

    assert [file.path for file in files] == [str(tmp_path / "real" / "Model.gguf")]


def test_folders_that_link_to_each_other_in_a_ring_cost_each_one_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their paths could be combined without end, and would use up the entries that may be looked at."""
    monkeypatch.setattr(limits, "MODEL_FOLDER_ENTRIES", 40)
    monkeypatch.setattr(limits, "MODEL_FOLDER_DEPTH", 50)
    for name in "abcd":
        touch(tmp_path / name / f"{name}.gguf")
        for other in "abcd":
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)

    files, problems = walk(tmp_path)

    assert [file.stem for file in files] == ["a", "b", "c", "d"]
    assert problems == []


@pytest.mark.parametrize("name", [".hidden.gguf", "part.gguf.part", "notes.txt", ".git/x.gguf", "gguf"])
def test_other_names_are_not_looked_at(tmp_path: Path, name: str) -> None:
    """Hidden, unfinished, something else."""
    touch(tmp_path / name)

    assert walk(tmp_path) == ([], [])


def test_a_folder_named_like_a_file_is_a_problem(tmp_path: Path) -> None:
    """It is not looked into."""
    touch(tmp_path / "odd.gguf" / "Inner.gguf")

    files, problems = walk(tmp_path)

    assert files == []
    assert [problem.code for problem in problems] == ["not_a_file"]


def test_the_limit_of_entries_holds_over_all_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is said where it was reached."""
    monkeypatch.setattr(limits, "MODEL_FOLDER_ENTRIES", 3)
    for folder in "ab":
        for name in "12":
            touch(tmp_path / folder / f"{name}.gguf")

    files, problems = walk(tmp_path)

    assert len(files) == 1
    assert [(problem.path, problem.code) for problem in problems] == [(str(tmp_path), "too_large")]


def test_any_path_can_be_shown() -> None:
    """Names on disk are bytes."""
    assert shown(os.fsdecode(b"/m/caf\xe9.gguf")) == "/m/caf\\udce9.gguf"
