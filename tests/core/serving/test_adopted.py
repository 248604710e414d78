"""Servers that run elsewhere: asked, served under good names, gone and back; never loaded or unloaded."""

import random
from dataclasses import replace
from typing import Any

import pytest

from meshllm.core import events as ev
from meshllm.core import limits
from meshllm.core.announcement import Announcement, Role, ServingState
from meshllm.core.effects import Download, DrainEngine, Leave, Notify, ProbeRemote, StartEngine
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.health import HealthState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import OutcomeCode, Verb
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.remotes import ListedModel, RemoteBackend
from meshllm.core.rights import OWN_MACHINE
from meshllm.core.routing.hosts import hosts_of
from meshllm.core.routing.plan_routes import plan_routes
from meshllm.core.routing.routes import Refusal, RefusalCode, RouteRequest, Routes, Wait
from meshllm.core.routing.tunnel_admission import Crowd, TunnelAsked, admit_tunnel
from meshllm.core.serving.lifecycle import ServingPolicy
from tests.core.builders import Story, a_failure, a_spec, a_story, ready
from tests.core.serving.neighbours import Neighbourhood, a_node, a_served

OLLAMA = RemoteBackend(name="ollama", base_url="http://localhost:11434", api_key="sk-1")


def adopting(*servers: RemoteBackend, specs: tuple[str, ...] = ()) -> Story:
    """Return a core that adopts servers and knows its machine and files."""
    return a_story(*(a_spec(name) for name in specs), adopts=servers or (OLLAMA,))


def listed(*names: str, server: str = "ollama", **facts: Any) -> ev.RemoteProbed:
    """Return the event of a server that lists models."""
    return ev.RemoteProbed(server=server, models=tuple(ListedModel(name=name, **facts) for name in names))


def lost(
    message: str = "nobody is there", fault: EngineFault = EngineFault.UNREACHABLE, server: str = "ollama"
) -> ev.RemoteProbed:
    """Return the event of a server that is not to be used."""
    return ev.RemoteProbed(server=server, failure=a_failure(fault, message))


def announced(story: Story) -> dict[str, ServingState]:
    """Return what the node says it serves."""
    return {served.model: served.state for served in story.core.view.me.serving}


def probes(story: Story, after_s: float) -> int:
    """Return how many servers are asked so many seconds later."""
    return len([effect for effect in story.tell(ev.Woke(), after_s=after_s) if isinstance(effect, ProbeRemote)])


@pytest.mark.rows("CFG-16")
def test_what_a_server_lists_is_served_as_models_of_this_node() -> None:
    """Listed, routed, announced: nobody can tell it from an engine here but by its kind."""
    story = adopting()

    story.tell(listed("llama3:8b", "qwen", context_tokens=4096))

    model = story.model("llama3:8b")
    assert (model.is_ready, model.adopted_from, model.context_tokens, model.plan) == (True, "ollama", 4096, None)
    assert model.endpoint is not None
    assert (model.endpoint.address, model.endpoint.served_name) == (("localhost", 11434), "llama3:8b")
    assert announced(story) == {"llama3:8b": ServingState.READY, "qwen": ServingState.READY}
    assert story.core.view.me.role is Role.HOST
    assert isinstance(plan_routes(story.core.view, RouteRequest(model="qwen")), Routes)


def test_a_server_is_asked_when_the_files_are_known_and_then_now_and_then() -> None:
    """A file's name comes first, so files have to be known before."""
    policy = ServingPolicy(remotes=(OLLAMA,))
    story = Story(MeshCore(CoreConfig(node=NodeId("a" * 32), name="a", serving=policy), 100.0, random.Random(1)))

    assert probes(story, 0.0) == 0
    story.tell(ev.InventoryChanged(models=()))
    assert [effect.server for effect in story.of(ProbeRemote)] == [OLLAMA]
    story.tell(listed("qwen"))

    assert probes(story, limits.REMOTE_PROBE_INTERVAL_S - 1) == 0
    assert probes(story, 1) == 1


