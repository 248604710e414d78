"""The list of models: complete, honest about states, silent about endpoints and folders."""

from dataclasses import replace

import msgspec
import pytest

from meshllm.core.catalog import CatalogFile, CatalogModel
from meshllm.core.engines import EngineFailure, EngineFault, EngineState
from meshllm.core.view import LoadProgress
from meshllm.proxy.detail import model_detail
from meshllm.proxy.listing import ListOptions, model_list
from tests.core.builders import a_spec
from tests.proxy.builders import a_model, a_view

CATALOG = (
    CatalogModel(
        name="small", repository="maker/Small-GGUF", parameters=1_700_000_000, context_tokens=8192,
        files=(CatalogFile(quantization="Q4", filename="Small-Q4.gguf", size_bytes=5),),
    ),
)  # fmt: skip


def ids(document: dict[str, object]) -> list[str]:
    """Return the ids of a list."""
    data = document["data"]
    assert isinstance(data, list)
    return [entry["id"] for entry in data]


@pytest.mark.rows("LST-2", "LST-9")
def test_the_default_comes_first_and_then_ids_in_order() -> None:
    """LST-2: the first entry is what is used when nobody says otherwise."""
    view = a_view(a_model("zeta"), a_model("alpha", state=EngineState.STOPPED))

    document = model_list(view, ListOptions())

    assert ids(document) == ["default", "alpha", "zeta"]
    assert document["default_model"] == "zeta"
    first = document["data"][0]  # type: ignore[index]
    assert first == {"id": "default", "object": "model", "created": 1, "owned_by": "local"}


@pytest.mark.rows("LST-2", "LST-6")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["default", "a", "b"]), ("served=true", ["default", "a"]), ("pseudo=false", ["a", "b"]),
        ("pseudo=all", ["default", "auto", "a", "b"]), ("catalog=true", ["default", "Small-Q4", "a", "b"]),
        ("served=1&pseudo=0", ["a"]), ("served=maybe&x=y", ["default", "a", "b"]),
    ],
)  # fmt: skip
def test_the_query_chooses_what_is_listed(query: str, expected: list[str]) -> None:
    """LST-6, X3."""
    view = a_view(a_model("a"), a_model("b", state=EngineState.STOPPED), a_model("gone", dropped=True))

    assert ids(model_list(view, ListOptions.parse(query), CATALOG)) == expected


@pytest.mark.rows("LIF-4", "LST-3", "HLT-1")
@pytest.mark.parametrize(
    ("state", "more", "expected"),
    [
        (EngineState.READY, {}, ("loaded", "ready", "healthy")),
        (EngineState.DRAINING, {}, ("loaded", "draining", "healthy")),
        (EngineState.STARTING, {}, ("reloading", "loading", "loading")),
        (EngineState.BACKING_OFF, {}, ("reloading", "backing_off", "unhealthy")),
        (EngineState.STOPPING, {}, ("unloaded", "stopping", "unknown")),
        (EngineState.FAILED, {}, ("unloaded", "failed", "unhealthy")),
        (EngineState.STOPPED, {}, ("unloaded", "sleeping", "unknown")),
        (EngineState.STOPPED, {"held": True}, ("unloaded", "held", "unknown")),
        (EngineState.STOPPED, {"waiting": "capacity"}, ("unloaded", "queued", "unknown")),
        (EngineState.STOPPED, {"progress": LoadProgress(stage="downloading", share=0.25)},
         ("unloaded", "downloading", "unknown")),
    ],
)  # fmt: skip
def test_states_have_one_word_of_a_closed_set_and_a_finer_one(
    state: EngineState, more: dict[str, object], expected: tuple[str, str, str]
) -> None:
    """LST-3, LIF-4, X5: programs compare `status`, people read `phase`."""
    detail = model_detail(a_view(a_model(state=state, **more)), "tiny")

    assert isinstance(detail, dict)
    assert (detail["status"], detail["phase"], detail["health_status"]) == expected


