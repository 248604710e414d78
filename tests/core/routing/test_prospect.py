"""Where a request would go, and what speaks against everybody else."""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import DiskModel, ServingState
from meshllm.core.health import HealthChecks, Integrity
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.rights import Rights
from meshllm.core.routing.prospect import Prospect, Question, foresee
from meshllm.core.routing.replicas import replicas_of
from meshllm.core.routing.route_memory import RouteMemory
from meshllm.core.standing import MemberState
from meshllm.core.view import Member, MeshView
from tests.core.builders import Story, a_member, a_spec, a_story, exited, ready

TINY = ModelId("tiny")
WORDS = {
    ServingState.CLAIMED: "is about to load it", ServingState.DOWNLOADING: "is downloading it",
    ServingState.LOADING: "is loading it", ServingState.DRAINING: "is draining: it takes no new requests",
}  # fmt: skip


def a_view(story: Story, *members: Member) -> MeshView:
    """Return a story's view with other members in it."""
    view = story.core.view
    known = {**view.members, **{member.announcement.node: member for member in members}}
    return replace(view, members=MappingProxyType(known), replicas=replicas_of(known.values(), view.me.node))


def a_host(name: str, *, member: str = "alive", rights: Rights | None = None, **served: object) -> Member:
    """Return a member that serves `tiny`, or a variation."""
    found = a_member(name, models=("tiny",), state=MemberState(member))
    said = found.announcement
    one = replace(said.serving[0], **served)
    return replace(found, announcement=replace(said, serving=(one,), rights=said.rights if rights is None else rights))


@dataclass
class ADoor:
    """What a front door says of its requests."""

    busy: int = 0
    ejected: dict[NodeId, float] = field(default_factory=dict)

    def in_flight(self, _: ModelId) -> int:
        """Return as many for every model."""
        return self.busy

    def left_out(self, nodes: Collection[NodeId], _: float) -> Mapping[NodeId, float]:
        """Return those that are out of these."""
        return {node: self.ejected[node] for node in nodes if node in self.ejected}


def look(view: MeshView, *, tokens: int = 0, asked: str = "tiny", busy: int = 0, **ejected: float) -> Prospect:
    """Ask where a request would go, of a memory without any past; `ejected` are nodes by the seconds that are left."""
    question = Question(asked=asked, model=ModelId(asked), tokens=tokens)
    names = {member.announcement.name: node for node, member in view.members.items()}
    door = ADoor(busy, {names[name]: left_s for name, left_s in ejected.items()})
    return foresee(view, RouteMemory(random.Random(1)), question, door, 1.0)


def why(found: Prospect) -> dict[str, str]:
    """Return why which node is no candidate, by name."""
    return {found.names[one.name]: one.why for one in found.decision.rejected}


def here() -> Story:
    """Return a story of a node with `tiny` ready."""
    story = a_story(a_spec(), requested=("tiny",))
    story.tell(ready("tiny"))
    return story


def test_an_idle_engine_here_comes_before_a_busy_one_elsewhere() -> None:
    """With the reason that a request would be given."""
    found = look(a_view(here(), a_host("attic", busy=3)))

    assert [found.names[one.name] for one in found.decision.ratings] == ["a", "attic"]
    assert (found.decision.strategy, found.decision.reason) == ("cache_aware", "least_loaded")
    assert (found.code, found.waits, found.message, why(found)) == ("", False, "", {})

    crowded = look(a_view(here(), a_host("attic", busy=3)), busy=4)

    assert [crowded.names[one.name] for one in crowded.decision.ratings] == ["attic", "a"]


def test_a_host_to_which_tunnels_failed_is_no_candidate_for_a_while() -> None:
    """And it is said for how long."""
    found = look(a_view(here(), a_host("attic"), a_host("cellar")), attic=12.3)

    assert [found.names[one.name] for one in found.decision.ratings] == ["a", "cellar"]
    assert why(found) == {"attic": "is left out for 12 s more: tunnels to it failed in a row"}


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (a_host("x", member="dead"), "is dead"),
        (replace(a_host("x", member="dead"), why="it did not answer"), "is dead: it did not answer"),
        (a_host("x", rights=Rights.INFER), "has no right to host"),
        *((a_host("x", state=state), words) for state, words in WORDS.items()),
        (a_host("x", health="unhealthy"), "unhealthy"),
        (a_host("x", digest="sha256:other"), "serves another file under this name"),
        (a_host("x", digest=""), "has not said yet which file it serves"),
    ],
)
def test_who_is_no_candidate_is_told_with_the_reason(member: Member, reason: str) -> None:
    """For each node that has something to do with the model."""
    found = look(a_view(here(), member, a_member("nothing", models=("another",))))

    assert [found.names[one.name] for one in found.decision.ratings] == ["a"]
    assert why(found) == {"x": reason}


