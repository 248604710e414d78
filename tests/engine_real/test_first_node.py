"""The promise of the first page: one command, a real model, every client that people already have."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from scripts.browser import browser_program
from tests.e2e.daemons import Daemon, until
from tests.inventory import gguf_builder

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
MODEL = "SmolLM2-135M-Instruct.Q4_1"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
GREEDY = {"temperature": 0}
QUUX = {
    key.replace("llama.", "quux."): value for key, value in gguf_builder.llama(general__architecture="quux").items()
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather", "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def node(smollm2: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Return a daemon with the real engine and the real model, and two files that no engine can run."""
    daemon = Daemon(
        tmp_path_factory.mktemp("node") / "h",
        ("--model", "smollm2-135m", "--threads", "1", "--ctx-size", "2048", "--parallel", "2", "--offline"),
    )
    daemon.models.mkdir(parents=True)
    (daemon.models / f"{MODEL}.gguf").symlink_to(smollm2)
    gguf_builder.write(daemon.models / "unknown.gguf", QUUX)
    with daemon:
        daemon.until_model(MODEL, within_s=180, phase="ready")
        yield daemon
        daemon.signal(signal.SIGTERM)
        assert daemon.ended() == 0


@pytest.fixture
def client(node: Daemon) -> Iterator[openai.OpenAI]:
    """Return OpenAI's own client."""
    with openai.OpenAI(base_url=f"http://127.0.0.1:{node.port}/v1", api_key="any", max_retries=0) as made:
        yield made


@pytest.mark.rows("CLI-1", "ADR-11", "API-1", "API-6", "PRX-3")
def test_openai_sdk_lists_chats_and_streams_real_words(client: openai.OpenAI) -> None:
    """The same words, whole and in pieces, at temperature 0."""
    names = [model.id for model in client.models.list()]
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=24, temperature=0)
    pieces = client.chat.completions.create(
        model="smollm2-135m", messages=QUESTION, max_tokens=24, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(pieces)

    assert names[0] == "default"
    assert MODEL in names
    assert "Paris" in (whole.choices[0].message.content or "")
    assert whole.model == MODEL
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert {chunk.model for chunk in chunks} == {MODEL}


@pytest.mark.rows("API-8")
def test_curl_gets_an_answer_without_a_content_type(node: Daemon) -> None:
    """`curl -d` is how most people try an endpoint first."""
    body = json.dumps({"messages": QUESTION, "max_tokens": 16, "temperature": 0})

    done = subprocess.run(
        ["curl", "-sS", f"http://127.0.0.1:{node.port}/v1/chat/completions", "-d", body],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip

    assert "Paris" in json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_anthropic_sdk_talks_counts_and_streams(node: Daemon) -> None:
    """Claude's own client, on /v1/messages."""
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{node.port}", api_key="any", max_retries=0) as client:
        whole = client.messages.create(model=MODEL, max_tokens=24, messages=QUESTION, extra_body=GREEDY)
        counted = client.messages.count_tokens(model=MODEL, messages=QUESTION)
        with client.messages.stream(model=MODEL, max_tokens=24, messages=QUESTION, extra_body=GREEDY) as stream:
            text = "".join(stream.text_stream)
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(model="nonsense", max_tokens=8, messages=QUESTION)

    assert "Paris" in text
    assert whole.content[0].type == "text"
    assert whole.content[0].text == text
    assert counted.input_tokens > 5


@pytest.mark.rows("API-1", "API-2", "PRX-1")
def test_completions_responses_tools_and_schema_pass_through(client: openai.OpenAI) -> None:
    """What the engine can do, the endpoint can do."""
    completion = client.completions.create(model=MODEL, prompt="One, two, three,", max_tokens=8, temperature=0)
    response = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=16)
    schema: Any = {
        "type": "json_schema",
        "json_schema": {
            "name": "city",
            "schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    shaped = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=64, response_format=schema, temperature=0
    )
    called = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "What is the weather in Paris?"}], tools=[WEATHER],
        tool_choice="required", max_tokens=96, temperature=0,
    )  # fmt: skip

    assert "four" in completion.choices[0].text
    assert response.output_text
    assert "city" in json.loads(shaped.choices[0].message.content or "")
    # This model's template knows no tools, so the engine answers in words; what matters is that it was asked.
    assert called.choices[0].message.content
    assert called.usage is not None


