"""What a node knows of its mesh survives, and what is lost is never replaced in silence."""

import errno
import logging
import os
import stat
from pathlib import Path

import pytest

from meshllm.core.announcement import Address
from meshllm.core.ids import MeshId, NodeId
from meshllm.daemon import checked_file
from meshllm.daemon.errors import StartError
from meshllm.daemon.mesh_files import KEY_NAME, MESH_NAME, ROSTER_NAME, Membership, MeshFiles

MEMBERSHIP = Membership(
    mesh=MeshId("m" * 52), root_public=b"\0\xff", certificate=b"certificate", root_key=b"-----BEGIN", name="home"
)


def test_key_is_kept_private_and_never_replaced(tmp_path: Path) -> None:
    """Whoever knows this node knows it by its key."""
    files = MeshFiles(tmp_path)
    assert files.key() is None

    files.keep_new_key(b"one")

    assert files.key() == b"one"
    assert stat.S_IMODE((tmp_path / KEY_NAME).stat().st_mode) == 0o600
    with pytest.raises(StartError, match="cannot write the node's key"):
        files.keep_new_key(b"two")
    assert files.key() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME]


def test_key_is_complete_or_absent_after_a_crash(tmp_path: Path) -> None:
    """What an interrupted first start left is no key."""
    (tmp_path / f"{KEY_NAME}.part").write_bytes(b"hal")
    files = MeshFiles(tmp_path)

    assert files.key() is None
    files.keep_new_key(b"whole")
    assert files.key() == b"whole"


def test_key_is_kept_without_hard_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems of memory cards have none."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    files = MeshFiles(tmp_path)
    files.keep_new_key(b"one")

    assert files.key() == b"one"
    with pytest.raises(StartError):
        files.keep_new_key(b"two")


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_empty_key_stops_the_start(tmp_path: Path, content: bytes) -> None:
    """Never a new identity in silence."""
    (tmp_path / KEY_NAME).write_bytes(content)

    with pytest.raises(StartError, match="new identity"):
        MeshFiles(tmp_path).key()


def test_key_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    """A folder in its place, for example."""
    (tmp_path / KEY_NAME).mkdir()

    with pytest.raises(StartError, match="cannot read the node's key"):
        MeshFiles(tmp_path).key()


def test_id_of_the_first_version_is_told_once(tmp_path: Path) -> None:
    """People who wrote it down should hear that it has changed."""
    (tmp_path / "node.json").write_text('{"node": "0123456789abcdef0123456789abcdef"}')
    files = MeshFiles(tmp_path)

    assert files.first_version_id() == "0123456789abcdef0123456789abcdef"
    assert files.first_version_id() == ""
    assert (tmp_path / "node.json.old").exists()


def test_membership_comes_back(tmp_path: Path) -> None:
    """A restart needs no token."""
    files = MeshFiles(tmp_path)
    assert files.membership() is None

    files.keep_membership(MEMBERSHIP)

    assert files.membership() == MEMBERSHIP
    assert b"certificate" not in (tmp_path / MESH_NAME).read_bytes().partition(b"\n")[0]


def test_lost_membership_stops_the_start_again_and_again(tmp_path: Path) -> None:
    """A node that founds another mesh in silence splits somebody's mesh."""
    files = MeshFiles(tmp_path)
    files.keep_membership(MEMBERSHIP)
    (tmp_path / MESH_NAME).write_bytes(b"damage")

    for _ in range(2):
        with pytest.raises(StartError, match="does not know its mesh any more"):
            MeshFiles(tmp_path).membership()


@pytest.mark.parametrize("content", [{"mesh": 5}, {"mesh": "m", "root_public": "no base64!"}])
def test_membership_that_makes_no_sense_stops_the_start(tmp_path: Path, content: dict[str, object]) -> None:
    """Whole, but not ours."""
    checked_file.write(tmp_path / MESH_NAME, content)

    with pytest.raises(StartError, match="does not know its mesh"):
        MeshFiles(tmp_path).membership()


def test_incarnation_rises_with_every_start(tmp_path: Path) -> None:
    """What a restarted node says is newer than all it said before."""
    assert [MeshFiles(tmp_path).next_incarnation() for _ in range(3)] == [1, 2, 3]
    assert MeshFiles(tmp_path).next_incarnation(at_least=10) == 10
    assert MeshFiles(tmp_path).next_incarnation() == 11


def test_odd_incarnation_begins_anew(tmp_path: Path) -> None:
    """The others' memory of a higher one is refuted as usual."""
    checked_file.write(tmp_path / "incarnation.json", {"incarnation": "many"})

    assert MeshFiles(tmp_path).next_incarnation() == 1


def test_roster_comes_back_without_what_makes_no_sense(tmp_path: Path) -> None:
    """It is a hint where to dial, nothing more."""
    entries = ((NodeId("a"), (Address("192.0.2.1", 1), Address("fd00::1", 2))), (NodeId("b"), ()))
    files = MeshFiles(tmp_path)
    assert files.roster() == ()

    assert files.keep_roster(entries)

    assert files.roster() == entries
    checked_file.write(tmp_path / ROSTER_NAME, {"nodes": {"a": [["h", 1], ["h"], 5, [1, 2]], "b": None}})
    assert files.roster() == ((NodeId("a"), (Address("h", 1),)), (NodeId("b"), ()))
    checked_file.write(tmp_path / ROSTER_NAME, {"nodes": []})
    assert files.roster() == ()


@pytest.mark.parametrize("nonsense", [{}, {"port": 0}, {"port": 70_000}, {"port": True}, {"port": "4000"}])
def test_port_comes_back_unless_it_makes_no_sense(tmp_path: Path, nonsense: dict[str, object]) -> None:
    """Another one is as good, only tokens that name the last one are lost."""
    files = MeshFiles(tmp_path)
    assert files.port() == 0

    assert files.keep_port(4000)

    assert MeshFiles(tmp_path).port() == 4000
    checked_file.write(tmp_path / "port.json", nonsense)
    assert files.port() == 0


def test_damaged_trust_is_learned_anew(tmp_path: Path) -> None:
    """Revocations come from the others again; tokens are made again."""
    files = MeshFiles(tmp_path)
    files.keep_trust({"revoked": ["x"]})
    assert files.trust() == {"revoked": ["x"]}

    (tmp_path / "trust.json").write_bytes(b"")

    assert files.trust() == {}


def test_damaged_orders_are_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A node serves without them; the mesh tells it what holds there."""
    files = MeshFiles(tmp_path)
    assert files.orders() == {}
    files.keep_orders({"clock": 1})
    assert files.orders() == {"clock": 1}
    assert (tmp_path / "orders.json").stat().st_mode & 0o777 == 0o600

    (tmp_path / "orders.json").write_bytes(b"nonsense")

    assert files.orders() == {}
    assert "a damaged file was put aside file=orders.json" in caplog.text


def test_full_disk_is_said_and_survived_by_a_node_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """But a start that cannot write what it must know stops."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = MeshFiles(tmp_path)
    files.keep_roster(((NodeId("a"), ()),))
    monkeypatch.setattr(os, "fsync", full)

    with caplog.at_level(logging.WARNING):
        assert not files.keep_roster(())
        assert not files.keep_trust({})
    assert "not written down file=roster.json: No space left on device" in caplog.text
    assert files.roster() == ((NodeId("a"), ()),)
    for start in (files.next_incarnation, lambda: files.keep_membership(MEMBERSHIP), lambda: files.keep_new_key(b"k")):
        with pytest.raises(StartError, match="No space left"):
            start()
    assert files.key() is None
