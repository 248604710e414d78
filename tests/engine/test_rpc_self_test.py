"""Two programs are tried together; what is wrong becomes a sentence."""

from pathlib import Path

import pytest

from meshllm.engine.rpc_self_test import RpcUnusableError, check_pair
from tests.engine.rpc_programs import write_pair

ABORT = (
    'print("x.cpp:569: Remote RPC server crashed or returned malformed response", flush=True); import os; os.abort()'
)


async def test_pair_that_works_says_what_it_is(tmp_path: Path) -> None:
    """Its protocol comes from the worker itself, the rest from the server."""
    folder = write_pair(tmp_path)

    passed = await check_pair(str(folder / "llama-server"), str(folder / "ggml-rpc-server"))

    assert passed.protocol == "7.0.1"
    assert passed.version == "0.5.0 b7 (abc123)"
    assert passed.devices == ("CUDA0",)


@pytest.mark.parametrize(
    ("troubles", "words"),
    [
        (
            {"worker_trouble": "import os; os.kill(os.getpid(), 4)"},
            "ggml-rpc-server cannot run here: this engine build",
        ),
        ({"server_trouble": "sys.exit('error: invalid argument: --rpc')"}, "it was built without RPC"),
        ({"server_trouble": ABORT}, "llama-server cannot run here: the RPC connection to a worker"),
        ({"tokens": 3}, "made 3 tokens over RPC instead of 4"),
    ],
    ids=["illegal instruction", "no RPC", "lost", "wrong answer"],
)
async def test_pair_that_does_not_work_is_explained(tmp_path: Path, troubles: dict[str, str], words: str) -> None:
    """Whoever built it reads why, and nothing of it is left running."""
    folder = write_pair(tmp_path, **troubles)  # type: ignore[arg-type]

    with pytest.raises(RpcUnusableError, match=words):
        await check_pair(str(folder / "llama-server"), str(folder / "ggml-rpc-server"))


async def test_program_that_is_none_is_explained(tmp_path: Path) -> None:
    """A file with that name may be anything."""
    folder = write_pair(tmp_path)
    (folder / "llama-server").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))

    with pytest.raises(RpcUnusableError, match="another kind of machine"):
        await check_pair(str(folder / "llama-server"), str(folder / "ggml-rpc-server"))
