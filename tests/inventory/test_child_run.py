"""A child is run to its answer or ended: by silence, by cancelling, by its own death."""

import asyncio
from pathlib import Path

import pytest

from meshllm.inventory import child_run
from meshllm.inventory.child_run import ChildRun
from meshllm.inventory.download_errors import DownloadCode, DownloadError

WAIT_S = 60.0


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a module of the test's own the child; return where its text goes."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(child_run, "_MODULE", "scripted_child")
    monkeypatch.setattr(child_run, "_LOOK_INTERVAL_S", 0.02)
    return tmp_path / "scripted_child.py"


def write(script: Path, *lines: str) -> None:
    """Write the child: what it says, line by line."""
    script.write_text("import json, os, sys, threading\norder = json.loads(sys.stdin.readline())\n" + "\n".join(lines))


async def failure(run: ChildRun) -> DownloadError:
    """Return why a run fails."""
    with pytest.raises(DownloadError) as caught:
        await asyncio.wait_for(run.run(), WAIT_S)
    return caught.value


async def test_the_result_is_what_the_child_answers(script: Path) -> None:
    """It knows its order, and gets its temporary folder by the environment."""
    write(script, "print(json.dumps({'result': [order['do'], os.environ['TMPDIR']]}))")

    result = await ChildRun({"do": "it"}, scratch=script.parent).run()

    assert result == ["it", str(script.parent)]


async def test_an_answered_error_is_raised(script: Path) -> None:
    """With the child's code and sentence."""
    write(script, "print(json.dumps({'error': 'not_found', 'message': 'it is nowhere'}))")

    error = await failure(ChildRun({}))

    assert (error.code, error.message) == (DownloadCode.NOT_FOUND, "it is nowhere")


async def test_progress_is_what_grows_and_never_goes_back(script: Path, tmp_path: Path) -> None:
    """A wheel is unpacked to something that begins small."""
    write(
        script,
        f"watched, nudged = {str(tmp_path / 'watched')!r}, {str(tmp_path / 'nudged')!r}",
        "print(json.dumps({'total_bytes': 100}), flush=True)",
        "open(watched, 'w').write('x' * 60)",
        "while not os.path.exists(nudged): threading.Event().wait(0.01)",
        "open(watched, 'w').write('x' * 10)",
        "print(json.dumps({'result': None}))",
    )
    told: list[tuple[int, int]] = []

    def watch(done: int, total: int) -> None:
        told.append((done, total))
        if done == 60:
            (tmp_path / "nudged").touch()

    await asyncio.wait_for(ChildRun({}, watched=[tmp_path / "watched"], on_progress=watch).run(), WAIT_S)

    assert told[-1] == (60, 100)
    assert told == sorted(told)


async def test_a_child_that_is_silent_is_ended(script: Path) -> None:
    """Nothing grew for as long as is allowed."""
    write(script, "threading.Event().wait(60)")

    error = await failure(ChildRun({}, stall_s=0.2))

    assert error.code is DownloadCode.NETWORK
    assert "nothing has arrived" in error.message


async def test_a_child_that_verifies_is_not_silent(script: Path) -> None:
    """To hash forty gigabytes takes longer than any silence is allowed."""
    write(
        script,
        "print(json.dumps({'stage': 'verifying'}), flush=True)",
        "threading.Event().wait(0.5)",
        "print(json.dumps({'result': 1}))",
    )

    result = await ChildRun({}, stall_s=0.2).run()

    assert result == 1


async def test_a_child_that_ignores_the_polite_end_is_killed(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two seconds for real, here sooner."""
    monkeypatch.setattr("meshllm.core.limits.DOWNLOAD_STOP_S", 0.1)
    write(
        script,
        "import signal",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "print(json.dumps({'stage': 'deaf'}), flush=True)",
        "print(json.dumps({'result': 1}), flush=True)",
        "threading.Event().wait(60)",
    )

    result = await asyncio.wait_for(ChildRun({}).run(), WAIT_S)

    assert result == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [("raise SystemExit('last words')", "last words"), ("os._exit(3)", "exit status 3")],
)
async def test_a_child_that_dies_is_an_error_with_its_last_words(script: Path, line: str, words: str) -> None:
    """Or with its exit status, where it said nothing."""
    write(script, line)

    error = await failure(ChildRun({}))

    assert error.code is DownloadCode.NETWORK
    assert words in error.message


async def test_cancelling_ends_the_child(script: Path, tmp_path: Path) -> None:
    """The conftest fails this test if a process is left."""
    write(script, f"open({str(tmp_path / 'started')!r}, 'w').write('x')", "threading.Event().wait(60)")
    started = asyncio.Event()

    def watch(done: int, total: int) -> None:
        if done:
            started.set()

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(ChildRun({}, watched=[tmp_path / "started"], on_progress=watch).run())
        await asyncio.wait_for(started.wait(), WAIT_S)
        running.cancel()

    assert running.cancelled()
