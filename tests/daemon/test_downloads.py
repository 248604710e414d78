"""Downloads take this node's settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.core.catalog import ModelReference
from meshllm.core.effects import PeerSource
from meshllm.core.ids import ModelId
from meshllm.daemon.downloads import ModelDownloads
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from meshllm.inventory.piece_file import PieceFile
from tests.daemon.giving import a_file, a_giver, dialling, sha256, some_bytes, source
from tests.transport.builders import Mesh

CONTENT = some_bytes(100_000)
OWN = ModelReference(
    id=ModelId("own"), repository="", filename="own.gguf", size_bytes=len(CONTENT), sha256=sha256(CONTENT)
)


async def test_offline_means_that_nobody_is_asked(tmp_path: Path) -> None:
    """`--offline` is a promise."""
    downloads = ModelDownloads(tmp_path, lambda: 10**9, offline=True)
    reference = ModelReference(id=ModelId("m"), repository="u/r", filename="m.gguf")

    with pytest.raises(DownloadError) as resolving:
        await downloads.resolve("u/r")
    with pytest.raises(DownloadError) as fetching:
        await downloads.fetch(reference, lambda *_: None)

    assert [resolving.value.code, fetching.value.code] == [DownloadCode.OFFLINE] * 2
    assert is_empty(tmp_path)


def is_empty(folder: Path) -> bool:
    """Tell whether nothing lies in a folder."""
    return not list(folder.iterdir())


async def test_peers_are_asked_before_anybody_else(tmp_path: Path) -> None:
    """Even offline: the mesh is not the internet."""
    mesh = Mesh()
    spec = a_file(tmp_path / "there" / "own.gguf", CONTENT)
    downloads = ModelDownloads(tmp_path / "here", lambda: 10**9, offline=True, dial=dialling(mesh.member()))
    async with a_giver(mesh, spec) as n1:
        path = await downloads.fetch(OWN, lambda *_: None, [source(n1, len(CONTENT), "n1")])

    assert path.read_bytes() == CONTENT


async def test_where_peers_fail_the_next_source_is_asked(tmp_path: Path) -> None:
    """Here that is the internet, which nobody may ask: its answer is told, not the peers'."""
    mesh = Mesh()
    downloads = ModelDownloads(tmp_path, lambda: 10**9, offline=True, dial=dialling(mesh.member()))
    gone = PeerSource(node=mesh.member().id, name="n1", addresses=(), size_bytes=len(CONTENT))

    with pytest.raises(DownloadError) as elsewhere:
        await downloads.fetch(replace(OWN, repository="u/r"), lambda *_: None, [gone])

    assert elsewhere.value.code is DownloadCode.OFFLINE


async def test_a_file_that_only_peers_have_fails_with_their_words(tmp_path: Path) -> None:
    """There is nobody else to ask."""
    mesh = Mesh()
    downloads = ModelDownloads(tmp_path, lambda: 10**9, offline=False, dial=dialling(mesh.member()))
    gone = PeerSource(node=mesh.member().id, name="n1", addresses=(), size_bytes=len(CONTENT))

    with pytest.raises(DownloadError) as failed:
        await downloads.fetch(OWN, lambda *_: None, [gone])
    with pytest.raises(DownloadError) as nobody:
        await downloads.fetch(OWN, lambda *_: None)

    assert (failed.value.code, nobody.value.code) == (DownloadCode.PEERS, DownloadCode.PEERS)
    assert "n1" in failed.value.message


async def test_what_peers_gave_in_vain_goes_when_the_file_came_from_elsewhere(tmp_path: Path) -> None:
    """Nobody would ever look for it again."""
    reference = replace(OWN, repository="u/r")
    with PieceFile(tmp_path / "own.gguf", OWN.sha256, len(CONTENT)) as file:
        file.mark({0}, {"n1"}, is_last=True)
    (tmp_path / "own.gguf").write_bytes(CONTENT)

    await ModelDownloads(tmp_path, lambda: 10**9, offline=True).fetch(reference, lambda *_: None)

    assert names(tmp_path) == ["own.gguf"]


def names(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return [path.name for path in folder.iterdir()]
