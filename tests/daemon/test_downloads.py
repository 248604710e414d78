"""Downloads take this node's settings."""

from pathlib import Path

import pytest

from meshllm.core.catalog import ModelReference
from meshllm.core.ids import ModelId
from meshllm.daemon.downloads import ModelDownloads
from meshllm.inventory.download_errors import DownloadCode, DownloadError


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
