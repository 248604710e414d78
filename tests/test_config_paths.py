"""The platform's folders."""

import os
from pathlib import Path

from meshllm.config_paths import (
    RUNTIME_PATH_BYTES,
    default_cache_dir,
    default_config_file,
    default_runtime_dir,
    default_state_dir,
    expanded,
)


def test_xdg_folders_are_used_when_absolute() -> None:
    """The specification says to ignore relative ones."""
    environ = {"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "relative"}

    assert default_state_dir(environ, "linux") == Path("/s/mesh-llm")
    assert default_config_file(environ, "linux") == Path("/h/.config/mesh-llm/config.toml")
    assert default_cache_dir(environ, "linux") == Path("/h/.cache/mesh-llm")


def test_mac_folders_are_those_of_applications() -> None:
    """No dot folders where the platform has a place."""
    folder = Path("/h/Library/Application Support/mesh-llm")

    assert default_state_dir({"HOME": "/h"}, "darwin") == folder
    assert default_config_file({"HOME": "/h"}, "darwin") == folder / "config.toml"
    assert default_cache_dir({"HOME": "/h"}, "darwin") == Path("/h/Library/Caches/mesh-llm")


def test_runtime_folder_is_different_for_each_state_folder(tmp_path: Path) -> None:
    """Two nodes of one person must not meet in it."""
    one = default_runtime_dir({}, tmp_path / "one")
    two = default_runtime_dir({}, tmp_path / "two")

    assert one != two
    assert one == default_runtime_dir({}, tmp_path / "one")
    assert str(os.getuid()) in one.name


def test_runtime_folder_is_short_enough_for_sockets(tmp_path: Path) -> None:
    """A long temporary folder, as macOS has, would make every socket's path too long."""
    long = tmp_path / ("x" * 80)
    long.mkdir()

    for environ in ({"TMPDIR": str(long)}, {"XDG_RUNTIME_DIR": str(long), "TMPDIR": str(long)}):
        assert len(str(default_runtime_dir(environ, tmp_path))) < RUNTIME_PATH_BYTES


def test_runtime_folder_of_the_session_is_preferred() -> None:
    """It is private, in memory, and cleaned up by the system."""
    assert default_runtime_dir({"XDG_RUNTIME_DIR": "/tmp"}, Path("/s")).parent == Path("/tmp")
    assert default_runtime_dir({"XDG_RUNTIME_DIR": "/does/not/exist"}, Path("/s")).parent != Path("/does/not/exist")


def test_path_is_made_absolute() -> None:
    """`~`, relative and absolute ones."""
    environ = {"HOME": "/h"}

    assert expanded("~/x", environ, Path("/b")) == Path("/h/x")
    assert expanded("~", environ, Path("/b")) == Path("/h")
    assert expanded("x/../y", environ, Path("/b")) == Path("/b/y")
    assert expanded("/a", environ, Path("/b")) == Path("/a")
