"""Make or mend .venv, called by scripts/environment with a bare Python 3.11 or newer.

Owns the steps from nothing to an environment with the locked packages, and the lock that lets two starts at
once do them once. Doesn't know why an environment is wanted; installs no more than the lock files name.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
INCLUDES = {"runtime": ("runtime",), "test": ("runtime", "test")}
COMMAND = """#!/bin/sh
# Written by scripts/prepare_environment.py.
exec "$(dirname "$0")/python" -P -m meshllm "$@"
"""


def say(message: str) -> None:
    """Tell the person who waits what is going on."""
    print(f"mesh-llm: {message}", file=sys.stderr, flush=True)


def main(kind: str, key: str) -> int:
    """Bring the environment to the state that `key` stands for. Return an exit status."""
    stamp = ENVIRONMENT / f"meshllm-{kind}.stamp"
    try:
        with _lock_file().open("w") as lock:
            _acquire(lock.fileno())
            if stamp.is_file() and stamp.read_text().strip() == key and PYTHON.exists():
                return 0  # somebody else did it while we waited
            _make(kind, key)
    except KeyboardInterrupt:
        say("interrupted; the next start goes on from here")
        return 1
    except OSError as error:
        say(f"cannot write {error.filename or ROOT}: {error.strerror}")
        return 1
    except subprocess.CalledProcessError as error:
        say(f"preparing .venv failed with exit status {error.returncode}; its own words are above")
        return 1
    return 0


def _lock_file() -> Path:
    """Return the lock's path, outside of .venv because a broken .venv is made anew."""
    folder = ROOT / ".cache"
    folder.mkdir(exist_ok=True)
    return folder / "environment.lock"


def _acquire(descriptor: int) -> None:
    """Take the lock, saying so when that means waiting."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another start is preparing .venv; waiting for it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _make(kind: str, key: str) -> None:
    """Do the steps, and write the stamps last."""
    began = time.monotonic()
    for old in ENVIRONMENT.glob("meshllm-*.stamp"):
        old.unlink()
    if not _has_pip():
        say(f"making .venv with Python {sys.version_info[0]}.{sys.version_info[1]}")
        if ENVIRONMENT.exists():
            shutil.rmtree(ENVIRONMENT)
        venv.create(ENVIRONMENT, with_pip=True, symlinks=True)
    _install(ROOT / "requirements" / f"{kind}.txt")
    _link_package()
    # As pip does with what it installs: a node that compiles itself keeps 2.5 MB of what that took for its whole life.
    subprocess.run([PYTHON, "-m", "compileall", "-q", ROOT / "meshllm"], check=False)
    for included in INCLUDES[kind]:
        (ENVIRONMENT / f"meshllm-{included}.stamp").write_text((key if included == kind else _key(included)) + "\n")
    say(f"ready in {time.monotonic() - began:.0f} s")


def _has_pip() -> bool:
    """Tell whether there is an environment that can install; one made without pip is given it."""
    is_new_enough = "import sys; sys.exit(sys.version_info < (3, 11))"
    if not PYTHON.exists() or subprocess.run([PYTHON, "-c", is_new_enough], check=False).returncode:
        return False
    for module in ("pip", "ensurepip"):
        run = subprocess.run([PYTHON, "-m", module, "--version"], capture_output=True, check=False)
        if run.returncode == 0 and module == "pip":
            return True
    return subprocess.run([PYTHON, "-m", "ensurepip"], capture_output=True, check=False).returncode == 0


def _install(lock_file: Path) -> None:
    """Install exactly what the lock file names; count what arrives, since it may take a minute."""
    total = sum(_count(file) for file in _files_of(lock_file))
    say(f"installing {total} packages into .venv")
    command = [
        str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps",
        "--prefer-binary", "--progress-bar", "off", "-r", str(lock_file),
    ]  # fmt: skip
    lines: list[str] = []
    seen = 0
    show = sys.stderr.isatty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout or ():
            lines.append(line)
            if line.startswith(("Collecting ", "Requirement already satisfied")):
                seen += 1
                if show:
                    print(f"\r  {min(seen, total)}/{total}", end="", file=sys.stderr, flush=True)
    if show:
        print("\r", end="", file=sys.stderr)
    if pip.returncode:
        sys.stderr.writelines(lines[-25:])
        raise subprocess.CalledProcessError(pip.returncode, command)


def _files_of(lock_file: Path) -> list[Path]:
    """Return a lock file and those that it includes with `-r`."""
    included = [line.split()[1] for line in lock_file.read_text().splitlines() if line.startswith("-r ")]
    return [lock_file, *(lock_file.parent / name for name in included)]


def _count(lock_file: Path) -> int:
    return sum(1 for line in lock_file.read_text().splitlines() if line and line[0].isalnum())


def _link_package() -> None:
    """Put the checkout on the environment's path, and `mesh-llm` into its bin folder."""
    found = subprocess.run(
        [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (Path(found.stdout.strip()) / "meshllm-checkout.pth").write_text(f"{ROOT}\n")
    command = ENVIRONMENT / "bin" / "mesh-llm"
    command.write_text(COMMAND)
    command.chmod(0o755)


def _key(kind: str) -> str:
    """Return the checksum that scripts/environment computes for another kind."""
    files = [ROOT / "pyproject.toml", *(ROOT / "requirements" / f"{name}.txt" for name in [kind])]
    run = subprocess.run(
        ["cksum"],  # the same program that scripts/environment finds
        input=b"".join(file.read_bytes() for file in files),
        capture_output=True, check=True,
    )  # fmt: skip
    return run.stdout.decode().strip().replace(" ", "-")


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1], sys.argv[2]))