@pytest.mark.rows("LST-3", "LST-4", "LST-5")
def test_an_entry_has_what_clients_look_for() -> None:
    """OpenAI's four, LST-4, LST-5, and what sizes a context."""
    spec = replace(a_spec("tiny"), capabilities=frozenset({"chat", "tools", "vision"}), display_name="Tiny 135M")

    detail = model_detail(a_view(a_model(spec=spec, requests=7)), "tiny")

    assert isinstance(detail, dict)
    assert {
        "id": "tiny", "object": "model", "created": 1, "owned_by": "local", "display_name": "Tiny 135M",
        "path": "tiny.gguf", "version": "1.0.0", "architecture": "llama", "parameter_count": "135M", "enabled": True,
        "use_count": 7, "size_bytes": spec.size_bytes, "preload": True, "context_length": 2048,
        "tools_available": True, "input_modalities": ["text", "image"], "digest": "sha256:tiny",
        "capabilities": ["chat", "tools", "vision"],
    }.items() <= detail.items()  # fmt: skip
    assert detail["meta"]["n_ctx"] == 2048  # type: ignore[index]
    assert detail["nodes"][0]["name"] == "n1"  # type: ignore[index]


@pytest.mark.rows("LST-5")
def test_endpoints_keys_and_folders_are_nobodys_business() -> None:
    """What is listed is read by every client."""
    view = a_view(a_model(socket="/run/secret/e.sock", key="engine-key"))

    text = msgspec.json.encode([model_list(view, ListOptions()), model_detail(view, "tiny")])

    for secret in (b"engine-key", b"/run/secret", b"/models/", b".sock"):
        assert secret not in text


def test_troubles_are_told() -> None:
    """A list that hides why a model is missing sends people to the logs."""
    failure = EngineFailure(fault=EngineFault.BAD_FILE, message="the file is cut short")

    detail = model_detail(a_view(a_model(state=EngineState.FAILED, failure=failure, waiting="room")), "tiny")

    assert isinstance(detail, dict)
    assert (detail["error"], detail["reason"], detail["waiting"]) == ("the file is cut short", "bad_file", "room")


@pytest.mark.rows("LST-5")
@pytest.mark.parametrize(
    ("parameters", "text"),
    [(135_000_000, "135M"), (1_700_000_000, "1.7B"), (70_000_000_000, "70B"), (2_000_000_000, "2B"), (7, "7")],
)
def test_parameters_are_counted_as_people_do(parameters: int, text: str) -> None:
    """LST-5."""
    detail = model_detail(a_view(a_model(spec=replace(a_spec("tiny"), parameters=parameters))), "tiny")

    assert isinstance(detail, dict)
    assert detail["parameter_count"] == text


@pytest.mark.parametrize("context_tokens", [0, 4096])
def test_a_model_of_an_adopted_server_says_whose_it_is(context_tokens: int) -> None:
    """It is this node's like any other, and nobody knows its file."""
    model = replace(a_model("qwen", context_tokens=context_tokens), spec=None, adopted_from="box")

    entry = model_detail(a_view(model), "qwen")

    assert isinstance(entry, dict)
    assert (entry["owned_by"], entry["kind"], entry["server"]) == ("local", "adopted", "box")
    assert (entry["status"], entry["health_status"], entry["path"]) == ("loaded", "healthy", None)
    assert entry.get("context_length") == (context_tokens or None)


def test_a_model_whose_adopted_server_is_gone_says_why() -> None:
    """Unloaded, unhealthy, with the reason."""
    failure = EngineFailure(fault=EngineFault.UNREACHABLE, message="nobody is there")
    model = replace(a_model("qwen", state=EngineState.FAILED, failure=failure), spec=None, adopted_from="box")

    entry = model_detail(a_view(model), "qwen")

    assert isinstance(entry, dict)
    assert (entry["status"], entry["health_status"]) == ("unloaded", "unhealthy")
    assert (entry["reason"], entry["error"]) == ("unreachable", "nobody is there")