def test_the_core_wakes_for_the_next_question_and_not_before() -> None:
    """A wake-up that is always due would be a loop that never rests."""
    story = adopting()
    story.tell(listed("qwen"))

    woken_s = story.core.next_wakeup_s()

    assert woken_s is not None
    assert story.now_s < woken_s <= story.now_s + limits.REMOTE_PROBE_INTERVAL_S


def test_a_model_of_a_server_that_was_not_asked_yet_is_waited_for() -> None:
    """Named by the configuration, it is known; whether it answers is not. Other nodes wait as well."""
    story = adopting(replace(OLLAMA, models=("qwen",)))

    early, said = plan_routes(story.core.view, RouteRequest(model="qwen")), announced(story)
    story.tell(lost())
    late = plan_routes(story.core.view, RouteRequest(model="qwen"))

    assert isinstance(early, Wait)
    assert said == {"qwen": ServingState.LOADING}
    assert isinstance(late, Refusal)
    assert (late.code, announced(story)) == (RefusalCode.MODEL_FAILED, {"qwen": ServingState.FAILED})


def test_a_question_whose_answer_is_lost_is_asked_again() -> None:
    """Nothing waits for ever for a task that ended by a mistake."""
    story = adopting()

    assert probes(story, limits.REMOTE_PROBE_TIMEOUT_S) == 0
    assert probes(story, limits.REMOTE_PROBE_INTERVAL_S) == 1


def test_a_server_that_goes_away_takes_its_models_out_with_the_reason() -> None:
    """At once for other nodes; the reason can be read here and there."""
    story = adopting()
    story.tell(listed("qwen"))

    story.tell(lost("nobody is there"))

    model = story.model("qwen")
    assert (model.state, model.endpoint) == (EngineState.FAILED, None)
    assert model.failure is not None
    assert model.failure.message == "nobody is there"
    assert announced(story) == {"qwen": ServingState.FAILED}
    assert story.core.view.me.serving[0].trouble == "nobody is there"
    refused = plan_routes(story.core.view, RouteRequest(model="qwen"))
    assert isinstance(refused, Refusal)
    assert (refused.code, "nobody is there" in refused.message) == (RefusalCode.MODEL_FAILED, True)
    assert [(state.is_up, state.message) for state in story.core.view.remotes] == [(False, "nobody is there")]


def test_a_server_that_returns_is_served_again() -> None:
    """Asked ever more slowly, but never more slowly than one that answers."""
    story = adopting()
    story.tell(listed("qwen"), lost())

    waits_s = []
    for _ in range(6):
        due_s = story.core.next_wakeup_s()
        assert due_s is not None
        waits_s.append(due_s - story.now_s)
        assert probes(story, due_s - story.now_s) == 1
        story.tell(lost())
    story.tell(listed("qwen"))

    assert waits_s == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert story.model("qwen").is_ready
    assert story.model("qwen").failure is None


def test_a_server_may_be_late_once() -> None:
    """It computes; a refused connection is another matter."""
    story = adopting()
    story.tell(listed("qwen"))

    story.tell(lost("late", EngineFault.HUNG))
    assert story.model("qwen").is_ready
    story.tell(lost("late", EngineFault.HUNG))
    assert not story.model("qwen").is_ready


def test_a_change_is_told_once() -> None:
    """A server that stays away is one line in the log, not one for each probe."""
    story = adopting()
    for _ in range(3):
        story.tell(listed("qwen"))
    for _ in range(3):
        story.tell(lost("nobody is there"))

    lines = [effect.message for effect in story.of(Notify) if "adopted" in effect.message]

    assert lines == ["adopted server answers", "adopted server is not usable"]


