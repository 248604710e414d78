"""Files that are called like a model and are none to a scan."""

from pathlib import Path

import pytest

from meshllm.core import limits
from meshllm.core.doctor.discovery import Stray
from meshllm.inventory import strays as module
from meshllm.inventory.strays import strays, wanted_by

DEEP = "/".join("abcdefgh"[: limits.MODEL_FOLDER_DEPTH])


def put(root: Path, name: str) -> Path:
    """Write a file of a few bytes."""
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"bytes")
    return file


@pytest.mark.rows("OPS-1")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Mine-7B.gguf.part", Stray.UNFINISHED), ("mine-7b.safetensors", Stray.FORMAT),
        ("Mine-7B/model-00001.safetensors", Stray.FORMAT), (".mine-7b.gguf", Stray.HIDDEN),
        (".cache/mine-7b.gguf", Stray.HIDDEN), (f"{DEEP}/mine-7b.gguf", Stray.DEEP),
    ],
)  # fmt: skip
def test_what_a_scan_does_not_take_is_found_with_its_reason(tmp_path: Path, name: str, why: Stray) -> None:
    """By its own name or its folder's, in any case."""
    file = put(tmp_path / "models", name)

    assert strays([tmp_path / "models"], "MINE-7b", tmp_path / "models") == ((str(file), why),)


@pytest.mark.parametrize("name", ["mine-7b.gguf", "a/mine-7b.gguf", "other.safetensors", "mine-7b.txt"])
def test_what_a_scan_takes_or_never_would_is_no_stray(tmp_path: Path, name: str) -> None:
    """The scan says what is wrong with its own."""
    put(tmp_path, name)

    assert strays([tmp_path], "mine-7b", tmp_path / "nowhere") == ()


@pytest.mark.rows("OPS-1")
@pytest.mark.parametrize("asked", ["mine", "{}/elsewhere/Mine-Q4.gguf"])
def test_a_file_outside_of_the_model_folders_is_found(tmp_path: Path, asked: str) -> None:
    """Where somebody stands, or by the path that they gave."""
    file = put(tmp_path, "elsewhere/Mine-Q4.gguf")
    (tmp_path / "models").mkdir()

    found = strays([tmp_path / "models"], asked.format(tmp_path), tmp_path / "elsewhere")

    assert found == ((str(file), Stray.OUTSIDE),)


def test_a_model_folder_is_not_outside_of_itself(tmp_path: Path) -> None:
    """Whoever stands in it asks all the same."""
    file = put(tmp_path, "mine.gguf")

    assert strays([tmp_path], str(file), tmp_path) == ()


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [("user/Repo-GGUF:Q4_K_M", "repo"), ("Mine.gguf", "mine"), ("/a/b/Mine.gguf", "mine"), ("", "")],
)
def test_a_name_is_looked_for_by_what_files_would_have_of_it(asked: str, wanted: str) -> None:
    """Without user, level and suffix."""
    assert wanted_by(asked) == wanted


def test_a_search_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as help, and no folder of a million."""
    for number in range(20):
        put(tmp_path, f"mine-{number}.bin")

    assert len(strays([tmp_path], "mine", tmp_path)) == 8
    monkeypatch.setattr(limits, "MODEL_FOLDER_ENTRIES", 5)
    assert strays([tmp_path], "mine", tmp_path) == ()
    assert module.strays([tmp_path], "", tmp_path) == ()
