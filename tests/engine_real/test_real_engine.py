"""The life of the real engine: llama.cpp out of the wheel, as a daemon runs it."""

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from meshllm.api.engine_series import engine_series
from meshllm.core import events as ev
from meshllm.core.engines import EngineBuild, EngineFault, EngineOptions
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB
from meshllm.engine.build import probe_build
from meshllm.engine.health import metrics
from tests.engine.builders import QUICK, Bench, a_bench, a_plan
from tests.engine_real.tiny_model import write_tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
WHEEL = EngineBuild(kind="xllamacpp", version="test", uses_gpu=False)
WITHIN_S = 60.0
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


def a_session(ready: ev.EngineReady) -> aiohttp.ClientSession:
    """Return a client of an engine that shows its key."""
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(ready.endpoint.socket_path, limit=0),
        headers={"Authorization": f"Bearer {ready.endpoint.key}"},
        timeout=aiohttp.ClientTimeout(total=WITHIN_S),
    )


@asynccontextmanager
async def a_client(ready: ev.EngineReady) -> AsyncIterator[Callable[[str, dict[str, Any]], Any]]:
    """Yield a function that posts JSON to an engine and returns (status, answer)."""
    async with a_session(ready) as session:

        async def post(path: str, body: dict[str, Any]) -> tuple[int, Any]:
            async with session.post(f"http://engine{path}", json=body) as answer:
                return answer.status, await answer.json()

        yield post


async def loaded(bench: Bench, path: str, **of_plan: Any) -> ev.EngineReady:
    """Start an engine and return what it says when it is ready."""
    bench.supervisor.start(a_plan(path, **of_plan))
    return await bench.next(ev.EngineReady)


async def test_wheel_passes_its_self_test() -> None:
    """`auto` is the wheel where it is installed."""
    found = await probe_build("auto")

    assert found.kind == "xllamacpp"
    assert found.version
    assert "xllamacpp" not in sys.modules


async def test_model_answers_in_words_under_its_canonical_name(runtime_dir: Path, smollm2: str) -> None:
    """Every interface works over the socket, and names the model that really answered."""
    hello = [{"role": "user", "content": "Say hello."}]
    asked: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"model": "other", "messages": hello, "max_tokens": 8, "temperature": 0},
        "/v1/completions": {"model": "other", "prompt": "The sky is", "max_tokens": 4},
        "/v1/responses": {"model": "other", "input": "Say hello.", "max_output_tokens": 4},
        "/v1/messages": {"model": "other", "messages": hello, "max_tokens": 4},
        "/v1/messages/count_tokens": {"model": "other", "messages": hello},
        "/tokenize": {"content": "hello world"},
        "/apply-template": {"messages": hello},
    }
    async with a_bench(WHEEL, runtime_dir) as bench:
        ready = await loaded(bench, smollm2, context_tokens=1024)
        async with a_client(ready) as post:
            answers = {path: await post(path, body) for path, body in asked.items()}

    chat = answers["/v1/chat/completions"][1]
    assert {status for status, _ in answers.values()} == {200}
    assert any(letter.isalpha() for letter in chat["choices"][0]["message"]["content"])
    assert chat["usage"]["completion_tokens"] > 0
    assert {answer["model"] for _, answer in answers.values() if "model" in answer} == {Path(smollm2).stem}
    assert sum("model" in answer for _, answer in answers.values()) == 4
    assert answers["/v1/messages/count_tokens"][1]["input_tokens"] > 3
    assert len(answers["/tokenize"][1]["tokens"]) == 2
    assert "hello" in answers["/apply-template"][1]["prompt"]
    assert (ready.context_tokens, ready.slots) == (1024, 2)
    assert ready.resident_bytes > 50 * 2**20 or not sys.platform.startswith("linux")


