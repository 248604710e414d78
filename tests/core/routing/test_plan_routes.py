"""Where one request goes."""

import random
import time
from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import ServingState
from meshllm.core.engines import EngineFault
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.limits import GIB
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.names import NameIndex
from meshllm.core.routing.asleep import unloaded
from meshllm.core.routing.plan_routes import plan_routes
from meshllm.core.routing.routes import (
    Capability,
    Local,
    Refusal,
    RefusalCode,
    Remote,
    RouteRequest,
    Routes,
    Wait,
)
from meshllm.core.routing_config import RoutingConfig, RoutingRegister
from meshllm.core.view import MeshView, Replica
from tests.core.builders import Story, a_spec, a_story, exited, ready
from tests.core.routing.test_replicas import a_replica


def ask(story: Story, model: str | None, needs: Capability | None = None) -> Routes | Wait | Refusal:
    """Return where a request goes in a story's newest view."""
    return plan_routes(story.core.view, RouteRequest(model=model, needs=needs))


def two_models() -> Story:
    """Return a story with one ready and one cold model."""
    story = a_story(a_spec("warm"), a_spec("cold"), requested=("warm",))
    story.tell(ready("warm"))
    return story


@pytest.mark.rows("ADR-1", "ADR-2", "ADR-3")
@pytest.mark.parametrize("name", ["warm", "WARM", None, "", "default", "auto"])
def test_names_that_mean_the_ready_model_lead_to_it(name: str | None) -> None:
    """Omitted, empty and `default` are the default; `auto` is what is ready."""
    found = ask(two_models(), name)

    assert isinstance(found, Routes)
    assert found.model == "warm"
    assert isinstance(found.routes[0].target, Local)
    assert found.routes[0].target.endpoint.socket_path == "/run/warm.sock"
    assert found.routes[0].reason == "local"


@pytest.mark.rows("ADR-1")
def test_an_unknown_name_is_refused_with_near_names() -> None:
    """Never another model than the one that was asked for."""
    found = ask(two_models(), "wram")

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.MODEL_NOT_FOUND
    assert "did you mean warm" in found.message


@pytest.mark.rows("LIF-6")
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
    story.tell(exited("warm"))
    story.tell(ev.Woke(), after_s=1.0)
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


@pytest.mark.rows("ADR-5")
def test_without_any_model_there_is_no_default() -> None:
    """An empty node says so instead of answering with something."""
    found = ask(a_story(), None)

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.NO_DEFAULT_MODEL


@pytest.mark.parametrize("name", ["tiny", "default", None, "auto"])
def test_a_request_that_comes_before_the_folders_were_read_waits(name: str | None) -> None:
    """In the first moments of a node every name is unknown; a 404 would be a lie."""
    early = Story(MeshCore(CoreConfig(node=NodeId("a" * 32), name="a"), 0.0, random.Random(1)))

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


@pytest.mark.rows("PRX-5")
def test_an_unknown_name_falls_back_where_that_is_wished_and_says_so() -> None:
    """The source document's behaviour: deterministic, visible, and never for vectors."""
    view = two_models().core.view

    found = plan_routes(falling_back(view), RouteRequest(model="nonsense"))
    vectors = plan_routes(falling_back(view), RouteRequest(model="nonsense", needs=Capability.EMBEDDING))
    held = plan_routes(falling_back(a_story().core.view), RouteRequest(model="nonsense"))

    assert isinstance(found, Routes)
    assert (found.model, found.routes[0].reason) == ("warm", "fallback")
    assert [answer.code for answer in (vectors, held) if isinstance(answer, Refusal)] == ["model_not_found"] * 2


def falling_back(view: MeshView) -> MeshView:
    """Return a view in which another model answers for unknown names."""
    return replace(view, routing=RoutingRegister(node=RoutingConfig(unknown_model="fallback")))


def with_replicas(story: Story, *replicas: Replica, **changes: object) -> MeshView:
    """Return a story's view in which other nodes serve models too."""
    found: dict[ModelId, tuple[Replica, ...]] = {}
    for replica in replicas:
        found[replica.served.model] = (*found.get(replica.served.model, ()), replica)
    names = NameIndex([*story.core.view.local, *found])
    return replace(story.core.view, replicas=MappingProxyType(found), names=names, **changes)


