"""A node within a program, with the engine double: every verb, and what is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import meshllm
from meshllm.sdk import MeshNode, Model, NodeStartError, RequestError
from tests.inventory import gguf_builder


def settings_of(tmp_path: Path, *models: str) -> dict[str, object]:
    """Return the settings of a small node with the fake engine, and make files of models."""
    for name in models:
        gguf_builder.write(tmp_path / "models" / f"{name}.gguf", gguf_builder.llama(**{"general.name": name}))
    return {
        "engine": "fake", "models_dirs": [str(tmp_path / "models")], "offline": True, "threads": 1, "drain_s": 1.0,
    }  # fmt: skip


def left_in(folder: Path) -> set[str]:
    """Return the names of what lies in a folder."""
    return {path.name for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the models of this machine's user out of the way."""
    monkeypatch.setenv("HOME", str(tmp_path))


@asynccontextmanager
async def a_pair(tmp_path: Path) -> AsyncIterator[MeshNode]:
    """Yield a node with `tiny`, and `other`, which is also called `eyes` and is the default."""
    builder = MeshNode.builder().add_model("tiny").add_model_with_alias("eyes", Model("other"))
    builder = builder.with_default_model("eyes").with_settings(**settings_of(tmp_path, "tiny", "other"))
    async with await builder.build() as node:
        yield node


@pytest.mark.rows("SDK-1")
async def test_a_node_is_built_model_by_model(tmp_path: Path) -> None:
    """All are in memory when it is handed over; one has a second name, and one answers where none is named."""
    async with a_pair(tmp_path) as node:
        listed = await node.list_models_with_status()
        by_alias = await node.chat("hello", "eyes", max_tokens=3)
        default = await node.chat("hello", max_tokens=3)

    assert listed == [("other", "loaded"), ("tiny", "loaded")]
    assert by_alias.model == default.model == "other"


@pytest.mark.rows("SDK-1")
async def test_a_quantisation_chooses_the_file_that_has_it(tmp_path: Path) -> None:
    """Of two files of one model."""
    settings = settings_of(tmp_path, "foo-7b-Q8_0", "foo-7b-Q4_K_M")
    builder = MeshNode.builder().add_model(Model("foo-7b").with_isq("Q4K")).with_settings(**settings)

    async with await builder.build() as node:
        loaded = [name for name, status in await node.list_models_with_status() if status == "loaded"]
        answer = await node.chat("hello", "foo-7b", max_tokens=1)

    assert loaded == [answer.model] == ["foo-7b-Q4_K_M"]


@pytest.mark.rows("SDK-2")
async def test_every_request_takes_a_model_or_none(tmp_path: Path) -> None:
    """None is the default."""
    async with a_pair(tmp_path) as node:
        for model, meant in ((None, "other"), ("tiny", "tiny")):
            chat = await node.chat([{"role": "user", "content": "hello"}], model, max_tokens=4)
            completion = await node.completion("hello", model, max_tokens=4)
            chat_pieces = [piece async for piece in node.chat_stream("hello", model, max_tokens=4)]
            pieces = [piece async for piece in node.completion_stream("hello", model, max_tokens=4)]

            assert (chat.model, completion.model) == (meant, meant)
            assert chat.text == "".join(chat_pieces) == "0 1 2 3 "
            assert completion.text == "".join(pieces) == "0 1 2 3 "
            assert (chat.finish_reason, chat.completion_tokens) == ("length", 4)


@pytest.mark.rows("SDK-2")
async def test_vectors_come_in_the_order_of_their_texts(tmp_path: Path) -> None:
    """By the default model, or by the one that is named; a model that makes none refuses."""
    file = tmp_path / "models" / "vectors.gguf"
    gguf_builder.write(file, gguf_builder.llama(**{"general.name": "vectors", "llama.pooling_type": 3}))
    builder = MeshNode.builder().add_model("vectors").add_model("tiny").with_settings(**settings_of(tmp_path, "tiny"))

    async with await builder.build() as node:
        one = await node.embeddings("a")
        several = await node.embeddings(["a", "b"], "vectors")
        with pytest.raises(RequestError) as refused:
            await node.embeddings("a", "tiny")

    assert (len(one), len(several)) == (1, 2)
    assert all(isinstance(number, float) for vector in several for number in vector)
    assert refused.value.code == "capability_not_supported"


