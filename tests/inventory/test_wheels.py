"""A wheel is fetched from where pip says that it lies, and by pip where that is not possible."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshllm.inventory import wheels
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from tests.inventory.fake_index import FakeIndex, running_index
from tests.proxy.certificates import an_issued_certificate

WHEEL = "tiny_model-1.0-py3-none-any.whl"
CONTENT = b"no wheel that anybody opens" * 100
REQUIREMENT = "tiny-model==1.0"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    """Run an index with one wheel, and make it the only one that pip knows."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with running_index() as index:
        index.files = {WHEEL: CONTENT, "tiny_model-0.9-py3-none-any.whl": b"older"}
        monkeypatch.setenv("PIP_INDEX_URL", index.address)
        yield index


def ignore(text: str) -> None:
    """Take what is said and forget it."""


def test_pip_says_where_a_wheel_lies(index: FakeIndex) -> None:
    """The pinned version's, with its digest; nothing is transferred."""
    source = wheels.address_of(REQUIREMENT)

    assert source is not None
    assert source.url.endswith(f"/files/{WHEEL}")
    assert source.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert index.ranges == []
    assert wheels.address_of("tiny-model==2.0") is None


def test_a_wheel_that_broke_off_is_continued_without_asking_pip(
    index: FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it came from is written down beside it, also for the next process."""
    index.cut_after_bytes = [100]
    with pytest.raises(DownloadError) as caught:
        wheels.fetch(REQUIREMENT, tmp_path / "w.part", tmp_path, ignore)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")

    found = wheels.fetch(REQUIREMENT, tmp_path / "w.part", tmp_path, ignore)

    assert caught.value.code is DownloadCode.NETWORK
    assert index.ranges == ["", "bytes=99-"]
    assert found.read_bytes() == CONTENT


def test_what_nobody_else_can_fetch_is_left_to_pip(
    index: FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have keys and proxies that nobody else was told of."""
    index.refused = 403
    asked: list[str] = []

    def from_pip(requirement: str, scratch: Path) -> Path:
        asked.append(requirement)
        return scratch

    monkeypatch.setattr(wheels, "_from_pip", from_pip)

    found = wheels.fetch(REQUIREMENT, tmp_path / "w.part", tmp_path / "scratch", ignore)

    assert (asked, found) == ([REQUIREMENT], tmp_path / "scratch")
    assert list(tmp_path.iterdir()) == []


def test_without_pip_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments made by uv have none."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(DownloadError) as caught:
        wheels.fetch(REQUIREMENT, tmp_path / "w.part", tmp_path, ignore)

    assert caught.value.code is DownloadCode.UNSUPPORTED
    assert "pip" in caught.value.message


@pytest.mark.parametrize("requirement", ["--index-url=http://evil", "name", "name>=1", "name==1; sys_platform", ""])
def test_a_requirement_that_is_not_pinned_is_not_run(tmp_path: Path, requirement: str) -> None:
    """It would become an argument of pip."""
    with pytest.raises(DownloadError) as caught:
        wheels.fetch(requirement, tmp_path / "w.part", tmp_path, ignore)

    assert "no pinned requirement" in caught.value.message


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("ERROR: No matching distribution found for x==1", DownloadCode.NOT_FOUND),
        ("WARNING: connection broken\nERROR: No matching distribution found for x==1", DownloadCode.NETWORK),
        ("OSError: [Errno 28] No space left on device", DownloadCode.NO_SPACE),
        ("Traceback\nSomething else", DownloadCode.NETWORK),
        ("", DownloadCode.NETWORK),
    ],
)
def test_what_pip_says_becomes_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: DownloadCode
) -> None:
    """Pip itself has one exit status for everything."""
    ended = subprocess.CompletedProcess([], 1, "", words)
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_kwargs: ended)

    with pytest.raises(DownloadError) as caught:
        wheels._from_pip("x==1", tmp_path)

    assert caught.value.code is code


def test_pip_trusts_whom_everybody_else_here_trusts(
    index: FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of itself it knows nothing of `SSL_CERT_FILE`, and speaks of a missing package where it trusts nobody."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_RETRIES", "0")
    authority, tls = an_issued_certificate(tmp_path)
    index.socket = tls.wrap_socket(index.socket, server_side=True)
    monkeypatch.setenv("PIP_INDEX_URL", f"https://localhost:{index.server_port}/simple")
    with pytest.raises(DownloadError) as caught:
        wheels._from_pip(REQUIREMENT, tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    found = wheels.fetch(REQUIREMENT, tmp_path / "w.part", tmp_path, ignore)

    cause = "the certificate of the package index is not trusted: unable to get local issuer certificate"
    assert caught.value.code is DownloadCode.NETWORK
    assert caught.value.message.endswith(f"{cause}; SSL_CERT_FILE can name a file with those to trust")
    assert found.read_bytes() == CONTENT