@pytest.mark.rows("MET-9")
async def test_metrics_are_those_that_are_passed_on(runtime_dir: Path, smollm2: str) -> None:
    """llama.cpp's own counters, by the names that dashboards show."""
    async with a_bench(WHEEL, runtime_dir) as bench:
        ready = await loaded(bench, smollm2, context_tokens=512)
        async with a_client(ready) as post:
            await post("/v1/completions", {"prompt": "The sky is", "max_tokens": 4})
        told = await metrics(ready.endpoint, WITHIN_S)
    found = {one.name: one for one in engine_series(NodeId("n1"), {ModelId("m"): told})}

    (made,) = found["meshllm_engine_tokens_predicted"].samples
    assert (made.value, made.labels) == (4, {"model": "m", "node": "n1"})
    assert "meshllm_engine_requests_processing" in found


async def test_schema_is_obeyed_and_a_long_prompt_refused(runtime_dir: Path, smollm2: str) -> None:
    """Both are the engine's own doing, and the front door relies on them."""
    schema = {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}
    async with a_bench(WHEEL, runtime_dir) as bench:
        ready = await loaded(bench, smollm2, context_tokens=512)
        async with a_client(ready) as post:
            question = [{"role": "user", "content": "A colour?"}]
            _, colored = await post(
                "/v1/chat/completions", {"messages": question, "max_tokens": 24, "response_format": wanted}
            )
            status, refused = await post("/v1/completions", {"prompt": "word " * 600})

    text = colored["choices"][0]["message"]["content"]
    assert "red" in text or "blue" in text
    assert (status, refused["error"]["type"]) == (400, "exceed_context_size_error")


async def test_every_request_has_a_context_of_its_own(runtime_dir: Path, smollm2: str) -> None:
    """Three conversations that nearly fill theirs, a stream, and one that asks too much: nobody takes another's."""
    words = [380, 381, 382, 700]
    story = {"prompt": "Once upon a time", "max_tokens": 32, "ignore_eos": True, "stream": True}
    async with a_bench(WHEEL, runtime_dir) as bench:
        ready = await loaded(bench, smollm2, context_tokens=512, slots=4)
        async with (
            a_session(ready) as session,
            a_client(ready) as post,
            asyncio.TaskGroup() as group,
            session.post("http://engine/v1/completions", json=story) as stream,
        ):
            prompts = ({"prompt": "word " * count, "max_tokens": 4} for count in words)
            work = [group.create_task(post("/v1/completions", body)) for body in prompts]
            told = (await stream.read()).decode()

    answers = [task.result() for task in work]
    assert [status for status, _ in answers] == [200, 200, 200, 400]
    assert answers[-1][1]["error"]["n_ctx"] == ready.context_tokens == 512
    assert told.rstrip().endswith("[DONE]")
    assert "error" not in told


async def test_a_prompt_that_was_computed_before_is_not_computed_again(runtime_dir: Path, smollm2: str) -> None:
    """Slots of their own keep what they have, and the next request with the same beginning finds it."""
    long = {"prompt": "word " * 300, "max_tokens": 1}
    async with a_bench(WHEEL, runtime_dir) as bench:
        ready = await loaded(bench, smollm2, context_tokens=512, slots=2)
        async with a_client(ready) as post:
            first, other, again = [
                (await post("/v1/completions", body))[1]["timings"]["prompt_n"]
                for body in (long, {"prompt": "Something else.", "max_tokens": 1}, long)
            ]

    assert first >= 300
    assert other < 10
    assert again == 1


async def test_more_requests_than_slots_are_all_answered_while_probes_get_through(
    runtime_dir: Path, tiny: Path
) -> None:
    """A queue in the engine must not starve the watch over it."""
    async with a_bench(WHEEL, runtime_dir) as bench:
        ready = await loaded(bench, str(tiny), context_tokens=256)
        bench.traffic.requests = 40
        async with a_client(ready) as post, asyncio.TaskGroup() as group:
            body = {"prompt": "abc", "max_tokens": 8, "ignore_eos": True}
            work = [group.create_task(post("/v1/completions", body)) for _ in range(40)]

    assert {task.result()[0] for task in work} == {200}
    assert not any(isinstance(event, ev.EngineHung) for event in bench.told)


