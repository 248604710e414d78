"""A node within a program, with the real engine and a real model."""

from pathlib import Path

import pytest

from meshllm import MeshNode

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
MODEL = "SmolLM2-135M-Instruct.Q4_1"
QUESTION = "What is the capital of France? Answer with one word."


@pytest.mark.rows("SDK-1", "SDK-2", "SDK-3", "SDK-4")
async def test_a_program_asks_its_own_model(smollm2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, whole and piece by piece; out of memory and back again."""
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = {"offline": True, "threads": 1, "ctx_size": 1024, "parallel": 1, "models_dirs": [str(tmp_path / "m")]}

    async with await MeshNode.single(smollm2, **settings) as node:
        answer = await node.chat(QUESTION, temperature=0, max_tokens=8)
        pieces = [piece async for piece in node.chat_stream(QUESTION, MODEL, temperature=0, max_tokens=8)]
        await node.unload_model(MODEL)
        was_loaded = await node.is_model_loaded(MODEL)
        story = await node.completion("Once upon a time", temperature=0, max_tokens=8)
        listed = await node.list_models_with_status()

    assert "Paris" in answer.text
    assert "".join(pieces) == answer.text
    assert len(pieces) > 1
    assert not was_loaded
    assert story.completion_tokens == 8
    assert listed == [(MODEL, "loaded")]
