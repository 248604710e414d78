"""The daemon's process is small: what it never uses is not loaded."""

import os
import subprocess
import sys
from functools import partial

import pytest

from meshllm.daemon import frugal

_LOADED = """
import os, ssl
from meshllm.daemon.frugal import be_frugal
be_frugal()
from aiohttp import connector
assert connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"] == 0
print(os.environ.get("SSL_CERT_FILE"))
"""


def test_certificates_for_the_web_are_not_read_and_can_be_read_later() -> None:
    """Whoever has a file of certificates in the environment has it there still, for downloads."""
    told = os.environ | {"SSL_CERT_FILE": "/somewhere/else.pem"}
    untold = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"}

    kept = [
        subprocess.run([sys.executable, "-c", _LOADED], env=environ, capture_output=True, text=True, check=True).stdout
        for environ in (told, untold)
    ]

    assert kept == ["/somewhere/else.pem\n", "None\n"]


def test_a_daemon_imports_nothing_large_before() -> None:
    """Otherwise the choice comes too late."""
    program = "import sys, meshllm.cli.serve, meshllm.daemon.frugal; print('aiohttp' in sys.modules)"

    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert told == "False\n"


def test_memory_is_given_back_where_the_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only glibc keeps what was freed in the middle; elsewhere there is nothing to ask."""
    asked: list[tuple[str, int]] = []
    for library in (lambda name: partial(keep, asked, name), lambda _: None):
        monkeypatch.setattr(frugal, "_of_libc", library)

        frugal.give_back()

    assert asked == [("malloc_trim", 0)]


def keep(asked: list[tuple[str, int]], name: str, amount: int) -> int:
    """Write down what a library is asked."""
    asked.append((name, amount))
    return 1
