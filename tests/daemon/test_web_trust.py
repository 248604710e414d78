"""A node trusts on the web whom its machine trusts, wherever its Python looks for that."""

import os
import ssl
from pathlib import Path

import pytest

from meshllm.daemon import web_trust
from meshllm.daemon.web_trust import find_trust, missing_bundle

CERTIFICATE = "-----BEGIN CERTIFICATE-----\n"


def stores(file: Path, folder: Path) -> ssl.DefaultVerifyPaths:
    """Return where a Python looks that was built elsewhere."""
    told = ("SSL_CERT_FILE", str(file), "SSL_CERT_DIR", str(folder))
    return ssl.DefaultVerifyPaths(None, None, *told)


@pytest.fixture
def others(tmp_path: Path) -> list[Path]:
    """Write what is there beside: a file that is none, an empty one, and a bundle."""
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "bundle.pem").write_text(CERTIFICATE)
    return [tmp_path / "none.pem", tmp_path / "empty.pem", tmp_path / "bundle.pem"]


def test_where_openssl_finds_nobody_the_first_bundle_with_somebody_counts(tmp_path: Path, others: list[Path]) -> None:
    """An empty file is nobody too, as is a folder whose files are called otherwise."""
    (tmp_path / "own.pem").write_text("# to be filled\n")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "README").write_text("nothing")

    found = [
        missing_bundle({}, stores(file, folder), others)
        for file, folder in [(tmp_path / "gone.pem", tmp_path / "gone"), (tmp_path / "own.pem", tmp_path / "own")]
    ]

    assert found == [others[-1], others[-1]]
    assert missing_bundle({}, stores(tmp_path / "own.pem", tmp_path / "own"), others[:2]) is None


def test_where_openssl_finds_somebody_nothing_else_counts(tmp_path: Path, others: list[Path]) -> None:
    """In a file, or in a folder of files as it names them."""
    (tmp_path / "own.pem").write_text(CERTIFICATE)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "0a1b2c3d.0").write_text(CERTIFICATE)

    assert missing_bundle({}, stores(tmp_path / "own.pem", tmp_path / "gone"), others) is None
    assert missing_bundle({}, stores(tmp_path / "gone.pem", tmp_path / "own"), others) is None


@pytest.mark.parametrize("setting", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_whoever_was_named_is_the_only_one(setting: str, tmp_path: Path, others: list[Path]) -> None:
    """Also where that is nobody: somebody else's trust is not what was asked for."""
    nowhere = stores(tmp_path / "gone.pem", tmp_path / "gone")

    assert missing_bundle({setting: str(tmp_path / "gone")}, nowhere, others) is None
    assert missing_bundle({setting: ""}, nowhere, others) == others[-1]


def test_a_machine_without_certificates_trusts_those_that_came_with_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For this process and its children: connections made from here on are checked by them."""
    monkeypatch.setenv("SSL_CERT_FILE", "")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setattr(web_trust, "_OF_SYSTEMS", (str(tmp_path / "gone.pem"),))
    nowhere = stores(tmp_path / "gone.pem", tmp_path / "gone")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)

    find_trust()

    assert "certifi" in os.environ["SSL_CERT_FILE"]
    assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50


def test_a_machine_with_certificates_is_left_alone(
    tmp_path: Path, others: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is set, so that what the system changes later counts."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    here = stores(others[-1], tmp_path / "gone")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: here)

    find_trust()

    assert "SSL_CERT_FILE" not in os.environ
