"""What the downloading child does by itself: it obeys one order, answers in one form, and dies with its parent."""

import asyncio
import errno
import hashlib
import io
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from meshllm.inventory import download_child
from meshllm.inventory.child_run import ChildRun
from meshllm.inventory.download_child import main
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from tests.inventory.fake_hub import FakeHub, running_hub
from tests.proxy.certificates import an_issued_certificate

REPOSITORY = "user/repo"
NAME = "Tiny-Q4_K_M.gguf"
CONTENT = b"content" * 1000
WAIT_S = 60.0


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Run a hub with one small model, for children."""
    with running_hub() as hub:
        hub.files[REPOSITORY] = {NAME: CONTENT, "README.md": b"hello"}
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


def part_of(folder: Path, content: bytes) -> BinaryIO:
    """Write the unfinished file of a target; return it as the child has it open."""
    path = folder / f"{NAME}.part"
    path.write_bytes(content)
    return path.open("r+b")


def test_an_order_is_obeyed_and_answered_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The whole conversation, in this process; the parent's end is watched elsewhere."""
    order = io.TextIOWrapper(io.BytesIO(json.dumps({"do": "list", "repository": "r"}).encode() + b"\n"))
    monkeypatch.setattr(sys, "stdin", order)
    monkeypatch.setattr(download_child, "_die_with_parent", lambda: None)
    monkeypatch.setattr(download_child, "_list", lambda order: [order["repository"]])

    status = main()

    assert status == 0
    assert json.loads(capsys.readouterr().out) == {"result": ["r"]}


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (DownloadError(DownloadCode.NOT_FOUND, "no"), "not_found"),
        (PermissionError(errno.EACCES, "Permission denied"), "unsupported"),
        (OSError(errno.ENOSPC, "No space left on device"), "no_space"),
    ],
)
def test_a_failure_is_answered_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys, raised: Exception, code: str
) -> None:
    """The parent turns it into the same error again."""

    def failing(order: object) -> object:
        raise raised

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"do": "list"}\n')))
    monkeypatch.setattr(download_child, "_die_with_parent", lambda: None)
    monkeypatch.setattr(download_child, "_list", failing)

    status = main()

    answer = json.loads(capsys.readouterr().out)
    assert (status, answer["error"]) == (1, code)
    assert answer["message"]


async def test_a_child_whose_parent_is_gone_ends(hub: FakeHub, tmp_path: Path) -> None:
    """A killed daemon leaves no download behind."""
    hub.stall = True
    order = {"do": "hub", "repository": REPOSITORY, "filename": NAME, "target": str(tmp_path / NAME), "sha256": ""}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshllm.inventory.download_child",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(order).encode() + b"\n")
    await asyncio.wait_for(child.stdout.readline(), WAIT_S)

    child.stdin.close()
    status = await asyncio.wait_for(child.wait(), WAIT_S)

    assert status == -signal.SIGKILL


def test_a_finished_file_gets_its_name(tmp_path: Path, capsys) -> None:
    """And the note of where it came from goes."""
    (tmp_path / f"{NAME}.part.etag").write_text("etag")
    with part_of(tmp_path, CONTENT) as part:
        download_child._finish(part, tmp_path / NAME, hashlib.sha256(CONTENT).hexdigest())

    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert json.loads(capsys.readouterr().out) == {"stage": "verifying"}


def test_a_wrong_file_is_set_aside(tmp_path: Path) -> None:
    """It never bears the name of a model."""
    with part_of(tmp_path, CONTENT) as part, pytest.raises(DownloadError) as caught:
        download_child._finish(part, tmp_path / NAME, "0" * 64)

    assert caught.value.code is DownloadCode.DIGEST_MISMATCH
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.corrupt"]


@pytest.mark.parametrize(
    ("size", "etag", "expected"),
    [(2 * len(CONTENT), "same", len(CONTENT)), (2 * len(CONTENT), "other", 0), (10, "same", 0)],
)
def test_only_a_part_of_the_same_version_is_continued(tmp_path: Path, size: int, etag: str, expected: int) -> None:
    """Of the same version, and not longer than the whole."""
    (tmp_path / f"{NAME}.part.etag").write_text(etag)
    with part_of(tmp_path, CONTENT) as part:
        have = download_child._continue_from(part, tmp_path / NAME, "same", size)

        assert (have, part.tell()) == (expected, expected)
    assert (tmp_path / f"{NAME}.part.etag").read_text() == "same"


@pytest.mark.parametrize(
    ("known", "etag", "expected"),
    [("a" * 64, "a" * 64, "a" * 64), ("a" * 64, "no-digest", "a" * 64), ("", "b" * 64, "b" * 64), ("", "x", "")],
)
def test_the_expected_digest_is_the_known_or_the_stated_one(known: str, etag: str, expected: str) -> None:
    """Small files of the hub have tags that are no digests."""
    assert download_child._expected(known, etag, "what") == expected


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    """Models folders can be shared."""
    (tmp_path / f"{NAME}.part").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(DownloadError) as caught, download_child._part_of(tmp_path / NAME):
        pass

    assert caught.value.code is DownloadCode.UNSUPPORTED
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_wheel_is_refused(tmp_path: Path) -> None:
    """By the name of the package that it is of."""
    wheel = tmp_path / "x-1-py3-none-any.whl"
    wheel.write_bytes(b"no zip")

    with pytest.raises(DownloadError) as caught:
        download_child._unpack(wheel, "x==1", NAME, io.BytesIO(), 10)

    assert caught.value.code is DownloadCode.DIGEST_MISMATCH
    assert "x==1" in caught.value.message


async def test_a_hub_that_nobody_vouches_for_is_not_asked(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own error is three errors deep by then; with `SSL_CERT_FILE` the hub answers."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    authority, tls = an_issued_certificate(tmp_path)
    hub.socket = tls.wrap_socket(hub.socket, server_side=True)
    monkeypatch.setenv("HF_ENDPOINT", f"https://localhost:{hub.server_port}")
    order = {"do": "list", "repository": REPOSITORY}
    with pytest.raises(DownloadError) as caught:
        await asyncio.wait_for(ChildRun(order).run(), WAIT_S)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    listed = await asyncio.wait_for(ChildRun(order).run(), WAIT_S)

    cause = "the certificate of the hub is not trusted: unable to get local issuer certificate"
    assert caught.value.code is DownloadCode.NETWORK
    assert caught.value.message.endswith(f"{cause}; SSL_CERT_FILE can name a file with those to trust")
    assert isinstance(listed, list)
    assert [entry[0] for entry in listed] == [NAME]