@pytest.mark.rows("SDK-3")
async def test_a_node_of_one_model_is_one_call(tmp_path: Path) -> None:
    """By the package's own name for it; nobody else can use its port without its key."""
    async with await meshllm.MeshNode.single("tiny", **settings_of(tmp_path, "tiny")) as node:
        answer = await node.chat("hello", max_tokens=2)
        host, _, port = node.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        stranger = await reader.read()
        writer.close()

    assert answer.text == "0 1 "
    assert stranger.startswith(b"HTTP/1.1 401 ")
    assert node.api_key


async def test_a_model_may_be_the_path_of_its_file(tmp_path: Path) -> None:
    """Anywhere on the disk; it is asked for by the file's name."""
    file = gguf_builder.write(tmp_path / "elsewhere" / "far.gguf", gguf_builder.llama(**{"general.name": "far"}))

    async with await MeshNode.single(str(file), **settings_of(tmp_path)) as node:
        default = await node.chat("hello", max_tokens=1)
        named = await node.chat("hello", "far", max_tokens=1)

    assert default.model == named.model == "far"


@pytest.mark.rows("SDK-4")
async def test_models_come_and_go_by_their_verbs(tmp_path: Path) -> None:
    """Unloaded and asked for again, reloaded, removed for good; its file stays."""
    async with a_pair(tmp_path) as node:
        await node.unload_model("tiny")
        is_unloaded = not await node.is_model_loaded("tiny")
        statuses = dict(await node.list_models_with_status())
        await node.chat("hello", "tiny", max_tokens=1)
        came_back = await node.is_model_loaded("tiny")
        await node.unload_model("tiny")
        await node.reload_model("tiny")
        is_reloaded = await node.is_model_loaded("tiny")
        await node.remove_model("tiny")
        with pytest.raises(RequestError):
            await node.chat("hello", "tiny", max_tokens=1)
        left = await node.list_models()

    assert (is_unloaded, statuses["tiny"], came_back, is_reloaded) == (True, "unloaded", True, True)
    assert left == ["other"]
    assert (tmp_path / "models" / "tiny.gguf").exists()


@pytest.mark.rows("SDK-4")
async def test_the_default_is_read_and_chosen(tmp_path: Path) -> None:
    """An unknown one is refused, and the old one stays."""
    async with a_pair(tmp_path) as node:
        first = await node.get_default_model_id()
        await node.set_default_model_id("tiny")
        with pytest.raises(RequestError) as refused:
            await node.set_default_model_id("nonsense")

        assert (first, await node.get_default_model_id()) == ("other", "tiny")
        assert (await node.chat("hello", max_tokens=1)).model == "tiny"
        assert (refused.value.status, refused.value.code) == (404, "model_not_found")


async def test_what_is_refused_is_an_error_and_the_next_request_is_served(tmp_path: Path) -> None:
    """Unknown models, bad options, streams of either."""
    async with a_pair(tmp_path) as node:
        with pytest.raises(RequestError) as unknown:
            await node.chat("hello", "nonsense")
        with pytest.raises(RequestError) as wrong:
            await node.chat("hello", temperature=9)
        with pytest.raises(RequestError) as no_stream:
            assert [piece async for piece in node.chat_stream("hello", "nonsense")]
        with pytest.raises(RequestError):
            await node.is_model_loaded("nonsense")

        assert (unknown.value.code, no_stream.value.code, wrong.value.param) == (
            "model_not_found", "model_not_found", "temperature",
        )  # fmt: skip
        assert (await node.chat("hello", max_tokens=1)).text


async def test_a_node_that_cannot_be_built_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that nobody has, an engine that is none."""
    settings = settings_of(tmp_path, "tiny")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RequestError, match="nonsense"):
        await MeshNode.single("nonsense", **settings)
    with pytest.raises(NodeStartError, match="does not exist"):
        await MeshNode.single("tiny", **(settings | {"engine": "/nonsense"}))

    assert left_in(tmp_path) <= {"models", ".cache", ".local"}


async def test_a_closed_node_answers_nothing(tmp_path: Path) -> None:
    """Closing twice is nothing."""
    node = await MeshNode.single("tiny", **settings_of(tmp_path, "tiny"))

    await node.close()
    await node.close()

    with pytest.raises(RequestError, match="the node is closed"):
        await node.chat("hello")


def test_the_package_has_the_node_and_no_other_surprise() -> None:
    """It is imported when it is asked for."""
    assert meshllm.MeshNode is MeshNode
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = meshllm.Nonsense  # type: ignore[attr-defined]
