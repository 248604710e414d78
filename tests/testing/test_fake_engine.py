"""The engine double: it has to be as much like the real one as other tests believe."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0


@dataclass
class Double:
    """A running double and a client of it."""

    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession

    async def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Return status and JSON of an answer."""
        async with self.session.post(f"http://engine{path}", json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Return status and JSON of an answer."""
        async with self.session.get(f"http://engine{path}", headers=headers) as answer:
            return answer.status, await answer.json()

    async def end(self) -> int:
        """Return the exit status, once there is one."""
        async with asyncio.timeout(WITHIN_S):
            return await self.process.wait()

    async def last_words(self) -> str:
        """Return the last line of the log, once it has ended."""
        assert self.process.stderr is not None
        await self.end()
        return (await self.process.stderr.read()).decode().splitlines()[-1]


@asynccontextmanager
async def a_double(
    folder: Path, *, waits: bool = True, environment: str = "", **switches: object
) -> AsyncIterator[Double]:
    """Yield a double that is ready, unless it isn't waited for."""
    path = str(folder / "e.sock")
    told = {"model": "m.gguf", "alias": "m", "socket": path, "key": "k", "slots": 2, "context_tokens": 512}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshllm.testing.fake_engine",
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=ROOT, env={**os.environ, "MESH_FAKE_ENGINE": environment},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps({**told, "fake": switches}).encode() + b"\n")
    session = aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path), headers={"Authorization": "Bearer k"},
        timeout=aiohttp.ClientTimeout(total=WITHIN_S),
    )  # fmt: skip
    async with session, asyncio.timeout(WITHIN_S):
        try:
            if waits:
                await _heard(process, b"model loaded")
            yield Double(process, session)
        finally:
            if process.returncode is None:
                process.kill()
            process.stdin.close()
            await process.communicate()


async def _heard(process: asyncio.subprocess.Process, words: bytes) -> None:
    """Wait until a double has said something."""
    assert process.stderr is not None
    while words not in (line := await process.stderr.readline()):
        assert line, "the double ended before it was ready"


