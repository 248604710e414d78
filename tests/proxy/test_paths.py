"""Every path leads to exactly one door."""

import pytest

from meshllm.proxy.paths import INFERENCE, OPEN_PATHS, asked_model


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/models", ""), ("/v1/models/", ""), ("/models", ""), ("/v1/models/tiny", "tiny"),
        ("/v1/models/user/repo:Q4", "user/repo:Q4"), ("/v1/models/a%2Fversions", "a%2Fversions"),
        ("/v1/models/default", "default"), ("/v1/models/unload", None), ("/v1/models/reload", None),
        ("/v1/models/status", None), ("/v1/models/tiny/health", None), ("/v1/models/tiny/versions", None),
        ("/v1/modelsx", None), ("/api/status", None), ("/", None),
    ],
)  # fmt: skip
def test_what_follows_models_is_a_model_unless_it_is_a_verb(path: str, asked: str | None) -> None:
    """Hugging Face ids hold slashes; verbs belong to the management app."""
    assert asked_model(path) == asked


def test_inference_paths_work_with_and_without_the_version() -> None:
    """Clients disagree about whether the base address ends in /v1."""
    for name in ("chat/completions", "completions", "embeddings", "rerank"):
        assert INFERENCE[f"/v1/{name}"] is INFERENCE[f"/{name}"]
    assert not OPEN_PATHS & INFERENCE.keys()
