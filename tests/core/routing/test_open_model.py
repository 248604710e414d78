"""Which models may answer a request that leaves its model open."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from meshllm.core.announcement import ServingState
from meshllm.core.ids import ModelId
from meshllm.core.policy import ModelPolicy
from meshllm.core.routing.open_model import capable, most_preferred, open_meaning
from meshllm.core.routing.plan_routes import plan_routes
from meshllm.core.routing.routes import Capability, Refusal, RefusalCode, RouteRequest, Routes, Wait, Wishes
from meshllm.core.view import MeshView, Replica
from tests.core.builders import Story, a_spec, a_story, ready
from tests.core.routing.test_meaning import a_view
from tests.core.routing.test_replicas import a_replica

NO_DEFAULT = Refusal(code=RefusalCode.NO_DEFAULT_MODEL, message="none")


def asked(needs: Capability | None = Capability.COMPLETION, **wishes: Any) -> RouteRequest:
    """Return a request for whichever model."""
    return RouteRequest(model="auto", needs=needs, wishes=Wishes(**wishes))


def tagged(view: MeshView, **tags: tuple[str, ...]) -> MeshView:
    """Return a view in which this node's configuration gives models tags."""
    policies = {ModelId(model): ModelPolicy(name=model, tags=said) for model, said in tags.items()}
    return replace(view, policies=MappingProxyType(policies))


def warm_and_cold() -> Story:
    """Return a story with one ready and one sleeping model."""
    story = a_story(a_spec("warm"), a_spec("cold"), requested=("warm",))
    story.tell(ready("warm"))
    return story


def asleep(view: MeshView, **facts: Any) -> MeshView:
    """Return a view in which nobody wants the models of this node."""
    local = {model: replace(known, wanted=False, **facts) for model, known in view.local.items()}
    return replace(view, local=MappingProxyType(local))


def meant(view: MeshView, request: RouteRequest, default: Any = NO_DEFAULT) -> Any:
    """Return the model that is meant, or the code of the refusal."""
    found = open_meaning(view, request, default)
    return found.code if isinstance(found, Refusal) else found


@pytest.mark.rows("AFF-6", "T13")
def test_capabilities_restrict_which_models_an_open_request_gets() -> None:
    """T13: another pick than without them, and a refusal that lists what exists where none can do it."""
    view = a_view(
        a_replica("a", model="prose", capabilities=("chat", "completion")),
        a_replica("b", model="poems", capabilities=("chat", "completion", "arabic_nlp"), busy=3),
    )

    plain = plan_routes(view, asked())
    arabic = plan_routes(view, asked(capabilities=("arabic_nlp",)))
    none = plan_routes(view, asked(capabilities=("arabic_nlp", "tools")))

    assert isinstance(plain, Routes)
    assert isinstance(arabic, Routes)
    assert (plain.model, arabic.model) == ("prose", "poems")
    assert isinstance(none, Refusal)
    assert (none.code, none.param) == (RefusalCode.NO_CAPABLE_MODEL, "capabilities")
    assert none.message == (
        "no model can do completion and arabic_nlp and tools; there is: "
        "poems (arabic_nlp, chat, completion); prose (chat, completion)"
    )


@pytest.mark.rows("AFF-8")
def test_preferences_choose_among_those_that_can_and_refuse_nobody() -> None:
    """More of them met is better; none met is no reason to refuse."""
    view = a_view(
        a_replica("a", model="one", capabilities=("chat", "completion")),
        a_replica("b", model="two", capabilities=("chat", "completion", "law"), busy=2),
        a_replica("c", model="three", capabilities=("chat", "completion", "law", "tools"), busy=3),
    )

    found = capable(view, asked(preferred=("law", "tools")))

    assert found == {"one": 0, "two": 1, "three": 2}
    assert most_preferred(found) == ("three",)
    assert meant(view, asked(preferred=("law", "tools"))) == "three"
    assert meant(view, asked(preferred=("music",))) == "one"
    assert most_preferred({}) == ()


@pytest.mark.rows("AFF-8")
def test_a_context_that_no_model_has_is_refused_with_both_numbers() -> None:
    """Only larger ones count, and unknown ones."""
    view = a_view(
        a_replica("a", model="small", context_tokens=2048), a_replica("b", model="large", context_tokens=32768, busy=4)
    )

    assert meant(view, asked(min_context=8192)) == "large"
    none = open_meaning(view, asked(min_context=65536), NO_DEFAULT)
    assert isinstance(none, Refusal)
    assert (none.code, none.param) == (RefusalCode.CONTEXT_TOO_LONG, "min_context")
    assert "65536" in none.message
    assert "'large', is 32768" in none.message
    assert meant(a_view(a_replica("a", model="x", context_tokens=0)), asked(min_context=65536)) == "x"