def ask_view(view: MeshView, model: str | None, **fields: bool) -> Routes | Wait | Refusal:
    """Return where a request goes in a view."""
    return plan_routes(view, RouteRequest(model=model, **fields))


def test_a_model_that_only_others_have_is_routed_to_them() -> None:
    """All of them, so that a lost one is not the end."""
    view = with_replicas(two_models(), a_replica("b", model="far"), a_replica("a", model="far"))

    found = ask_view(view, "FAR")

    assert isinstance(found, Routes)
    assert [(route.node, route.reason) for route in found.routes] == [("a", "remote"), ("b", "remote")]
    assert found.routes[0].target == Remote(digest="sha256:1", slots=4, context_tokens=4096)


def test_replicas_of_the_same_file_stand_behind_this_nodes_own_engine() -> None:
    """The own engine first; another file under the same name is never mixed in."""
    same, other = a_replica("a", model="warm", digest="sha256:warm"), a_replica("b", model="warm", digest="sha256:x")

    found = ask_view(with_replicas(two_models(), same, other), "warm")

    assert isinstance(found, Routes)
    assert [route.reason for route in found.routes] == ["local", "remote"]


def test_a_ready_replica_elsewhere_spares_a_load_here() -> None:
    """A model on this disk that another node has in memory answers there."""
    found = ask_view(with_replicas(two_models(), a_replica("a", model="cold", digest="sha256:cold")), "cold")

    assert isinstance(found, Routes)
    assert [route.node for route in found.routes] == ["a"]


def test_a_forwarded_request_is_never_sent_on() -> None:
    """Two nodes that disagree must not play ball with a request."""
    view = with_replicas(two_models(), a_replica("a", model="far"), a_replica("a", model="warm", digest="sha256:warm"))

    far, warm = ask_view(view, "far", is_forwarded=True), ask_view(view, "warm", is_forwarded=True)

    assert isinstance(far, Refusal)
    assert isinstance(warm, Routes)
    assert [route.reason for route in warm.routes] == ["local"]


@pytest.mark.rows("REG-10")
def test_one_name_for_two_files_elsewhere_is_ambiguous_until_it_is_pinned() -> None:
    """The refusal names what to ask for instead."""
    view = with_replicas(
        two_models(),
        a_replica("a", model="far", digest=f"sha256:{'1' * 64}"),
        a_replica("b", model="far", digest=f"sha256:{'2' * 64}"),
    )

    found, pinned, nowhere, short = (
        ask_view(view, name)
        for name in ("far", f"far@sha256:{'2' * 12}", f"far@sha256:{'3' * 12}", f"far@sha256:{'2' * 11}")
    )

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.AMBIGUOUS_MODEL
    assert f"far@sha256:{'1' * 12}, far@sha256:{'2' * 12}" in found.message
    assert isinstance(pinned, Routes)
    assert [route.node for route in pinned.routes] == ["b"]
    assert isinstance(nowhere, Refusal)
    assert nowhere.code is RefusalCode.MODEL_NOT_FOUND
    assert isinstance(short, Refusal)
    assert short.message.endswith("a digest is given with at least 12 of its digits")


@pytest.mark.parametrize(
    "path",
    ["/models/warm.gguf", "~/.models/WARM.GGUF", "./warm", "vendor/warm.gguf", "C:\\models\\warm.gguf", "/srv/warm"],
)  # fmt: skip
def test_a_path_is_told_the_name_of_its_model(path: str) -> None:
    """Models have names; where their files lie is nobody's business."""
    found = ask(two_models(), path)

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.MODEL_NOT_FOUND
    assert found.message.endswith("models are asked for by name, not by path; did you mean warm?")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/models/war.gguf", "not by path; did you mean warm?"),
        ("/models/zzz.gguf", "not by path; GET /v1/models lists what there is"),
        ("user/zzz", "does not exist; GET /v1/models lists what there is"),
        ("/models/two.gguf", "not by path; did you mean two-q4 or two-q8?"),
    ],
)
def test_a_path_of_no_model_is_told_near_names(path: str, hint: str) -> None:
    """As any other name."""
    story = a_story(a_spec("warm"), a_spec("two-q4"), a_spec("two-q8"), requested=("warm",))

    found = ask(story, path)

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.MODEL_NOT_FOUND
    assert found.message.endswith(hint)


