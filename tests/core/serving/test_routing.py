"""Where one request goes."""

import pytest

from meshllm.core import events as ev
from meshllm.core.engines import EngineFault
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.limits import GIB
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.serving.routing import Capability, Refusal, RefusalCode, RouteRequest, Routes, Wait, plan_routes
from tests.core.builders import Story, a_spec, a_story, exited, ready


def ask(story: Story, model: str | None, needs: Capability | None = None) -> Routes | Wait | Refusal:
    """Return where a request goes in a story's newest view."""
    return plan_routes(story.core.view, RouteRequest(model=model, needs=needs))


def two_models() -> Story:
    """Return a story with one ready and one cold model."""
    story = a_story(a_spec("warm"), a_spec("cold"), requested=("warm",))
    story.tell(ready("warm"))
    return story


@pytest.mark.parametrize("name", ["warm", "WARM", None, "", "default", "auto"])
def test_names_that_mean_the_ready_model_lead_to_it(name: str | None) -> None:
    """Omitted, empty and `default` are the default; `auto` is what is ready."""
    found = ask(two_models(), name)

    assert isinstance(found, Routes)
    assert found.model == "warm"
    assert found.routes[0].target.endpoint.socket_path == "/run/warm.sock"
    assert found.routes[0].reason == "local"


def test_an_unknown_name_is_refused_with_near_names() -> None:
    """Never another model than the one that was asked for."""
    found = ask(two_models(), "wram")

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.MODEL_NOT_FOUND
    assert "did you mean warm" in found.message


def test_a_cold_model_is_waited_for_and_woken_by_the_first_request_only() -> None:
    """The first request asks for it, the rest find it wanted."""
    story = two_models()

    first = ask(story, "cold")
    story.tell(ev.ModelWanted(model=ModelId("cold")))
    second = ask(story, "cold")

    assert isinstance(first, Wait)
    assert isinstance(second, Wait)
    assert (first.is_asleep, second.is_asleep) == (True, False)
    assert second.message == "the model 'cold' is loading, 0%"


def test_a_draining_model_takes_no_new_request() -> None:
    """It waits for the model to come back."""
    story = two_models()
    story.ask(Verb.UNLOAD, "warm")

    assert isinstance(ask(story, "warm"), Wait)


def test_held_dropped_failed_and_oversized_models_refuse_with_the_remedy() -> None:
    """Waiting would not help, so nobody waits."""
    story = two_models()
    story.tell(ev.InventoryChanged(models=(a_spec("warm"), a_spec("cold"), a_spec("huge", size_bytes=90 * GIB))))
    story.tell(ev.ModelWanted(model=ModelId("huge")))
    story.ask(Verb.UNLOAD, "cold", hold=True)
    story.tell(exited("warm", EngineFault.BAD_FILE, "the file is damaged"))

    found = {name: ask(story, name) for name in ("warm", "cold", "huge")}

    assert {name: answer.code for name, answer in found.items() if isinstance(answer, Refusal)} == {
        "warm": RefusalCode.MODEL_FAILED, "cold": RefusalCode.MODEL_HELD, "huge": RefusalCode.NO_CAPACITY,
    }  # fmt: skip
    assert "the file is damaged" in str(found["warm"])
    assert "mesh-llm load cold" in str(found["cold"])


def test_a_model_that_cannot_do_it_is_refused() -> None:
    """An embedding request to a chat model gets a clear error, not nonsense."""
    found = ask(two_models(), "warm", Capability.EMBEDDING)

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.CAPABILITY_NOT_SUPPORTED
    assert "chat, completion" in found.message


def test_without_any_model_there_is_no_default() -> None:
    """An empty node says so instead of answering with something."""
    found = ask(a_story(), None)

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.NO_DEFAULT_MODEL


@pytest.mark.parametrize("name", ["tiny", "default", None, "auto"])
def test_a_request_that_comes_before_the_folders_were_read_waits(name: str | None) -> None:
    """In the first moments of a node every name is unknown; a 404 would be a lie."""
    early = Story(MeshCore(CoreConfig(node=NodeId("a" * 32), name="a"), now_s=0.0))

    assert isinstance(ask(early, name), Wait)


def test_a_requested_name_that_is_still_being_looked_for_waits() -> None:
    """The hub is being asked; the answer decides between a download and a 404."""
    story = a_story(requested=("user/repo",))
    assert isinstance(ask(story, "user/repo"), Wait)
    assert isinstance(ask(story, None), Wait)
    assert isinstance(ask(story, "another"), Refusal)


def test_an_ambiguous_name_is_refused_with_its_candidates() -> None:
    """Two quantisations of one model are two models."""
    story = a_story(a_spec("m-Q4_K_M"), a_spec("m-Q8_0"), requested=("m-Q4_K_M",))

    found = ask(story, "m")

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.AMBIGUOUS_MODEL
    assert "m-Q4_K_M, m-Q8_0" in found.message


def test_a_leaving_node_takes_nothing() -> None:
    """A request that cannot be finished is not begun."""
    story = two_models()
    story.tell(ev.LeaveRequested(reason="SIGTERM"))

    found = ask(story, "warm")

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.LEAVING


def test_an_unknown_name_falls_back_where_that_is_wished_and_says_so() -> None:
    """The source document's behaviour: deterministic, visible, and never for vectors."""
    view = two_models().core.view

    found = plan_routes(view, RouteRequest(model="nonsense", falls_back=True))
    vectors = plan_routes(view, RouteRequest(model="nonsense", needs=Capability.EMBEDDING, falls_back=True))
    held = plan_routes(a_story().core.view, RouteRequest(model="nonsense", falls_back=True))

    assert isinstance(found, Routes)
    assert (found.model, found.routes[0].reason) == ("warm", "fallback")
    assert [answer.code for answer in (vectors, held) if isinstance(answer, Refusal)] == ["model_not_found"] * 2