def test_a_request_that_fails_there_has_the_server_asked_at_once_and_once() -> None:
    """Ten seconds are long for those who wait; fifty questions are many for a server in trouble."""
    story = adopting()
    story.tell(listed("qwen"))
    story.now_s += 5.0

    asked = story.tell(*[ev.RemoteDoubted(model=ModelId("qwen")) for _ in range(50)])

    assert len([effect for effect in asked if isinstance(effect, ProbeRemote)]) == 1


def test_doubt_about_a_model_that_nobody_adopted_means_nothing() -> None:
    """It may have gone meanwhile."""
    assert adopting().tell(ev.RemoteDoubted(model=ModelId("gone")), lost(server="gone")) == []


# -- names -----------------------------------------------------------------------------------------


def test_a_file_keeps_its_name_and_the_adopted_model_takes_its_servers() -> None:
    """Whoever asks by the old name gets what they got before."""
    story = adopting(specs=("qwen",))

    story.tell(ready("qwen"), listed("qwen"))

    assert story.model("qwen").adopted_from == ""
    assert story.model("ollama/qwen").adopted_from == "ollama"
    endpoint = story.model("ollama/qwen").endpoint
    assert endpoint is not None
    assert endpoint.served_name == "qwen"


def test_two_servers_with_the_same_model_are_told_apart() -> None:
    """The first in the configuration has the plain name; both can be asked by their full ones."""
    other = RemoteBackend(name="studio", base_url="http://localhost:1234")
    story = adopting(OLLAMA, other)

    story.tell(listed("qwen"), listed("qwen", server="studio"))

    assert {name: model.adopted_from for name, model in story.core.view.local.items()} == {
        "qwen": "ollama", "studio/qwen": "studio",
    }  # fmt: skip
    assert story.core.view.names.resolve("ollama/qwen") == "qwen"


def test_an_alias_and_a_sign_that_means_something_here_change_the_name() -> None:
    """`@` asks for a version; the server is asked by its own name all the same."""
    story = adopting(RemoteBackend(name="studio", base_url="http://localhost:1234", aliases={"a": "chat-small"}))

    story.tell(listed("a", "qwen@q4_k_m", "default", server="studio"))

    names = {
        model.id: model.endpoint.served_name for model in story.core.view.local.values() if model.endpoint is not None
    }
    assert names == {"chat-small": "a", "qwen-q4_k_m": "qwen@q4_k_m", "studio/default": "default"}


@pytest.mark.parametrize(
    ("served_name", "name"),
    [
        ("/srv/models/Tiny.Q4_1.gguf", "Tiny.Q4_1"), ("Tiny.Q4_1.gguf", "Tiny.Q4_1"), ("C:\\m\\Tiny.gguf", "Tiny"),
        ("/srv/models/llama/", "llama"), ("./big-00001-of-00003.gguf", "big"), ("org/model", "org/model"),
    ],
)  # fmt: skip
def test_a_file_is_called_by_its_stem(served_name: str, name: str) -> None:
    """As one on this disk is: its server's folders are nobody's business."""
    story = adopting()

    story.tell(listed(served_name))

    endpoint = story.model(name).endpoint
    assert endpoint is not None
    assert endpoint.served_name == served_name


def test_names_that_nobody_could_say_are_left_out_and_counted() -> None:
    """A server may list anything."""
    story = adopting()

    story.tell(listed("x" * 300, "a\nb", "ok"))

    assert set(story.core.view.local) == {"ok"}
    assert [(state.models, state.left_out) for state in story.core.view.remotes] == [(1, 2)]


def test_a_server_with_a_thousand_models_fills_no_announcement() -> None:
    """The first ones are served; the configuration can name others."""
    story = adopting()

    story.tell(listed(*(f"m{number}" for number in range(1000))))

    assert len(story.core.view.local) == len(announced(story)) == limits.REMOTE_MODELS
    assert story.core.view.remotes[0].left_out == 1000 - limits.REMOTE_MODELS