@pytest.mark.parametrize("force", [False, True])
def test_a_model_that_was_unloaded_is_withdrawn_from_the_requests_that_had_it(*, force: bool) -> None:
    """From the order on, whether its engine drains, stops or is gone."""
    story = two_models()
    before = unloaded(story.core.view, ModelId("warm"))
    story.ask(Verb.UNLOAD, "warm", force=force)
    ordered = unloaded(story.core.view, ModelId("warm"))
    story.tell(exited("warm"))
    gone = unloaded(story.core.view, ModelId("warm"))

    assert before is None
    assert ordered is not None
    assert gone is not None
    assert ordered.code is gone.code is RefusalCode.MODEL_UNLOADED
    assert "another request loads it again" in ordered.message


def test_a_model_that_was_dropped_says_how_it_comes_back() -> None:
    """Another request would not load it."""
    story = two_models()
    story.ask(Verb.DROP, "warm", keep_running=True)

    found = unloaded(story.core.view, ModelId("warm"))

    assert found is not None
    assert "`mesh-llm load warm` brings it back" in found.message


def test_a_model_whose_engine_crashed_is_not_withdrawn() -> None:
    """It comes back by itself, and requests wait for it; nor is one that this node does not have."""
    story = two_models()
    story.tell(exited("warm", EngineFault.CRASHED))

    assert unloaded(story.core.view, ModelId("warm")) is None
    assert unloaded(story.core.view, ModelId("far")) is None


def test_a_node_that_leaves_withdraws_nothing() -> None:
    """That has its own words."""
    story = two_models()
    story.tell(ev.LeaveRequested(reason="test"))

    assert unloaded(story.core.view, ModelId("warm")) is None


@pytest.mark.rows("RTE-15")
def test_unhealthy_hosts_get_requests_only_where_health_does_not_count() -> None:
    """For measurements: whoever compares hosts wants the bad ones, too."""
    unchecked = RoutingRegister(node=RoutingConfig(checks_health=False))
    well, unwell = a_replica("a", model="far"), a_replica("b", model="far", health="unhealthy")

    checked = ask_view(with_replicas(two_models(), well, unwell), "far")
    both = ask_view(with_replicas(two_models(), well, unwell, routing=unchecked), "far")

    assert isinstance(checked, Routes)
    assert isinstance(both, Routes)
    assert [route.node for route in checked.routes] == ["a"]
    assert [route.node for route in both.routes] == ["a", "b"]


def test_a_model_that_loads_elsewhere_is_waited_for() -> None:
    """Nobody has to ask for it: somebody did."""
    found = ask_view(with_replicas(two_models(), a_replica("a", model="far", state=ServingState.LOADING)), "far")

    assert isinstance(found, Wait)
    assert not found.is_asleep
    assert found.message == "the model 'far' is loading at a"


def test_a_node_without_models_defaults_to_what_others_serve() -> None:
    """A client's users need not name a model."""
    story = a_story()
    view = with_replicas(story, a_replica("a", model="far"))

    for name in (None, "default", "auto"):
        found = ask_view(view, name)
        assert isinstance(found, Routes)
        assert found.model == "far"


def test_a_node_that_is_joining_asks_for_patience() -> None:
    """It cannot say yet that a model does not exist."""
    joining, joined = with_replicas(a_story(), joining=True), with_replicas(a_story())

    assert isinstance(ask_view(joining, "far"), Wait)
    assert isinstance(ask_view(joining, None), Wait)
    assert isinstance(ask_view(joined, "far"), Refusal)


def test_what_a_remote_model_cannot_do_is_refused_here() -> None:
    """The far engine need not be bothered."""
    view = with_replicas(two_models(), a_replica("a", model="far", capabilities=("embedding",)))

    found = plan_routes(view, RouteRequest(model="far", needs=Capability.COMPLETION))

    assert isinstance(found, Refusal)
    assert found.code is RefusalCode.CAPABILITY_NOT_SUPPORTED


