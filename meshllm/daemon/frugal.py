"""How little memory the daemon takes beside what it needs: it runs beside everything else on people's machines.

Owns two choices for the whole process, made before anything large is imported. Decides them by what this kind of
process does: one thread computes, and TLS to the web is nobody's business here but the downloader's, which loads its
own certificates. Doesn't know what else is imported, nor when.
"""

import ctypes
import importlib
import os
import sys
from collections.abc import Callable

_M_ARENA_MAX = -8
_CERTIFICATES = "SSL_CERT_FILE"


def be_frugal() -> None:
    """Keep the process small; call it before the rest of the daemon is imported."""
    _share_one_arena()
    _import_aiohttp_without_certificates()


def give_back() -> None:
    """Give memory that was freed back to the system: starts and downloads leave holes. It takes 1 to 2 ms."""
    trim = _of_libc("malloc_trim")
    if trim is not None:
        trim(0)


def _share_one_arena() -> None:
    """Let all threads allocate from one arena: glibc gives each its own, for parallel work that nobody does here."""
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _of_libc(name: str) -> Callable[..., int] | None:
    """Return what glibc alone has; None where another library is."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def _import_aiohttp_without_certificates() -> None:
    """Import aiohttp, which on import reads every certificate of the system for a client that the daemon never has.

    What it asks here is its own front door and its own engines, by loopback and Unix sockets.
    """
    before = os.environ.get(_CERTIFICATES)
    os.environ[_CERTIFICATES] = os.devnull
    try:
        importlib.import_module("aiohttp")
    finally:
        if before is None:
            del os.environ[_CERTIFICATES]
        else:
            os.environ[_CERTIFICATES] = before
