"""`scripts/fake_mesh` as a child process, for what drives a browser.

Owns the process and how orders reach it. Decides nothing. Doesn't know browsers.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
END_S = 10.0


class FakeMesh:
    """The real management API over fifty simulated nodes, at a port of this machine."""

    def __init__(self, port: int, *arguments: str) -> None:
        """Start it; it serves when this returns. Raises RuntimeError when it does not."""
        command = [sys.executable, str(ROOT / "scripts" / "serve_fake_mesh.py"), "--port", str(port), *arguments]
        self.url = f"http://127.0.0.1:{port}/"
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._expect(f"fake mesh: {self.url}")

    def obey(self, order: str) -> None:
        """Carry out an order of a scenario. Raises RuntimeError when it is none."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        self._expect(f"done: {order}")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate(timeout=END_S)

    def _expect(self, wanted: str) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if said != wanted:
            self.close()
            raise RuntimeError(f"the fake mesh said {said!r} instead of {wanted!r}")