def test_a_node_that_only_has_the_file_is_told_of() -> None:
    """It could serve it too."""
    disk = (DiskModel(model=TINY, digest="sha256:tiny", size_bytes=1),)
    plain = a_member("cellar")
    cellar = replace(plain, announcement=replace(plain.announcement, models_on_disk=disk))

    assert why(look(a_view(here(), cellar))) == {"cellar": "has the file and does not serve it"}


def test_a_context_that_is_too_small_is_no_candidate() -> None:
    """Both numbers are told; without any candidate it is what the request would be refused with."""
    view = a_view(here(), a_host("attic", context_tokens=100))

    some, none = look(view, tokens=1000), look(view, tokens=10_000)

    assert why(some) == {"attic": "a context of 100 tokens is too small for 1000"}
    assert [some.names[one.name] for one in some.decision.ratings] == ["a"]
    assert (none.code, none.decision.picked) == ("context_length_exceeded", "")
    assert set(why(none)) == {"a", "attic"}


def test_a_suspect_comes_last_and_an_unmeasured_one_is_a_candidate() -> None:
    """As for a request."""
    near = replace(a_host("near"), rtt_s=0.01)

    found = look(a_view(a_story(), a_host("aside", member="suspect"), near, a_host("far")))

    assert [found.names[one.name] for one in found.decision.ratings][-1] == "aside"
    assert found.decision.picked == near.announcement.node


def test_what_keeps_this_nodes_own_engine_out_is_told() -> None:
    """Loading, crashed, unloaded, waiting for room, another file."""
    loading = a_story(a_spec(), requested=("tiny",))
    crashed = here()
    crashed.tell(exited("tiny"))
    held = here()
    held.ask(Verb.UNLOAD, "tiny", hold=True)
    held.tell(ev.EngineDrained(model=TINY), exited("tiny"))
    large = a_story(a_spec("tiny", size_bytes=1 << 45), requested=("tiny",))

    stories = {"loading": loading, "crashed": crashed, "held": held, "large": large}
    reasons = {name: why(look(a_view(story, a_host("attic")))) for name, story in stories.items()}

    assert reasons["loading"] == {"a": "its engine is starting"}
    assert reasons["crashed"] == {"a": "it crashed"}
    assert reasons["held"] == {"a": "was unloaded here, and only an order brings it back"}
    assert reasons["large"]["a"].startswith("capacity: ")


def test_an_engine_here_that_fails_its_checks_is_unhealthy() -> None:
    """It runs, and its answers cannot be relied on."""
    view = a_view(here(), a_host("attic"))
    local = view.local[TINY]
    broken = replace(local, checks=HealthChecks(file_integrity=Integrity.FAILED))
    assert not broken.is_ready

    found = look(replace(view, local=MappingProxyType({TINY: broken})))

    assert why(found) == {"a": "unhealthy"}


def test_a_request_that_would_wait_or_be_refused_is_told_so() -> None:
    """With the same words that it would be given."""
    cold = a_story(a_spec(), a_spec("other"))
    waiting, unknown = look(a_view(cold), asked="other"), look(a_view(cold), asked="nonsense")

    assert (waiting.waits, waiting.decision.model, waiting.decision.picked) == (True, "other", "")
    assert "other" in waiting.message
    assert (unknown.code, unknown.waits) == ("model_not_found", False)


def test_a_way_that_the_members_do_not_show_is_rated_as_well() -> None:
    """A view may be a moment older in one part than in another."""
    view = a_view(a_story(), a_host("attic"))
    gone = replace(view, members=MappingProxyType({view.me.node: view.members[view.me.node]}))

    found = look(gone)

    assert found.decision.picked == NodeId("attic".ljust(52, "2"))
    assert found.names == {}


def test_hosts_with_nothing_against_them_are_not_rejected_where_the_request_itself_is() -> None:
    """A node that leaves takes no requests, whoever could answer them."""
    found = look(replace(a_view(here(), a_host("attic")), leaving=True))

    assert (found.code, found.decision.model, why(found)) == ("leaving", "tiny", {})