def test_only_named_models_are_served_and_a_missing_one_says_what_there_is() -> None:
    """`llama3` is what people write and `llama3:latest` what the list says."""
    story = adopting(RemoteBackend(name="ollama", base_url="http://h", models=("llama3", "typo")))

    story.tell(listed("llama3:latest", "qwen"))

    assert {name: model.is_ready for name, model in story.core.view.local.items()} == {"llama3": True, "typo": False}
    failure = story.model("typo").failure
    assert failure is not None
    assert (failure.fault, "it lists llama3:latest, qwen" in failure.message) == (EngineFault.NOT_LISTED, True)


def test_named_models_are_shown_before_their_server_was_ever_reached() -> None:
    """Somebody who starts the node before the server sees what is missing."""
    story = adopting(RemoteBackend(name="ollama", base_url="http://h", models=("llama3",)))

    story.tell(lost("nobody is there"))

    assert story.model("llama3").failure is not None
    assert story.model("llama3").failure.message == "nobody is there"  # type: ignore[union-attr]


def test_a_server_without_a_list_serves_what_the_configuration_names() -> None:
    """Not every server has `/v1/models`."""
    story = adopting(RemoteBackend(name="ollama", base_url="http://h", models=("llama3",)))

    story.tell(ev.RemoteProbed(server="ollama", has_list=False))

    assert story.model("llama3").is_ready


def test_a_url_that_is_none_is_told_and_nobody_is_asked() -> None:
    """Everything else of the node works."""
    story = adopting(
        RemoteBackend(name="ollama", base_url="localhost", models=("llama3",)),
        RemoteBackend(name="keyed", base_url="http://h", api_key="a\r\nb", models=("other",)),
    )

    assert story.of(ProbeRemote) == []
    assert [state.message for state in story.core.view.remotes] == [
        "a server's URL begins with http:// or https://", "its key holds characters that no header can carry",
    ]  # fmt: skip
    assert story.model("llama3").state is EngineState.FAILED


def test_a_model_that_is_listed_no_more_is_gone() -> None:
    """Its server removed it."""
    story = adopting()
    story.tell(listed("a", "b"))

    story.tell(listed("b"))

    assert set(story.core.view.local) == {"b"}
    assert set(announced(story)) == {"b"}


# -- the rest of the node --------------------------------------------------------------------------


@pytest.mark.rows("LIF-9", "T30")
@pytest.mark.parametrize("verb", [verb for verb in Verb if verb is not Verb.DEFAULT])
def test_nobody_loads_or_unloads_an_adopted_model(verb: Verb) -> None:
    """It is refused with a reason, and still answers."""
    story = adopting()
    story.tell(listed("qwen"))

    outcome = story.outcome(story.ask(verb, "qwen", force=True))

    assert outcome is not None
    assert (outcome.code, outcome.model) == (OutcomeCode.NOT_LOADABLE, "qwen")
    assert story.model("qwen").is_ready


def test_intents_about_files_and_strangers_are_not_touched() -> None:
    """Each goes where it went before."""
    story = adopting(specs=("tiny",))
    story.tell(ready("tiny"), listed("qwen"))

    known, unknown = story.ask(Verb.LOAD, "tiny"), story.ask(Verb.UNLOAD, "stranger")

    assert story.outcome(known).code is OutcomeCode.DONE  # type: ignore[union-attr]
    assert story.outcome(unknown).code is OutcomeCode.UNKNOWN_MODEL  # type: ignore[union-attr]


@pytest.mark.rows("MSH-17")
def test_adopted_models_take_no_memory_and_start_nothing() -> None:
    """What is on disk is served beside them, as if they were not there."""
    story = adopting(specs=("tiny",))

    story.tell(listed("qwen"))

    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["tiny"]


def test_requests_are_counted() -> None:
    """As for engines here."""
    story = adopting()
    story.tell(listed("qwen"))

    story.tell(ev.TrafficMeasured(finished=((ModelId("qwen"), 3), (ModelId("gone"), 1))))

    assert (story.model("qwen").requests, story.model("qwen").last_used_s) == (3, story.now_s)