async def test_answers_count_up_to_what_was_asked(runtime_dir: Path) -> None:
    """`0 1 2 …`: a test sees at once whether something is missing or doubled."""
    async with a_double(runtime_dir, cached_tokens=2) as double:
        messages = [{"role": "user", "content": "one two three"}]
        chat = await double.post("/v1/chat/completions", {"messages": messages, "max_tokens": 4})
        text = await double.post("/v1/completions", {"prompt": "x"})
        message = await double.post("/v1/messages", {"messages": messages, "max_tokens": 2})

    assert chat[1]["choices"][0]["message"]["content"] == "0 1 2 3 "
    assert chat[1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 2
    assert text[1]["choices"][0]["text"].split() == [str(number) for number in range(16)]
    assert message[1]["content"][0]["text"] == "0 1 "
    assert chat[1]["model"] == text[1]["model"] == message[1]["model"] == "m"


async def test_stream_is_chunked_events_with_an_end(runtime_dir: Path) -> None:
    """One event for each token, `[DONE]` at the end."""
    async with a_double(runtime_dir) as double:
        body = {"prompt": "x", "max_tokens": 3, "stream": True}
        async with double.session.post("http://engine/v1/completions", json=body) as answer:
            events = (await answer.read()).decode().split("\n\n")

    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert [json.loads(one[6:])["choices"][0]["text"] for one in events[:3]] == ["0 ", "1 ", "2 "]
    assert events[-2:] == ["data: [DONE]", ""]


async def test_a_text_goes_on_where_its_prompt_says_that_it_was(runtime_dir: Path) -> None:
    """As a real model would, which knows nothing but what it reads."""
    async with a_double(runtime_dir) as double:
        asked = {"messages": [{"role": "user", "content": "!die count"}]}
        prompt = (await double.post("/apply-template", asked))[1]["prompt"]
        rest = await double.post("/v1/completions", {"prompt": prompt + "0 1 2 ", "max_tokens": 3})
        everything = await double.post("/v1/completions", {"prompt": prompt + "0 1 2 "})

    assert rest[1]["choices"][0]["text"] == "3 4 5 "
    assert everything[1]["choices"][0]["text"].split()[-1] == "15"


async def test_management_paths_answer_like_llama_cpp(runtime_dir: Path) -> None:
    """What the supervisor reads."""
    async with a_double(runtime_dir, model="other") as double:
        props = await double.get("/props")
        slots = await double.get("/slots")
        embedded = await double.post("/v1/embeddings", {"input": ["a", "bb"]})
        tokens = await double.post("/tokenize", {"content": "a b c"})
        counted = await double.post("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "a b"}]})
        unknown = await double.get("/nope")

    assert props[1]["total_slots"] == 2
    assert props[1]["default_generation_settings"]["n_ctx"] == 512
    assert [slot["is_processing"] for slot in slots[1]] == [False, False]
    assert len(embedded[1]["data"]) == 2
    assert embedded[1]["model"] == "other"
    assert tokens[1] == {"tokens": [0, 1, 2]}
    assert counted[1] == {"input_tokens": 2}
    assert unknown[0] == 404


async def test_key_is_asked_for(runtime_dir: Path) -> None:
    """A front door that forgets it would not notice otherwise."""
    async with a_double(runtime_dir) as double:
        wrong = {"Authorization": "Bearer wrong"}

        assert (await double.get("/props", wrong))[0] == 401
        assert (await double.get("/health", wrong))[0] == 200


async def test_loading_answers_503(runtime_dir: Path) -> None:
    """It listens before it is ready, as the real one does."""
    async with a_double(runtime_dir, waits=False, load="hang") as double:
        await _heard(double.process, b"listening")

        assert (await double.get("/health"))[0] == 503
        assert (await double.get("/props"))[0] == 503


@pytest.mark.parametrize("how", ["header", "field", "prompt", "switch", "environment"])
async def test_trouble_is_ordered_in_many_ways(runtime_dir: Path, how: str) -> None:
    """A test takes the way that its client has."""
    of_process: dict[str, Any] = {
        "switch": {"trouble": "error_500"}, "environment": {"environment": '{"trouble": "error_500"}'},
    }.get(how, {})  # fmt: skip
    headers = {"x-fake": "error_500"} if how == "header" else {}
    body = {
        "prompt": "!error_500 please" if how == "prompt" else "x",
        **({"x_fake": "error_500"} if how == "field" else {}),
    }
    async with a_double(runtime_dir, **of_process) as double:
        status, answer = await double.post("/v1/completions", body, headers)

    assert status == 500
    assert "told to fail" in answer["error"]["message"]


@pytest.mark.parametrize(("trouble", "status"), [("die", -9), ("die_mid_stream:2", -9), ("oom:1", 1)])
async def test_death_is_a_death(runtime_dir: Path, trouble: str, status: int) -> None:
    """Before the head, or after some tokens: the connection breaks and the process is gone."""
    async with a_double(runtime_dir) as double:
        with pytest.raises(aiohttp.ClientError):
            async with double.session.post(
                "http://engine/v1/completions", json={"prompt": f"!{trouble}", "stream": True}
            ) as answer:
                await answer.read()

        assert await double.end() == status


async def test_cut_connection_is_no_death(runtime_dir: Path) -> None:
    """Some servers lose a connection and live on."""
    async with a_double(runtime_dir) as double:
        for trouble in ("close", "close_mid_stream"):
            with pytest.raises(aiohttp.ClientError):
                async with double.session.post(
                    "http://engine/v1/completions", json={"prompt": f"!{trouble}", "stream": True}
                ) as answer:
                    await answer.read()

        assert (await double.get("/health"))[0] == 200


async def test_slot_is_free_when_its_client_leaves(runtime_dir: Path) -> None:
    """Cancellation by disconnect is what the front door relies on."""
    async with a_double(runtime_dir) as double:
        body = {"prompt": "!hang_mid_stream:1", "stream": True}
        async with double.session.post("http://engine/v1/completions", json=body) as answer:
            await answer.content.readany()
            busy = (await double.get("/slots"))[1]
            answer.close()
        while any(slot["is_processing"] for slot in (await double.get("/slots"))[1]):
            pass

    assert [slot["is_processing"] for slot in busy] == [True, False]
    assert busy[0]["next_token"] == [{"n_decoded": 1}]


async def test_more_requests_than_slots_wait(runtime_dir: Path) -> None:
    """Three requests on two slots all come to their end."""
    async with a_double(runtime_dir, token_s=0.01) as double, asyncio.TaskGroup() as group:
        work = [group.create_task(double.post("/v1/completions", {"prompt": "x", "max_tokens": 3})) for _ in range(5)]

    assert [task.result()[0] for task in work] == [200] * 5


@pytest.mark.parametrize(
    ("load", "status", "words"),
    [
        ("oom", 1, "insufficient memory"),
        ("bad_file", 1, "invalid magic"),
        ("unknown_architecture", 1, "unknown model architecture: 'quux'"),
        ("exit", 3, "something else"),
        ("crash", -signal.SIGSEGV, "listening"),
    ],
)
async def test_failed_load_ends_with_real_words(runtime_dir: Path, load: str, status: int, words: str) -> None:
    """The lines are llama.cpp's, so that their explanation is tested with them."""
    async with a_double(runtime_dir, waits=False, load=load) as double:
        assert words in await double.last_words()
        assert double.process.returncode == status


async def test_load_may_fail_some_times_only(runtime_dir: Path) -> None:
    """Back-off is tested by a second or third try that succeeds."""
    switches: dict[str, Any] = {"load": "exit", "load_troubles": 1, "counter": str(runtime_dir / "starts")}
    async with a_double(runtime_dir, waits=False, **switches) as double:
        first = await double.end()
    async with a_double(runtime_dir, **switches) as double:
        second = (await double.get("/health"))[0]

    assert (first, second) == (3, 200)


async def test_unknown_switch_is_refused(runtime_dir: Path) -> None:
    """A slip of the pen would make a test pass for nothing."""
    async with a_double(runtime_dir, waits=False, lod="oom") as double:
        assert "unknown switches: lod" in await double.last_words()


async def test_double_ends_with_its_standard_input(runtime_dir: Path) -> None:
    """As its real sibling does."""
    async with a_double(runtime_dir) as double:
        assert double.process.stdin is not None
        double.process.stdin.close()

        assert await double.end() == 0


@pytest.mark.parametrize(("ignores", "ended"), [(False, True), (True, False)])
async def test_sigterm_may_be_ignored(runtime_dir: Path, ignores: bool, ended: bool) -> None:
    """An engine that doesn't hear has to be killed."""
    async with a_double(runtime_dir, ignore_sigterm=ignores) as double:
        double.process.terminate()
        try:
            async with asyncio.timeout(WITHIN_S if ended else 0.3):
                assert await double.process.wait() == -signal.SIGTERM
        except TimeoutError:
            assert not ended