@pytest.mark.rows("PRX-5")
def test_a_fallback_is_the_default_and_without_one_the_first_id_that_is_ready() -> None:
    """The same on every node, whoever asks; a cold default is loaded for it."""
    replicas = [a_replica(node, model=model) for node, model in (("a", "zeta"), ("b", "beta"), ("c", "gamma"))]
    first = plan_routes(falling_back(with_replicas(a_story(), *replicas)), RouteRequest(model="x"))
    default = with_replicas(a_story(), *replicas, default_model=ModelId("gamma"))
    chosen = plan_routes(falling_back(default), RouteRequest(model="x"))
    gone = with_replicas(a_story(), *replicas, default_model=ModelId("gone"))
    instead = plan_routes(falling_back(gone), RouteRequest(model="x"))
    cold = with_replicas(two_models(), *replicas, default_model=ModelId("cold"))
    loaded = plan_routes(falling_back(cold), RouteRequest(model="x"))

    assert isinstance(first, Routes)
    assert isinstance(chosen, Routes)
    assert isinstance(instead, Routes)
    assert instead.model == "beta"
    assert (first.model, chosen.model, chosen.routes[0].reason) == ("beta", "gamma", "fallback")
    assert isinstance(loaded, Wait)
    assert (loaded.model, loaded.is_fallback) == ("cold", True)


def test_only_a_name_that_nothing_has_falls_back() -> None:
    """A file that nobody has of a model that there is, or a model that was dropped, is not that."""
    story = two_models()
    story.ask(Verb.DROP, "cold", keep_running=True)
    story.ask(Verb.LOAD, "cold")
    story.ask(Verb.DROP, "cold", keep_running=True)

    for name in (f"warm@sha256:{'9' * 12}", "cold"):
        found = plan_routes(falling_back(story.core.view), RouteRequest(model=name))
        assert not isinstance(found, Routes), name


def test_a_model_that_is_being_fetched_here_is_answered_where_it_is_ready() -> None:
    """Its file is not here yet; while others have different ones, it is waited for."""
    view = two_models().core.view
    fetching = replace(view.local[ModelId("cold")], spec=None, wanted=True)
    one, other = a_replica("a", model="cold", digest="sha256:1"), a_replica("b", model="cold", digest="sha256:2")
    local = MappingProxyType({**view.local, fetching.id: fetching})

    answered = ask_view(replace(with_replicas(two_models(), one), local=local), "cold")
    unsure = ask_view(replace(with_replicas(two_models(), one, other), local=local), "cold")

    assert isinstance(answered, Routes)
    assert [route.node for route in answered.routes] == ["a"]
    assert isinstance(unsure, Wait)


def test_a_decision_takes_microseconds_in_a_large_mesh() -> None:
    """Fifty models at twenty hosts each, by id, by another case, by stem, and names that nothing has."""
    models = [f"Model-{number}-Instruct-Q4_K_M" for number in range(50)]
    view = with_replicas(two_models(), *(a_replica(f"n{node}", model=model) for model in models for node in range(20)))
    names = [*models, *(model.lower() for model in models), *(model[:-7] for model in models), "nope", "nope-2"]
    plan_routes(view, RouteRequest(model="what the index makes with its first such name"))

    took_s = []
    for name in names * 4:
        began_s = time.thread_time()
        plan_routes(view, RouteRequest(model=name))
        took_s.append(time.thread_time() - began_s)

    assert sorted(took_s)[len(took_s) * 99 // 100] < 0.002  # 150 us on an idle core; the machine of the tests is not


def test_whether_another_model_answers_for_an_unknown_name_is_part_of_how_requests_are_routed() -> None:
    """A request that another node has sent here is answered with what it names, or not at all."""
    view = two_models().core.view
    falling = falling_back(view)

    found = plan_routes(falling, RouteRequest(model="nonsense"))
    forwarded = plan_routes(falling, RouteRequest(model="nonsense", is_forwarded=True))

    assert isinstance(plan_routes(view, RouteRequest(model="nonsense")), Refusal)
    assert isinstance(found, Routes)
    assert (found.model, found.routes[0].reason) == ("warm", "fallback")
    assert isinstance(forwarded, Refusal)