def test_nothing_changes_while_nothing_happens() -> None:
    """A probe that says the same makes no new view, or lists and routes would be made anew for nothing."""
    story = adopting()
    story.tell(listed("qwen"))
    epoch = story.core.view.epoch

    story.tell(ev.Woke(), after_s=limits.REMOTE_PROBE_INTERVAL_S)
    story.tell(listed("qwen"))

    assert story.core.view.epoch == epoch


def test_leaving_waits_for_what_is_under_way_there() -> None:
    """The server goes on; its clients here get their answers first."""
    story = adopting()
    story.tell(listed("qwen"))

    effects = story.tell(ev.LeaveRequested(reason="SIGTERM"))

    assert [effect.model for effect in effects if isinstance(effect, DrainEngine)] == ["qwen"]
    assert story.of(Leave) == []
    assert story.model("qwen").state is EngineState.DRAINING
    assert story.model("qwen").endpoint is not None
    story.tell(ev.EngineDrained(model=ModelId("qwen")))
    assert len(story.of(Leave)) == 1
    assert probes(story, 100.0) == 0


def test_a_second_signal_waits_for_nothing() -> None:
    """Somebody is in a hurry."""
    story = adopting()
    story.tell(listed("qwen"), ev.LeaveRequested(reason="SIGTERM"))

    story.tell(ev.LeaveRequested(reason="SIGTERM"))

    assert len(story.of(Leave)) == 1


def test_an_adopted_model_is_the_same_as_itself_alone() -> None:
    """By the server and the name there, never by a file; an address of this machine is another server at each node."""
    story, elsewhere = adopting(), a_story(adopts=(OLLAMA,), node="b")
    away = RemoteBackend(name="box", base_url="https://box.example/v1")
    shared, again = adopting(away), a_story(adopts=(away,), node="b")
    for one in (story, elsewhere):
        one.tell(listed("qwen"))
    for one in (shared, again):
        one.tell(listed("qwen", "other", server="box"))

    digests = [one.model("qwen").digest for one in (story, elsewhere, shared, again)]

    assert all(digest.startswith("adopted:") and len(digest) == len("adopted:") + 64 for digest in digests)
    assert len(set(digests)) == 3
    assert digests[2] == digests[3] != shared.model("other").digest
    assert list(story.core.view.groups) == [digests[0]]


def third(*said: Announcement) -> Neighbourhood:
    """Return a node that hears these others."""
    node = Neighbourhood(policy=ServingPolicy())
    node.meet()
    node.hear(*said)
    return node


def an_adopter(*events: ev.Event) -> Announcement:
    """Return what a node says to others that adopts a server."""
    story = adopting()
    story.tell(listed("qwen"), *events)
    return a_node("q" * 52, *story.core.view.me.serving)


@pytest.mark.rows("CFG-16")
def test_a_file_and_an_adopted_model_of_one_name_are_two_models_to_others() -> None:
    """Neither stands in for the other; each has a name of its own, and its own host knows which is meant."""
    node = third(an_adopter(), a_node("r" * 52, a_served("qwen")))

    both = plan_routes(node.core.view, RouteRequest(model="qwen"))
    assert isinstance(both, Refusal)
    assert both.code is RefusalCode.AMBIGUOUS_MODEL
    adopted = next(one.served.digest for one in node.core.view.replicas[ModelId("qwen")] if one.node == "q" * 52)
    found = plan_routes(node.core.view, RouteRequest(model=f"qwen@{adopted[:20]}"))
    assert isinstance(found, Routes)
    assert [route.node for route in found.routes] == ["q" * 52]
    host = adopting()
    host.tell(listed("qwen"))
    asked = TunnelAsked(rights=OWN_MACHINE, model=ModelId("qwen"), digest=host.model("qwen").digest)
    assert admit_tunnel(host.core.view, asked, Crowd(in_flight=0, of_peer=0, admitted=4)) is None
    here = plan_routes(host.core.view, RouteRequest(model=f"qwen@{asked.digest}", is_forwarded=True))
    assert isinstance(here, Routes)


