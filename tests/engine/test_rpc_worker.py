"""A worker's server: on loopback alone, confined, and gone when it should be."""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from meshllm.core.engines import EngineBuild, RpcBuild
from meshllm.core.limits import MIB
from meshllm.daemon.socket_owner import listens
from meshllm.engine.command import this_host
from meshllm.engine.rpc_worker import RpcJob, RpcWorker
from tests.engine.builders import a_fake_build

JOB = RpcJob(memory_bytes=64 * MIB, threads=1)
WITHIN_S = 60.0


def lending_build(worker: str = "fake") -> EngineBuild:
    """Return the engine double that can lend."""
    return dataclasses.replace(a_fake_build(), rpc=RpcBuild(version="fake 1", server="fake", worker=worker))


def a_worker(runtime_dir: Path, job: RpcJob = JOB, build: EngineBuild | None = None) -> RpcWorker:
    """Return a server that does not run yet."""
    return RpcWorker(build or lending_build(), this_host(), job, runtime_dir, listens)


@asynccontextmanager
async def running(worker: RpcWorker) -> AsyncIterator[asyncio.Task[str]]:
    """Let a server run until the test has looked; the task says why it ended."""
    is_listening = asyncio.Event()

    async def listening() -> None:
        is_listening.set()

    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        life = group.create_task(worker.run(listening))
        first = group.create_task(is_listening.wait())
        await asyncio.wait({life, first}, return_when=asyncio.FIRST_COMPLETED)
        first.cancel()
        try:
            yield life
        finally:
            worker.stop()


def inside(folder: Path) -> dict[str, list[Path]]:
    """Return the folders in a folder, each with what is in it."""
    return {str(one.resolve()): list(one.iterdir()) for one in folder.iterdir()}


def status_of(pid: int) -> str:
    """Return what the kernel says of a process; empty where it says nothing."""
    return Path(f"/proc/{pid}/status").read_text(encoding="utf-8") if psutil.LINUX else ""


async def test_it_listens_on_loopback_alone(runtime_dir: Path) -> None:
    """Its port is chosen for it, and no other machine reaches it."""
    worker = a_worker(runtime_dir)
    async with running(worker):
        listening = [one.laddr for one in psutil.Process(worker.pid).net_connections() if one.status == "LISTEN"]

        assert listening == [("127.0.0.1", worker.port)]


async def test_it_serves_until_it_is_asked_to_end(runtime_dir: Path) -> None:
    """Its process is gone then, and its folder."""
    worker = a_worker(runtime_dir)
    async with running(worker) as life:
        with socket.create_connection(("127.0.0.1", worker.port), timeout=WITHIN_S) as client:
            await asyncio.to_thread(client.sendall, b"tensor")
            said = await asyncio.to_thread(client.recv, 6)
        pid = worker.pid
        worker.stop()
        reason = await life

    assert (said, reason) == (b"tensor", "")
    assert not psutil.pid_exists(pid)
    assert inside(runtime_dir) == {}


async def test_it_has_nothing_that_it_does_not_need(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secrets, no folder but its own, no more memory than was agreed, no larger privileges."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("EDITOR", "vi")
    worker = a_worker(runtime_dir, dataclasses.replace(JOB, cache=tmp_path))
    async with running(worker):
        process = psutil.Process(worker.pid)
        environment, folder = process.environ(), process.cwd()
        told = status_of(worker.pid)
        space = process.rlimit(psutil.RLIMIT_AS)[0] if psutil.LINUX else JOB.memory_bytes

        assert environment["LLAMA_CACHE"] == str(tmp_path)
        assert {"OPENAI_API_KEY", "EDITOR"}.isdisjoint(environment)
        assert inside(runtime_dir) == {folder: []}
        assert 0 < space < JOB.memory_bytes + 8 * 1024 * MIB
        assert not told or "NoNewPrivs:\t1" in told


async def test_a_native_server_gets_no_environment_of_people(runtime_dir: Path, tmp_path: Path) -> None:
    """Neither where they live nor what they run."""
    program = tmp_path / "ggml-rpc-server"
    program.write_text("#!/bin/sh\nenv; exit 3\n", encoding="utf-8")
    program.chmod(0o755)
    build = dataclasses.replace(lending_build(str(program)), kind="llama-server")
    worker = a_worker(runtime_dir, build=build)
    async with running(worker) as life:
        reason = await life

    names = {line.partition("=")[0] for line in worker.log.lines}
    assert {"HOME", "PYTHONPATH", "USER"}.isdisjoint(names)
    assert "3" in reason


async def test_an_end_that_nobody_asked_for_has_a_reason(runtime_dir: Path) -> None:
    """Whoever killed it."""
    worker = a_worker(runtime_dir)
    async with running(worker) as life:
        psutil.Process(worker.pid).kill()
        reason = await life

    assert reason
    assert worker.port == 0


async def test_a_program_that_is_missing_is_said(runtime_dir: Path) -> None:
    """It is no reason to wait."""
    build = dataclasses.replace(lending_build("/nowhere/ggml-rpc-server"), kind="llama-server")
    worker = a_worker(runtime_dir, build=build)
    async with running(worker) as life:
        reason = await life

    assert "No such file" in " ".join((reason, *worker.log.lines))


async def test_a_port_that_somebody_took_is_not_the_end(runtime_dir: Path, tmp_path: Path) -> None:
    """Another one is tried."""
    count = tmp_path / "count"
    program = tmp_path / "ggml-rpc-server"
    program.write_text(f"#!/bin/sh\necho x >> {count}\necho failed to bind\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    job = dataclasses.replace(JOB, cache=tmp_path)
    build = dataclasses.replace(lending_build(str(program)), kind="llama-server")
    worker = a_worker(runtime_dir, job, build)
    async with running(worker) as life:
        await life

    assert count.read_text(encoding="utf-8") == "x\n" * 3


async def test_a_server_that_is_cancelled_is_gone(runtime_dir: Path) -> None:
    """The daemon itself may end at any time."""
    worker = a_worker(runtime_dir)
    async with running(worker) as life:
        life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await life

        assert not psutil.pid_exists(worker.pid)


async def test_a_server_cannot_read_files_of_people(runtime_dir: Path, tmp_path: Path) -> None:
    """Whatever its peer makes it do."""
    secret, program = tmp_path / "secret", tmp_path / "bin" / "ggml-rpc-server"
    secret.write_text("the secret", encoding="utf-8")
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nread word < {secret} && echo it reads $word\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    worker = a_worker(runtime_dir, build=dataclasses.replace(lending_build(str(program)), kind="llama-server"))
    async with running(worker) as life:
        await life

    said = "\n".join(worker.log.lines)
    if "stay open" in said:
        pytest.skip("this kernel closes nothing")
    assert "it reads" not in said
    assert "Permission denied" in said or "cannot open" in said


def test_a_server_shows_its_host_one_device(tmp_path: Path) -> None:
    """A host names its workers by the devices that it sees, one for each."""
    build = lending_build()
    assert build.rpc is not None
    gpus = dataclasses.replace(build, rpc=dataclasses.replace(build.rpc, devices=("CUDA0", "CUDA1")))

    plain, shown = (a_worker(tmp_path, build=one)._command(4000, str(tmp_path)).argv for one in (build, gpus))

    assert "-d" not in plain
    assert shown[shown.index("-d") + 1] == "CUDA0"