@pytest.mark.rows("API-3")
def test_embeddings_of_a_chat_model_are_refused_clearly(client: openai.OpenAI) -> None:
    """A 400 that says what the model can do, as the SDK's own error type."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=MODEL, input="hello")

    assert caught.value.code == "capability_not_supported"


@pytest.mark.rows("API-6")
def test_errors_are_the_types_that_the_sdk_knows(client: openai.OpenAI) -> None:
    """Programs handle errors by type."""
    with pytest.raises(openai.NotFoundError, match="did you mean"):
        client.chat.completions.create(model="SmolLM2-135M-Instruct.Q4", messages=QUESTION)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=9)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 9000}])
    assert caught.value.code == "context_length_exceeded"


def test_an_architecture_that_the_engine_does_not_know_is_explained(node: Daemon) -> None:
    """The other model goes on."""
    reply = node.chat(model="unknown", timeout_s=180)

    assert (reply.status, reply.error["code"]) == (503, "model_failed")
    assert node.model("unknown")["failure"]["fault"] == "unknown_architecture"
    assert node.chat(model=MODEL, timeout_s=180).status == 200


def test_a_killed_engine_raises_in_the_sdk_and_is_back_for_the_next_request(
    node: Daemon, client: openai.OpenAI
) -> None:
    """A stream that breaks must never look complete: this one was not to go on elsewhere."""
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Tell a long story."}], max_tokens=600, stream=True,
        extra_headers={"X-Mesh-Resume": "off"},
    )  # fmt: skip
    with stream:
        next(stream)
        os.kill(node.model(MODEL)["pid"], signal.SIGKILL)
        with pytest.raises(openai.APIError, match="lost"):
            list(stream)

    assert node.chat(model=MODEL, timeout_s=180).status == 200


def test_a_stream_whose_only_engine_is_killed_goes_on_at_the_next_one(node: Daemon, client: openai.OpenAI) -> None:
    """The SDK sees one answer, a little late, with its end."""
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Tell a long story."}], max_tokens=120, stream=True
    )
    with stream:
        pieces = [next(stream)]
        os.kill(node.model(MODEL)["pid"], signal.SIGKILL)
        pieces += list(stream)

    ends = [choice.finish_reason for piece in pieces for choice in piece.choices if choice.finish_reason]
    text = "".join(choice.delta.content or "" for piece in pieces for choice in piece.choices)
    assert ends in (["length"], ["stop"])
    assert len(text.split()) > 20
    assert {piece.id for piece in pieces} == {pieces[0].id}


def test_a_damaged_file_is_explained_before_any_engine_starts(node: Daemon) -> None:
    """Half a download is never loaded."""
    Path(node.models / "half.gguf").write_bytes((node.models / f"{MODEL}.gguf").read_bytes()[: 10**6])

    problem = until(
        lambda: [one for one in node.get("/api/status")["problems"] if "half.gguf" in one["path"]], "the problem"
    )
    assert "incomplete" in problem[0]["code"]
    assert node.run("load", "half").returncode == 1


@pytest.mark.browser
def test_console_talks_with_the_real_model(node: Daemon) -> None:
    """What a person sees of it: words, then who gave them and how fast; and nothing that the browser complains of."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (scripts/test does)")
    program = browser_program()
    if program is None:
        pytest.skip("no Chromium is installed")
    complaints: list[str] = []

    with playwright.sync_playwright() as driver:
        page = driver.chromium.launch(executable_path=program).new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"http://127.0.0.1:{node.port}/#chat")
        page.get_by_label("Message", exact=True).fill(QUESTION[0]["content"])
        page.get_by_role("button", name="Send").click(timeout=60_000)
        footer = page.locator("article.assistant[aria-busy=false] footer")
        footer.filter(has_text="tokens/s").wait_for(timeout=90_000)
        answer, said = page.locator("article.assistant p").first.inner_text(), footer.inner_text()

    assert answer.strip()
    assert re.fullmatch(rf"{MODEL} · from \S+ · by \S+ · first word after .* · \d+ tokens · [\d.]+ tokens/s.*", said), (
        said
    )
    assert complaints == []
