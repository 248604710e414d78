"""A node is known by its key, for life; a client for one run."""

import logging
from pathlib import Path

import pytest

from meshllm.daemon.errors import StartError
from meshllm.daemon.identity import own_identity
from meshllm.daemon.mesh_files import KEY_NAME, MeshFiles


def test_node_keeps_its_identity(tmp_path: Path) -> None:
    """Others know it by this."""
    first = own_identity(MeshFiles(tmp_path), is_client=False)

    assert own_identity(MeshFiles(tmp_path), is_client=False).node == first.node
    assert len(first.node) == 52


@pytest.mark.rows("CLI-13", "MSH-4")
def test_client_is_somebody_else_each_time(tmp_path: Path) -> None:
    """And leaves nothing."""
    nodes = {own_identity(MeshFiles(tmp_path), is_client=True).node for _ in range(2)}

    assert len(nodes) == 2
    assert list(tmp_path.iterdir()) == []


def test_damaged_key_stops_the_start(tmp_path: Path) -> None:
    """Never a new identity in silence."""
    own_identity(MeshFiles(tmp_path), is_client=False)
    key = tmp_path / KEY_NAME
    key.write_bytes(key.read_bytes().replace(b"M", b"N", 1)[:-40])

    with pytest.raises(StartError, match="is damaged"):
        own_identity(MeshFiles(tmp_path), is_client=False)


def test_end_of_the_first_version_s_id_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody may have written it down."""
    (tmp_path / "node.json").write_text('{"node": "0123456789abcdef0123456789abcdef"}')

    with caplog.at_level(logging.WARNING):
        made = own_identity(MeshFiles(tmp_path), is_client=False)
        own_identity(MeshFiles(tmp_path), is_client=False)

    assert [record.getMessage().count(made.node) for record in caplog.records] == [1]
    assert "before=0123456789abcdef0123456789abcdef" in caplog.text
