"""Wheels from the package index, fetched by ourselves where that can be continued, else by pip.

Owns the questions to pip: where a pinned package's wheel lies, and, as the last resort, the wheel itself. Decides who
fetches it: pip begins every download at its beginning, so it does so only where nobody else can. Doesn't know what
is in a wheel. Which index is asked, and how, is pip's own configuration.
"""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from meshllm.core import limits
from meshllm.core.web_trust import SETTING, refused_certificate
from meshllm.inventory import ranged_get
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from meshllm.inventory.ranged_get import Source, Tell

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.+!_-]*)")
_LINK: Final = re.compile(r"\s*Found link (https?://\S+\.whl)(?:#\S*?sha256=([0-9a-f]{64})\S*)? .*version: (\S+)")
_REFUSED: Final = re.compile(r"certificate verify failed: ([^()\n]*[^()\s])")
_NO_ISSUER: Final = 20
_OF_REQUESTS: Final = "REQUESTS_CA_BUNDLE"
_HIDDEN: Final = "****"
"""What pip writes in the place of a password."""


def fetch(requirement: str, part: Path, scratch: Path, tell: Tell) -> Path:
    """Fetch the wheel of a pinned requirement; return where it lies whole. Raises DownloadError.

    `part` is where it grows, and is continued by the next try; `scratch` is for pip alone.
    """
    if not _REQUIREMENT.fullmatch(requirement):
        raise DownloadError(DownloadCode.UNSUPPORTED, f"{requirement!r} is no pinned requirement")
    if importlib.util.find_spec("pip") is None:
        message = f"{Path(sys.prefix)} has no pip, which fetches {requirement}; `uv pip install pip` adds it"
        raise DownloadError(DownloadCode.UNSUPPORTED, message)
    # Where a begun one came from is known: files of an index never change.
    source = ranged_get.noted(part) or address_of(requirement)
    if source is not None and _is_fetched(source, part, tell):
        return part
    return _from_pip(requirement, scratch)


def _is_fetched(source: Source, part: Path, tell: Tell) -> bool:
    """Fetch a wheel from its address; tell whether that was possible at all. Raises DownloadError to try again."""
    try:
        ranged_get.fetch(source, part, tell)
    except DownloadError as error:
        if error.code is DownloadCode.NETWORK and part.is_file() and part.stat().st_size:
            raise
        if error.code is DownloadCode.DIGEST_MISMATCH:
            raise
        # pip knows more of the way than its index says: keys, proxies, certificates.
        ranged_get.forget(part)
        return False
    return True


def address_of(requirement: str) -> Source | None:
    """Ask pip where the wheel of a pinned requirement lies; None where it lies on this disk, or pip keeps it secret."""
    name, _, version = requirement.partition("==")
    command = _pip("index", "versions", "-vv", "--retries=1", "--only-binary=:all:", name)
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env=_environment(), timeout=limits.RESOLVE_TIMEOUT_S,
        )  # fmt: skip
        for line in done.stdout.splitlines():
            found = _LINK.match(line)
            if found is not None and found[3] == version and _HIDDEN not in found[1]:
                return Source(url=found[1], sha256=found[2] or "")
    return None


def _from_pip(requirement: str, scratch: Path) -> Path:
    """Have pip fetch it. Dependencies are left out: they would have to be compiled, and nobody imports the package."""
    command = _pip(
        "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--dest", str(scratch), requirement
    )
    # No time limit here: the parent ends us when nothing grows any more.
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        env=_environment(),
    )  # fmt: skip
    if done.returncode != 0:
        raise _failure(requirement, done.stdout + done.stderr)
    wheels = sorted(scratch.glob("*.whl"))
    if not wheels:
        raise DownloadError(DownloadCode.NOT_FOUND, f"the package index gave no wheel of {requirement}")
    return wheels[0]


def _pip(*arguments: str) -> list[str]:
    quiet = ("--disable-pip-version-check", "--no-input", "--no-color")
    command, *rest = arguments
    progress = ("--progress-bar=off",) if command == "download" else ()
    return [sys.executable, "-m", "pip", command, *quiet, *progress, *rest]


def _environment() -> dict[str, str]:
    """Return pip's environment: what everybody else is told to trust counts for it too, unless it was told otherwise.

    Not by its own option, which would come before what its configuration says.
    """
    named = os.environ.get(SETTING, "")
    return {_OF_REQUESTS: named, **os.environ} if Path(named).is_file() else dict(os.environ)


def _failure(requirement: str, text: str) -> DownloadError:
    """Return what pip's complaint means; it has one exit status for everything."""
    if "No space left" in text:
        return DownloadError(DownloadCode.NO_SPACE, f"the disk is full: pip could not fetch {requirement}")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        # It names no number and tells the rest of the way as if the package were missing.
        words, named = _REFUSED.search(text), os.environ.get(SETTING, "")
        said = refused_certificate("the package index", words[1] if words else "it is refused", _NO_ISSUER, named)
        return DownloadError(DownloadCode.NETWORK, f"pip could not fetch {requirement}: {said}")
    if "No matching distribution" in text and "connection" not in text.lower():
        return DownloadError(DownloadCode.NOT_FOUND, f"the package index has no {requirement}")
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "pip said nothing")
    return DownloadError(DownloadCode.NETWORK, f"pip could not fetch {requirement}: {last.strip()[:300]}")
