"""A file over HTTP is continued where it can be, begun anew where it cannot, and verified as a whole."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshllm.inventory import ranged_get
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from meshllm.inventory.ranged_get import Source
from tests.inventory.fake_index import FakeIndex, running_index
from tests.proxy.certificates import an_issued_certificate

CONTENT = bytes(range(256)) * 1000
HALF = len(CONTENT) // 2


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    """Run a server with one file."""
    with running_index() as index:
        index.files["file"] = CONTENT
        yield index


def source_of(index: FakeIndex, sha256: str = hashlib.sha256(CONTENT).hexdigest()) -> Source:
    """Return where the one file is."""
    return Source(url=f"http://127.0.0.1:{index.server_port}/files/file", sha256=sha256)


def broken_off(index: FakeIndex, file: Path, source: Source) -> None:
    """Fetch half a file."""
    index.cut_after_bytes = [HALF]
    with pytest.raises(DownloadError, match="broke off"):
        ranged_get.fetch(source, file, never)


def never(text: str) -> None:
    """Take what must not be said."""
    raise AssertionError(text)


def test_a_file_arrives_whole(index: FakeIndex, tmp_path: Path) -> None:
    """In one request, without a range."""
    ranged_get.fetch(source_of(index), tmp_path / "f", never)

    assert (tmp_path / "f").read_bytes() == CONTENT
    assert index.ranges == [""]


@pytest.mark.parametrize("sha256", [hashlib.sha256(CONTENT).hexdigest(), ""])
def test_what_broke_off_goes_on_where_it_was(index: FakeIndex, tmp_path: Path, sha256: str) -> None:
    """From its last byte on, by its digest or by what the server calls its version."""
    index.validator = '"one"'
    broken_off(index, tmp_path / "f", source_of(index, sha256))

    ranged_get.fetch(source_of(index, sha256), tmp_path / "f", never)

    assert index.ranges == ["", f"bytes={HALF - 1}-"]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_what_is_whole_already_is_only_verified(index: FakeIndex, tmp_path: Path) -> None:
    """A daemon can be stopped between the last byte and its use."""
    ranged_get.fetch(source_of(index), tmp_path / "f", never)

    ranged_get.fetch(source_of(index), tmp_path / "f", never)

    assert index.ranges == ["", f"bytes={len(CONTENT) - 1}-"]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_server_without_ranges_is_asked_for_all_of_it(index: FakeIndex, tmp_path: Path) -> None:
    """And that is said."""
    broken_off(index, tmp_path / "f", source_of(index))
    index.has_ranges = False
    said: list[str] = []

    ranged_get.fetch(source_of(index), tmp_path / "f", said.append)

    assert (tmp_path / "f").read_bytes() == CONTENT
    assert len(said) == 1
    assert "from its beginning" in said[0]


def test_a_file_that_changed_is_begun_anew(index: FakeIndex, tmp_path: Path) -> None:
    """The server says so by its validator; no byte of the other version stays."""
    index.validator = '"one"'
    broken_off(index, tmp_path / "f", source_of(index, ""))
    index.validator, index.files["file"] = '"two"', CONTENT[::-1]
    said: list[str] = []

    ranged_get.fetch(source_of(index, ""), tmp_path / "f", said.append)

    assert (tmp_path / "f").read_bytes() == CONTENT[::-1]
    assert len(said) == 1


def test_a_file_that_became_shorter_is_begun_anew(index: FakeIndex, tmp_path: Path) -> None:
    """It has no such range any more."""
    shorter = CONTENT[:100]
    wanted = source_of(index, hashlib.sha256(shorter).hexdigest())
    broken_off(index, tmp_path / "f", wanted)
    index.files["file"] = shorter
    said: list[str] = []

    ranged_get.fetch(wanted, tmp_path / "f", said.append)

    assert (tmp_path / "f").read_bytes() == shorter
    assert len(said) == 1


@pytest.mark.parametrize("has_note", [True, False])
def test_a_part_of_unknown_origin_is_not_continued(index: FakeIndex, tmp_path: Path, *, has_note: bool) -> None:
    """Neither one of another file, nor one of which nothing is known."""
    (tmp_path / "f").write_bytes(b"other" * 100)
    if has_note:
        ranged_get.note_of(tmp_path / "f").write_text('{"url": "http://127.0.0.1:9/other", "sha256": ""}')
    said: list[str] = []

    ranged_get.fetch(source_of(index), tmp_path / "f", said.append)

    assert index.ranges == [""]
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert "another file" in said[0]


def test_a_version_without_a_name_is_not_continued(index: FakeIndex, tmp_path: Path) -> None:
    """With neither digest nor validator two halves might be of two files."""
    broken_off(index, tmp_path / "f", source_of(index, ""))
    said: list[str] = []

    ranged_get.fetch(source_of(index, ""), tmp_path / "f", said.append)

    assert index.ranges == ["", ""]
    assert "which version" in said[0]


def test_a_wrong_file_is_removed(index: FakeIndex, tmp_path: Path) -> None:
    """The next try begins at its beginning."""
    with pytest.raises(DownloadError) as caught:
        ranged_get.fetch(source_of(index, "0" * 64), tmp_path / "f", never)

    assert caught.value.code is DownloadCode.DIGEST_MISMATCH
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "code"), [(404, DownloadCode.NOT_FOUND), (403, DownloadCode.NETWORK)])
def test_a_refusal_has_its_code(index: FakeIndex, tmp_path: Path, status: int, code: DownloadCode) -> None:
    """What is there already stays."""
    broken_off(index, tmp_path / "f", source_of(index))
    index.refused = status

    with pytest.raises(DownloadError, match=str(status)) as caught:
        ranged_get.fetch(source_of(index), tmp_path / "f", never)

    assert caught.value.code is code
    assert (tmp_path / "f").stat().st_size == HALF


def test_where_a_part_came_from_is_known(index: FakeIndex, tmp_path: Path) -> None:
    """Until it is forgotten."""
    broken_off(index, tmp_path / "f", source_of(index))

    known = ranged_get.noted(tmp_path / "f")
    ranged_get.forget(tmp_path / "f")

    assert known == source_of(index)
    assert ranged_get.noted(tmp_path / "f") is None
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_nobody_vouches_for_gives_nothing(
    index: FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until `SSL_CERT_FILE` names who does; the refusal says so."""
    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    authority, tls = an_issued_certificate(tmp_path)
    index.socket = tls.wrap_socket(index.socket, server_side=True)
    source = Source(url=f"https://localhost:{index.server_port}/files/file")
    with pytest.raises(DownloadError) as caught:
        ranged_get.fetch(source, tmp_path / "f", never)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    ranged_get.fetch(source, tmp_path / "g", never)

    cause = f"the certificate of localhost:{index.server_port} is not trusted: unable to get local issuer certificate"
    assert caught.value.code is DownloadCode.NETWORK
    assert caught.value.message.endswith(f"{cause}; SSL_CERT_FILE can name a file with those to trust")
    assert (tmp_path / "g").read_bytes() == CONTENT
