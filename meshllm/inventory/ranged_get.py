"""One file over HTTP, continued from where an earlier try stopped.

Owns the request, its range, and the note beside an unfinished file that says what it is a part of. Decides whether
a part can be continued, and begins anew, saying so, where it cannot. Doesn't know what is in the file, nor who named
its address; whoever keeps the finished file checks what it means.
"""

import hashlib
import http.client
import json
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast

from meshllm.core import limits
from meshllm.inventory.download_errors import DownloadCode, DownloadError, reason_of

Tell = Callable[[str], None]
"""Called with one sentence for people, when something is begun anew."""

_CHUNK_BYTES: Final = 256 * 1024
_RANGE_OF: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")
_NOTE_BYTES: Final = 8192
_REFUSED: Final = 400
_NO_SUCH_RANGE: Final = 416


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a file is to be had, and the SHA-256 that it has to have; empty where nobody said."""

    url: str
    sha256: str = ""


class _Answer(Protocol):
    """What is used of an answer."""

    status: int
    headers: http.client.HTTPMessage

    def read1(self, amount: int) -> bytes:
        """Return the bytes that are there, waiting for some; none at the end."""

    def close(self) -> None:
        """Hang up."""


def note_of(file: Path) -> Path:
    """Return where it is written down what an unfinished file is a part of."""
    return file.with_name(f"{file.name}.etag")


def noted(file: Path) -> Source | None:
    """Return where an unfinished file came from; None where nothing of it is there or nobody knows."""
    if not _size_of(file) or not (known := _read_note(file)).get("url"):
        return None
    return Source(url=known["url"], sha256=known.get("sha256", ""))


def forget(file: Path) -> None:
    """Remove an unfinished file and its note."""
    file.unlink(missing_ok=True)
    note_of(file).unlink(missing_ok=True)


def fetch(source: Source, file: Path, tell: Tell) -> None:
    """Fetch what is missing of a file and verify the whole. Raises DownloadError, and OSError from the disk.

    What has arrived stays when the transfer breaks off. A file with another SHA-256 than it should have is removed.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+b") as part:
        have, validator = _known_part(part, source, file, tell)
        answer = _ask(source.url, have, validator)
        try:
            _take(answer, part, have, source, file, tell)
        finally:
            answer.close()
        found = _sha256(part) if source.sha256 else ""
    if found != source.sha256:
        forget(file)
        message = f"what {source.url} gives has the SHA-256 {found[:12]}… instead of {source.sha256[:12]}…"
        raise DownloadError(DownloadCode.DIGEST_MISMATCH, message)


def _known_part(part: BinaryIO, source: Source, file: Path, tell: Tell) -> tuple[int, str]:
    """Return from which byte on this very file is wanted, and what the server called that version of it."""
    have, known = part.seek(0, os.SEEK_END), _read_note(file)
    if not have:
        return 0, ""
    validator = known.get("validator", "")
    if known.get("url") != source.url or known.get("sha256", "") != source.sha256:
        _begin_anew(part, file, tell, "what is there is of another file")
    elif not validator and not source.sha256:
        _begin_anew(part, file, tell, "nothing says of which version what is there is")
    else:
        # The last byte is asked for once more: of a file that is whole already there would be no range left.
        return have - 1, validator
    return 0, ""


def _begin_anew(part: BinaryIO, file: Path, tell: Tell, why: str) -> None:
    if part.seek(0, os.SEEK_END):
        tell(f"{file.name} is fetched from its beginning: {why}")
    part.seek(0)
    part.truncate()


def _ask(url: str, have: int, validator: str) -> _Answer:
    """Ask for a file from its byte `have` on, or for all of it where it has no such byte. Raises DownloadError."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "mesh-llm"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - only http and https come here
    try:
        answer = urllib.request.urlopen(request, timeout=limits.HUB_ANSWER_TIMEOUT_S, context=_trust())  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == _NO_SUCH_RANGE and have:
            return _ask(url, 0, "")
        code = DownloadCode.NOT_FOUND if error.code in {404, 410} else DownloadCode.NETWORK
        raise DownloadError(code, f"{url} answers {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ssl's errors and URLError are OSErrors
        raise DownloadError(DownloadCode.NETWORK, f"{url} cannot be reached: {reason_of(error, _host(url))}") from error
    return cast("_Answer", answer)


def _take(answer: _Answer, part: BinaryIO, have: int, source: Source, file: Path, tell: Tell) -> None:
    """Write an answer's bytes behind what is there, or in its place where the whole comes."""
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        start, total = _range_of(answer)
        if start != have:
            forget(file)
            raise DownloadError(DownloadCode.NETWORK, f"{source.url} gives other bytes than it was asked for")
    else:
        have, total = 0, int(answer.headers.get("Content-Length") or 0)
        _begin_anew(part, file, tell, "the server has no ranges, or another version of it")
    _write_note(file, source, answer)
    part.seek(have)
    while chunk := _read(answer, source.url):
        part.write(chunk)
        part.flush()  # what grows is watched, and is there for the next try
    if total and (arrived := part.tell()) != total:
        raise DownloadError(DownloadCode.NETWORK, f"{source.url} broke off after {arrived} of {total} bytes")


def _range_of(answer: _Answer) -> tuple[int, int]:
    """Return (first byte, bytes of the whole file) of a partial answer; a first byte of -1 where it does not say."""
    found = _RANGE_OF.fullmatch(answer.headers.get("Content-Range") or "")
    return (int(found[1] or -1), int(found[2])) if found else (-1, 0)


def _read(answer: _Answer, url: str) -> bytes:
    try:
        return answer.read1(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(DownloadCode.NETWORK, f"{url} broke off: {reason_of(error, _host(url))}") from error


def _trust() -> ssl.SSLContext:
    """Return whose certificates count: those that pip and its kin were told of, else the machine's."""
    named = next((path for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE") if (path := os.environ.get(name))), None)
    return ssl.create_default_context(cafile=named)


def _read_note(file: Path) -> dict[str, str]:
    try:
        with note_of(file).open("rb") as stream:
            known = json.loads(stream.read(_NOTE_BYTES))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, str)} if isinstance(known, dict) else {}


def _write_note(file: Path, source: Source, answer: _Answer) -> None:
    etag = answer.headers.get("ETag") or ""
    validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified") or ""
    note = {"url": source.url, "sha256": source.sha256, "validator": validator}
    note_of(file).write_text(json.dumps(note), encoding="utf-8")


def _sha256(part: BinaryIO) -> str:
    digest = hashlib.sha256()
    part.seek(0)
    while chunk := part.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _size_of(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc
