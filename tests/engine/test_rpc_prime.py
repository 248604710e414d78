"""Showing a worker its layers from a file that is here."""

import asyncio
from pathlib import Path

import psutil
import pytest

from meshllm.engine.command import this_host
from meshllm.engine.rpc_prime import PrimeError, Share, prime

SHARE = Share(path="/models/big.gguf", first_layer=2, layers=2, port=4711)


async def test_a_load_that_succeeds_leaves_nothing(native: Path, runtime_dir: Path) -> None:
    """No process, no folder."""
    await prime(str(native), SHARE, this_host(), runtime_dir)

    assert psutil.Process().children() == []
    assert await asyncio.to_thread(lambda: list(runtime_dir.iterdir())) == []


async def test_exactly_its_layers_go_to_the_worker(tmp_path: Path, runtime_dir: Path) -> None:
    """And nothing but them; the rest stays in the file."""
    program, told = tmp_path / "llama-server", tmp_path / "told"
    program.write_text(f'#!/bin/sh\nfor one in "$@"; do echo "$one" >> {told}; done\nexit 3\n', encoding="utf-8")
    program.chmod(0o755)

    with pytest.raises(PrimeError, match="3"):
        await prime(str(program), SHARE, this_host(), runtime_dir)

    arguments = told.read_text(encoding="utf-8").splitlines()
    assert r"^blk\.(2|3)\.=RPC0[127.0.0.1:4711]" in arguments
    assert arguments[arguments.index("--n-gpu-layers") + 1] == "0"


async def test_a_program_that_is_missing_is_told(runtime_dir: Path) -> None:
    """In words."""
    with pytest.raises(PrimeError):
        await prime("/nowhere/llama-server", SHARE, this_host(), runtime_dir)


async def test_one_that_takes_too_long_leaves_nothing(
    native: Path, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split may end while its file is read."""
    monkeypatch.setenv("MESH_FAKE_ENGINE", '{"load": "hang"}')

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await prime(str(native), SHARE, this_host(), runtime_dir)

    assert psutil.Process().children() == []