def test_what_cannot_be_asked_for_is_no_candidate() -> None:
    """Switched off here, two files under one name, unhealthy, still loading."""
    replicas: list[Replica] = [
        a_replica("a", model="off"), a_replica("a", model="two", digest="sha256:1"),
        a_replica("b", model="two", digest="sha256:2"), a_replica("a", model="ill", health="unhealthy"),
        a_replica("a", model="coming", state=ServingState.LOADING), a_replica("a", model="fine"),
    ]  # fmt: skip
    off = MappingProxyType({ModelId("off"): ModelPolicy(name="off", is_enabled=False)})

    assert list(capable(a_view(*replicas, policies=off), asked())) == ["fine"]


def test_without_a_ready_one_what_is_coming_is_waited_for_and_nothing_else_is_woken() -> None:
    """The default, if it will do; what loads anywhere; a sleeping one only for what not every model can do."""
    story = a_story(a_spec("cold"), a_spec("vectors", capabilities=frozenset({"embedding"})))
    view = asleep(tagged(story.core.view, cold=("law",)))
    loading = a_replica("a", model="loading", state=ServingState.LOADING)
    far = replace(view, replicas=MappingProxyType({ModelId("loading"): (loading,)}))

    assert meant(view, asked(), ModelId("cold")) == "cold"
    assert meant(view, asked(), ModelId("vectors")) == "cold"
    assert meant(view, asked()) is RefusalCode.NO_DEFAULT_MODEL
    assert meant(view, asked(capabilities=("law",))) == "cold"
    assert meant(view, asked(Capability.EMBEDDING)) == "vectors"
    assert meant(far, asked()) == "loading"
    assert meant(story.core.view, asked()) == "cold", "the node is about to load it"
    assert meant(view, asked(), ModelId("only-elsewhere")) == "only-elsewhere"


def test_what_is_kept_out_is_not_woken_and_what_would_be_too_small_neither() -> None:
    """Each gets the reason that is true."""
    story = a_story(a_spec("cold"))
    view = tagged(story.core.view, cold=("law",))
    held = asleep(view, held=True)

    assert meant(held, asked(capabilities=("law",))) is RefusalCode.NO_DEFAULT_MODEL
    assert meant(view, asked(capabilities=("law",), min_context=9000)) is RefusalCode.CONTEXT_TOO_LONG
    assert meant(view, asked(Capability.RERANK)) is RefusalCode.NO_CAPABLE_MODEL
    assert meant(a_story().core.view, asked()) is RefusalCode.NO_DEFAULT_MODEL


def test_a_node_that_still_looks_for_its_models_refuses_nobody() -> None:
    """What can do it may be about to be found."""
    wait = Wait(model=ModelId("auto"), message="looking", is_asleep=False)

    assert open_meaning(a_story(a_spec("cold")).core.view, asked(capabilities=("law",)), wait) is wait


@pytest.mark.rows("AFF-7")
def test_a_named_model_that_lacks_a_capability_is_refused_and_hosts_that_lack_it_are_left_out() -> None:
    """The model is not changed behind the client's back."""
    story = warm_and_cold()
    seeing = a_replica("a", model="warm", digest="sha256:warm", capabilities=("chat", "completion", "vision"))
    view = replace(story.core.view, replicas=MappingProxyType({ModelId("warm"): (seeing,)}))
    request = RouteRequest(model="warm", needs=Capability.COMPLETION, wishes=Wishes(capabilities=("vision",)))

    alone = plan_routes(story.core.view, request)
    with_other = plan_routes(view, request)

    assert isinstance(alone, Refusal)
    assert (alone.code, alone.param) == (RefusalCode.CAPABILITY_NOT_SUPPORTED, "capabilities")
    assert isinstance(with_other, Routes)
    assert [route.node for route in with_other.routes] == ["a"]


def test_a_named_model_is_asked_where_its_context_is_large_enough() -> None:
    """Both numbers where it is so nowhere, also before a load that would be for nothing."""
    story = warm_and_cold()
    large = a_replica("a", model="warm", digest="sha256:warm", context_tokens=32768)
    view = replace(story.core.view, replicas=MappingProxyType({ModelId("warm"): (large,)}))

    def ask(model: str, tokens: int) -> Any:
        return plan_routes(view, RouteRequest(model=model, wishes=Wishes(min_context=tokens)))

    assert [route.node for route in ask("warm", 8192).routes] == [view.me.node, "a"]
    assert [route.node for route in ask("warm", 8193).routes] == ["a"]
    assert ask("warm", 40000).message == (
        "a context of at least 40000 tokens is wanted; the largest of the model 'warm' is 32768"
    )
    assert ask("cold", 40000).code is RefusalCode.CONTEXT_TOO_LONG
    assert isinstance(ask("cold", 8192), Wait)


def test_a_server_that_failed_is_in_nobodys_way_and_two_servers_are_not_one_model() -> None:
    """What adopted servers call by one name is the same only at the same server."""
    here = "adopted:" + "1" * 64
    failed = a_replica("a", model="x", digest="adopted:" + "2" * 64, state=ServingState.FAILED)
    ready_one = a_replica("b", model="x", digest=here)
    other = a_replica("c", model="x", digest="adopted:" + "3" * 64)

    assert list(capable(a_view(failed, ready_one), asked())) == ["x"]
    assert list(capable(a_view(ready_one, other), asked())) == []
