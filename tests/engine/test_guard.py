"""No engine outlives its daemon, however that ends."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from meshllm.engine import guard

ROOT = Path(__file__).parents[2]
WITHIN_S = 30.0
CHILD = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
"""It hears nothing of its parent: whatever ends it is the guard."""


def run_guarded(argv: list[str], *, parent: int | None = None, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run a program under the guard to its end."""
    command = [sys.executable, "-m", "meshllm.engine.guard", str(parent or os.getpid()), "--", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, cwd=ROOT, check=False, **options)  # type: ignore[call-overload]


def a_daemon(platform: str) -> "subprocess.Popen[str]":
    """Start a process that starts a guarded child and prints its pid; both wait for ever."""
    code = textwrap.dedent(f"""
        import os, subprocess, sys
        guard = "import sys; from meshllm.engine import guard; sys.exit(guard.main(sys.argv[1:], {platform!r}))"
        child = [sys.executable, "-c", guard, str(os.getpid()), "--", sys.executable, "-c", {CHILD!r}]
        subprocess.run(child, stdin=subprocess.DEVNULL, start_new_session=True)
    """)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_child_dies_with_a_killed_parent(platform: str) -> None:
    """`kill -9` of the daemon leaves no engine behind: at once where the kernel helps, else within 2 s."""
    if platform == "linux" and sys.platform != "linux":
        pytest.skip("needs the Linux kernel's help")
    with a_daemon(platform) as daemon:
        assert daemon.stdout is not None
        child = psutil.Process(int(daemon.stdout.readline()))

        daemon.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs([child], timeout=WITHIN_S)

        assert alive == []


def test_child_of_a_parent_that_is_already_gone_does_not_start() -> None:
    """The parent may die before the kernel is asked: then its process id is not ours."""
    done = run_guarded([sys.executable, "-c", "print('alive')"], parent=1 if os.getppid() != 1 else 2)

    assert done.returncode == guard.ORPHANED
    assert done.stdout == ""


def test_program_takes_the_place_of_its_guard() -> None:
    """Input, output and status are the program's own."""
    done = run_guarded([sys.executable, "-c", "import sys; print(input()); sys.exit(7)"], input="hello\n")

    assert (done.stdout, done.returncode) == ("hello\n", 7)


def test_missing_program_is_told_in_words() -> None:
    """The log has the reason, the status says that nothing ran."""
    done = run_guarded(["/nowhere/llama-server"])

    assert done.returncode == guard.CANNOT_EXECUTE
    assert done.stderr == "meshllm: cannot start /nowhere/llama-server: No such file or directory\n"


@pytest.mark.parametrize("arguments", [[], ["1"], ["1", "ls"], ["1", "--"], ["x", "--", "ls"]])
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is no program for people, but it says so."""
    assert guard.main(arguments) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 11)", 139)])
def test_watching_guard_passes_the_end_on(code: str, status: int) -> None:
    """Where the guard stays, a signal becomes 128 plus its number, as in a shell."""
    watcher = "import sys; from meshllm.engine import guard; sys.exit(guard.main(sys.argv[1:], 'darwin'))"

    done = subprocess.run(
        [sys.executable, "-c", watcher, str(os.getpid()), "--", sys.executable, "-c", code],
        cwd=ROOT, timeout=WITHIN_S, check=False,
    )  # fmt: skip

    assert done.returncode == status


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's score is Linux's")
def test_engine_is_the_first_to_go_when_memory_runs_out() -> None:
    """The kernel should take an engine, never the daemon."""
    done = run_guarded(["/bin/cat", "/proc/self/oom_score_adj"])

    assert int(done.stdout) >= guard.OOM_SCORE