def test_a_model_that_is_being_fetched_here_is_not_answered_by_an_adopted_one() -> None:
    """It will be a file, and that is another model."""
    node = Neighbourhood(policy=ServingPolicy(requested=("smollm2-135m",)))
    [wanted] = node.core.view.local
    story = adopting()
    story.tell(listed(wanted))
    node.meet()
    node.hear(a_node("q" * 52, *story.core.view.me.serving))

    assert not isinstance(plan_routes(node.core.view, RouteRequest(model=wanted)), Routes)


@pytest.mark.rows("CFG-16")
def test_others_are_told_why_an_adopted_model_does_not_answer() -> None:
    """Refused at once with the reason and its node, not as a model that nobody knows; it is no host of anything."""
    node = third(an_adopter(lost("nobody is there")))

    refused = plan_routes(node.core.view, RouteRequest(model="qwen"))

    assert isinstance(refused, Refusal)
    assert refused.code is RefusalCode.MODEL_FAILED
    assert refused.message == "the model 'qwen' cannot be served: nobody is there (at q)"
    assert node.core.view.groups == {}
    [host] = hosts_of(node.core.view, ModelId("qwen"))
    assert (host.status, host.health_status) == ("unloaded", HealthState.UNHEALTHY)


def test_what_an_adopted_server_cannot_do_is_in_nobodys_way() -> None:
    """A file of that name answers at its own host, and one on a disk is loaded as if there were no server."""
    serving = third(an_adopter(lost()), a_node("r" * 52, a_served("qwen")))
    on_disk = third(an_adopter(lost()), a_node("r" * 52, disk=("qwen",)))

    found = plan_routes(serving.core.view, RouteRequest(model="qwen"))
    assert isinstance(found, Routes)
    assert [route.node for route in found.routes] == ["r" * 52]
    asked = plan_routes(on_disk.core.view, RouteRequest(model="qwen"))
    assert isinstance(asked, Wait)
    assert asked.is_asleep


# -- asked for at the start -------------------------------------------------------------------------


def requesting(*requested: str, server: RemoteBackend = OLLAMA, specs: tuple[str, ...] = ()) -> Story:
    """Return a core that was started with `--model` and adopts a server."""
    return a_story(*(a_spec(name) for name in specs), requested=requested, adopts=(server,))


def test_a_requested_model_may_be_one_of_an_adopted_server() -> None:
    """Nothing is fetched for it, nobody else has to bring it, and it is the default."""
    story = requesting("llama3:8b", "smollm2-135m")
    before = [type(effect).__name__ for effect in story.effects]

    story.tell(listed("llama3:8b", "smollm2-135m"))

    assert not {"Download", "ResolveModel"} & {*before, *(type(effect).__name__ for effect in story.effects)}
    assert story.core.view.unresolved == {}
    assert story.core.view.default_model == "llama3:8b"
    assert story.core.view.me.requested == ()
    assert not story.of(Leave)


def test_a_file_of_a_requested_name_comes_before_a_servers_model() -> None:
    """As everywhere."""
    story = requesting("qwen", specs=("qwen",))

    story.tell(listed("qwen"))

    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["qwen"]


def test_what_no_server_has_is_looked_for_elsewhere_as_soon_as_they_have_spoken() -> None:
    """A catalogue name is fetched; one that stands for nothing is told, once no server can have it any more."""
    story = requesting("smollm2-135m", "nonsense")
    assert story.of(Download) == []
    story.tell(lost())
    assert len(story.of(Download)) == 1
    assert story.core.view.unresolved == {}

    story.tell(listed("other"))

    assert set(story.core.view.unresolved) == {"nonsense"}
