"""The leak checks of tests/conftest.py, each with a test that leaks."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

LEAKS = {
    "tasks left behind": """
        import asyncio
        owned = set()
        async def test_leaks():
            owned.add(asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="forgotten"))
    """,
    "child processes left behind": """
        import subprocess, sys
        kept = []
        def test_leaks():
            kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    """,
    "descriptors left open": """
        import socket
        kept = []
        def test_leaks():
            kept.append(socket.socket())
    """,
}

CLEAN = """
    import asyncio, socket, subprocess, sys

    async def test_uses_everything():
        task = asyncio.get_running_loop().create_task(asyncio.Event().wait())
        task.cancel()
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")

    def test_uses_a_child():
        assert subprocess.run([sys.executable, "-c", "pass"], check=True).returncode == 0
"""


def run(folder: Path, test: str) -> subprocess.CompletedProcess[str]:
    """Run one test file under the project's conftest, in a pytest of its own."""
    (folder / "conftest.py").write_text(re.sub(r"_WAIT_S = [\d.]+", "_WAIT_S = 0.5", CONFTEST.read_text()))
    (folder / "test_it.py").write_text(textwrap.dedent(test))
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=150,
    )  # fmt: skip


@pytest.mark.parametrize("message", LEAKS)
def test_leak_fails_its_test(message: str, tmp_path: Path) -> None:
    """A test that leaks makes another one fail later: it has to fail itself."""
    result = run(tmp_path, LEAKS[message])

    assert result.returncode == 1, result.stdout + result.stderr
    assert message in result.stdout
    assert "--randomly-seed=" in result.stdout


def test_clean_tests_pass(tmp_path: Path) -> None:
    """The checks must not cry wolf over sockets, tasks and children that were closed."""
    result = run(tmp_path, CLEAN)

    assert result.returncode == 0, result.stdout + result.stderr
