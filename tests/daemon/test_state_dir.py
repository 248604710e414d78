"""State survives; two daemons never share it."""

import json
import os
import stat
from pathlib import Path

import pytest

from meshllm.daemon.errors import StartError, StateInUseError
from meshllm.daemon.state_dir import StateDir, write_json


def opened(tmp_path: Path) -> StateDir:
    """Return an open state folder."""
    return StateDir(tmp_path / "state", tmp_path / "run")


def test_a_second_daemon_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    """The message names the process, and the exit code says which kind of conflict."""
    first = opened(tmp_path)

    with pytest.raises(StateInUseError, match=f"process {os.getpid()} ") as caught:
        opened(tmp_path)

    assert caught.value.exit_code == 4
    first.release()


def test_folders_and_files_are_private(tmp_path: Path) -> None:
    """Keys will lie here."""
    (tmp_path / "state").mkdir(mode=0o755)
    state = opened(tmp_path)
    state.write_address("127.0.0.1:9337")

    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((state.path / "api.json").stat().st_mode) == 0o600
    state.release()
    assert not (state.path / "api.json").exists()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """A file in the way, for example."""
    (tmp_path / "state").write_text("")

    with pytest.raises(StartError, match="cannot use the folder"):
        opened(tmp_path)


def test_json_is_written_whole(tmp_path: Path) -> None:
    """A reader never sees half a file."""
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    write_json(file, {"a": 2})

    assert json.loads(file.read_bytes()) == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_client_leaves_no_folder_behind(tmp_path: Path) -> None:
    """Its identity is for one run; what others put there stays."""
    state = opened(tmp_path)
    state.release(forget=True)
    assert list(tmp_path.iterdir()) == []

    state = opened(tmp_path)
    (state.path / "mine.txt").write_text("")
    state.release(forget=True)
    assert [path.name for path in state.path.iterdir()] == ["mine.txt"]