async def test_slot_is_free_soon_after_its_client_left(runtime_dir: Path, smollm2: str) -> None:
    """Also in the middle of a long prompt: nobody computes what nobody waits for."""
    long = {"prompt": "word " * 1500, "stream": True, "return_progress": True}
    async with a_bench(WHEEL, runtime_dir) as bench:
        ready = await loaded(bench, smollm2, context_tokens=2048, slots=1)
        async with a_session(ready) as session:
            async with session.post("http://engine/v1/completions", json=long) as answer:
                first = await answer.content.readline()
            async with asyncio.timeout(16.0):  # the whole prompt takes twenty seconds, on a busy machine more
                async with session.post("http://engine/v1/completions", json={"prompt": "x", "max_tokens": 1}) as short:
                    status = short.status

    assert b"prompt_progress" in first
    assert status == 200


@pytest.mark.rows("API-3")
async def test_embedding_model_embeds(runtime_dir: Path, tmp_path: Path) -> None:
    """Its capabilities decide the mode that the engine is started in."""
    path = write_tiny_model(tmp_path / "embed.gguf", embeds=True)
    async with a_bench(WHEEL, runtime_dir) as bench:
        ready = await loaded(bench, str(path), context_tokens=128, capabilities=frozenset({"embedding"}))
        async with a_client(ready) as post:
            status, answer = await post("/v1/embeddings", {"model": "other", "input": ["abc", "d"]})

    assert status == 200
    assert [len(one["embedding"]) for one in answer["data"]] == [32, 32]
    assert answer["model"] == "other"  # the only interface that repeats what it was asked; the front door knows


async def test_stop_is_quick_and_leaves_nothing(runtime_dir: Path, tiny: Path) -> None:
    """Politeness is enough."""
    async with a_bench(WHEEL, runtime_dir) as bench:
        ready = await loaded(bench, str(tiny))
        bench.supervisor.stop(ModelId("tiny"))
        async with asyncio.timeout(WITHIN_S):
            failure = await bench.end()

    assert (failure.fault, failure.exit_code) == (EngineFault.STOPPED, -signal.SIGTERM)
    assert not psutil.pid_exists(ready.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGILL])
async def test_crash_is_explained_within_a_second(runtime_dir: Path, tiny: Path, number: signal.Signals) -> None:
    """F5: its replica is out of the table at once."""
    async with a_bench(WHEEL, runtime_dir) as bench:
        ready = await loaded(bench, str(tiny))
        os.kill(ready.pid, number)
        async with asyncio.timeout(WITHIN_S):
            failure = await bench.end()

    expected = EngineFault.ILLEGAL_INSTRUCTION if number is signal.SIGILL else EngineFault.CRASHED
    assert (failure.fault, failure.exit_code) == (expected, -number)


async def test_suspended_engine_is_hung(runtime_dir: Path, tiny: Path) -> None:
    """F6: it still accepts connections; only progress tells."""
    async with a_bench(WHEEL, runtime_dir, dataclasses.replace(QUICK, stall_s=1.0)) as bench:
        ready = await loaded(bench, str(tiny))
        bench.traffic.requests = 1
        os.kill(ready.pid, signal.SIGSTOP)
        hung = await bench.next(ev.EngineHung)
        bench.supervisor.stop(ModelId("tiny"), kill=True)
        failure = await bench.end()

    assert "takes no processor time" in hung.message
    assert failure.fault is EngineFault.HUNG


def truncated(data: bytes) -> bytes:
    """Return a file without its last tensors."""
    return data[:-4000]


def wrong_magic(data: bytes) -> bytes:
    """Return a file that begins with something else."""
    return b"NOPE" + data[4:]


def cut_header(data: bytes) -> bytes:
    """Return a file that ends within its header."""
    return data[:200]


def too_new(data: bytes) -> bytes:
    """Return a file of a version that nobody has written yet."""
    return data[:4] + (99).to_bytes(4, "little") + data[8:]


def empty(_: bytes) -> bytes:
    """Return an empty file."""
    return b""


def a_copy(path: Path, folder: Path, damage: Callable[[bytes], bytes]) -> Path:
    """Return the path of a damaged copy of a file."""
    copy = folder / path.name
    copy.write_bytes(damage(path.read_bytes()))
    return copy


