"""Every path leads to exactly one door."""

import pytest

from meshllm.proxy.paths import INFERENCE, OPEN_PATHS, asked_model, is_open


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


@pytest.mark.parametrize(
    "path",
    ["/", "/index.html", "/favicon.ico", "/assets/index-C0ffee12.js", "/assets/index-C0ffee12.css", "/health"],
)
def test_the_console_opens_without_a_key(path: str) -> None:
    """The page has the form for it; a browser cannot send a key with its first request."""
    assert is_open("GET", path)
    assert is_open("HEAD", path)


@pytest.mark.parametrize(
    "path",
    [
        "/api/status", "/v1/models", "/models", "/metrics", "/v1/chat/completions", "/api", "/api/", "/assets",
        "/assets/", "/assets/a/b.js", "/assets/..", "/assets/../api/status", "/assets/%2e%2e/api/status",
        "/assets/.hidden", "/assets//api/status", "//", "//index.html", "/index.html/", "/INDEX.HTML", "/x.html", "",
        "/assets/a.js\n",
    ],
)  # fmt: skip
def test_everything_else_needs_the_key(path: str) -> None:
    """Nothing that tells of this node or acts on it is open."""
    assert not is_open("GET", path)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "get"])
def test_the_console_is_only_read_without_a_key(method: str) -> None:
    """Its files cannot be changed anyhow."""
    assert not is_open(method, "/")
    assert not is_open(method, "/assets/index-C0ffee12.js")