@pytest.mark.parametrize("damage", [truncated, wrong_magic, cut_header, too_new, empty])
async def test_damaged_file_is_called_damaged(
    runtime_dir: Path, tiny: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Another try would only repeat it; another download may help."""
    path = a_copy(tiny, tmp_path, damage)
    async with a_bench(WHEEL, runtime_dir) as bench:
        bench.supervisor.start(a_plan(str(path)))
        failure = await bench.end()

    assert failure.fault is EngineFault.BAD_FILE
    assert "fetch it again" in failure.message


async def test_unknown_architecture_is_named(runtime_dir: Path, tmp_path: Path) -> None:
    """The file is fine; this engine is too old for it."""
    path = write_tiny_model(tmp_path / "tiny.gguf", architecture="quux")
    async with a_bench(WHEEL, runtime_dir) as bench:
        bench.supervisor.start(a_plan(str(path)))
        failure = await bench.end()

    assert failure.fault is EngineFault.UNKNOWN_ARCHITECTURE
    assert "'quux'" in failure.message


def _refuses_too_much() -> bool:
    """Tell whether this machine refuses an allocation of a hundred gigabytes outright."""
    heuristic = OVERCOMMIT.exists() and OVERCOMMIT.read_text(encoding="ascii").strip() == "0"
    return heuristic and psutil.virtual_memory().total + psutil.swap_memory().total < 64 * GIB


@pytest.mark.skipif(not _refuses_too_much(), reason="this machine would try, and run out of memory for real")
async def test_context_beyond_memory_is_out_of_memory(runtime_dir: Path, smollm2: str) -> None:
    """F7: the core tries once with less."""
    async with a_bench(WHEEL, runtime_dir) as bench:
        bench.supervisor.start(a_plan(smollm2, context_tokens=5_000_000))
        failure = await bench.next(ev.EngineExited)

    assert failure.failure.fault is EngineFault.OUT_OF_MEMORY


@pytest.mark.parametrize("when", ["loading", "ready"])
def test_killed_daemon_leaves_no_engine(runtime_dir: Path, smollm2: str, when: str) -> None:
    """F2: `kill -9` of the daemon, and two seconds later its engines are gone, also in the middle of a load."""
    code = textwrap.dedent(f"""
        import asyncio, uvloop
        from pathlib import Path
        from meshllm.core import events as ev
        from tests.engine_real.test_real_engine import WHEEL, a_bench, a_plan

        async def main():
            async with a_bench(WHEEL, Path({str(runtime_dir)!r})) as bench:
                bench.supervisor.start(a_plan({smollm2!r}))
                event = await bench.next(ev.EngineReady if {when!r} == "ready" else ev.EngineProgressed)
                pid = event.pid if {when!r} == "ready" else bench.told[0].pid
                print(pid, flush=True)
                await asyncio.Event().wait()

        uvloop.run(main())
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as daemon:
        assert daemon.stdout is not None
        engine = psutil.Process(int(daemon.stdout.readline()))

        daemon.kill()
        _, alive = psutil.wait_procs([engine], timeout=WITHIN_S)

    assert alive == []


@pytest.mark.rows("CFG-3", "CFG-6")
async def test_what_people_said_of_a_model_reaches_the_engine(smollm2: str, runtime_dir: Path, tmp_path: Path) -> None:
    """A template of one's own, and arguments: the engine says of itself that it has them."""
    template = tmp_path / "t.jinja"
    template.write_text("{% for message in messages %}<{{ message.content }}>{% endfor %}")
    options = EngineOptions(
        chat_template=str(template), arguments=("--temp", "0.25", "--predict=3", "--seed", "7", "--tensor-split", "1,1")
    )
    async with a_bench(WHEEL, runtime_dir) as bench:
        bench.supervisor.start(dataclasses.replace(a_plan(smollm2), options=options))
        ready = await bench.next(ev.EngineReady)
        async with a_client(ready) as post:
            _, applied = await post("/apply-template", {"messages": [{"role": "user", "content": "hello"}]})
            _, answer = await post("/v1/completions", {"prompt": "one two three"})

    assert applied["prompt"].startswith("<hello>")
    assert answer["usage"]["completion_tokens"] <= 3
