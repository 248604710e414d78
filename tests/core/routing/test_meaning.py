"""Which model a request means, whoever has it."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from meshllm.core.announcement import ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import Ambiguous, GivenName, NameIndex, Unknown
from meshllm.core.remotes import RemoteState
from meshllm.core.routing.meaning import meaning, name_refused, not_found, one_file, ready_models
from meshllm.core.routing.routes import Capability, Refusal, RefusalCode, RouteRequest, Wait
from meshllm.core.view import ColdModel, MeshView, Replica
from tests.core.builders import Story, a_spec, a_story, ready
from tests.core.routing.test_replicas import a_replica

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")


def a_view(
    *replicas: Replica, cold: tuple[ColdModel, ...] = (), story: Story | None = None,
    aliases: dict[str, list[ModelId]] | None = None, versions: tuple[GivenName, ...] = (), **facts: Any,
) -> MeshView:  # fmt: skip
    """Return a view with models at other nodes and models that nobody serves."""
    view = (story or a_story()).core.view
    found: dict[ModelId, tuple[Replica, ...]] = {}
    for replica in replicas:
        found[replica.served.model] = (*found.get(replica.served.model, ()), replica)
    names = NameIndex([*view.local, *found, *(one.model for one in cold)], aliases, versions)
    return replace(
        view, replicas=MappingProxyType(found), cold=MappingProxyType({one.model: one for one in cold}), names=names,
        **facts,
    )  # fmt: skip


def a_cold(model: str = "cold", *, digest: str = ONE, **facts: Any) -> ColdModel:
    """Return a model that nobody serves."""
    return ColdModel(model=ModelId(model), digest=digest, **facts)


def meant(view: MeshView, model: str | None, **facts: Any) -> Any:
    """Return the model that a name means, or the code of its refusal."""
    found = meaning(view, RouteRequest(model=model, **facts))
    if isinstance(found, Refusal):
        return found.code
    return found if isinstance(found, Wait) else found[0]


@pytest.mark.rows("ADR-1", "ADR-11")
def test_cold_models_have_names_as_ready_ones_do() -> None:
    """Exact, alias, stem; whatever the case."""
    view = a_view(cold=(a_cold("Cold-Q4"),), aliases={"nick": [ModelId("Cold-Q4")]})

    assert [meant(view, name) for name in ("Cold-Q4", "cold-q4", "nick", "cold")] == ["Cold-Q4"] * 4
    assert meant(view, "colt") is RefusalCode.MODEL_NOT_FOUND


@pytest.mark.rows("ADR-2", "ADR-3", "T4")
@pytest.mark.parametrize("name", ["default", None, ""])
def test_the_default_is_a_name_and_stays_whoever_has_the_model(name: str | None) -> None:
    """Cold or far away: it does not move to another one that happens to be ready."""
    cold = a_view(a_replica("a", model="ready"), cold=(a_cold(),), default_model=ModelId("cold"))
    far = a_view(a_replica("a", model="ready"), a_replica("b", model="far"), default_model=ModelId("far"))
    alias = a_view(cold=(a_cold(),), aliases={"nick": [ModelId("cold")]}, default_model=ModelId("nick"))

    assert [meant(view, name) for view in (cold, far, alias)] == ["cold", "far", "cold"]


@pytest.mark.rows("ADR-5")
def test_a_default_that_nobody_has_is_refused_by_name() -> None:
    """And one that is not set, with nothing ready anywhere."""
    gone = meaning(a_view(a_replica("a", model="far"), default_model=ModelId("gone")), RouteRequest(model=None))
    none = meaning(a_view(), RouteRequest(model="default"))

    assert isinstance(gone, Refusal)
    assert isinstance(none, Refusal)
    assert gone.code is none.code is RefusalCode.NO_DEFAULT_MODEL
    assert "'gone' is on no node" in gone.message


def test_auto_is_what_answers_now_here_before_elsewhere() -> None:
    """The default before others, the least busy elsewhere, and the default itself when nothing is ready."""
    story = a_story(a_spec("here"), requested=("here",))
    story.tell(ready("here"))
    far = (a_replica("a", model="busy", busy=4), a_replica("b", model="idle"), a_replica("c", model="other", busy=9))

    assert meant(a_view(*far, story=story), "auto") == "here"
    assert meant(a_view(*far), "auto") == "idle"
    assert meant(a_view(*far, default_model=ModelId("other")), "auto") == "other"
    assert meant(a_view(cold=(a_cold(),), default_model=ModelId("cold")), "auto") == "cold"
    assert meant(a_view(), "auto") is RefusalCode.NO_DEFAULT_MODEL


def test_auto_chooses_among_models_that_can_do_it() -> None:
    """Vectors do not come from a chat model."""
    story = a_story(a_spec("chat"), requested=("chat",))
    story.tell(ready("chat"))
    view = a_view(
        a_replica("a", model="more-chat", capabilities=("completion",)),
        a_replica("b", model="vectors", capabilities=("embedding",), busy=3), story=story,
    )  # fmt: skip

    assert meant(view, "auto", needs=Capability.EMBEDDING) == "vectors"


@pytest.mark.rows("REG-10")
def test_an_alias_of_two_models_counts_where_both_are_one_file() -> None:
    """Then the one that answers is meant; else the candidates are told."""
    aliases = {"nick": [ModelId("cold"), ModelId("far")]}
    same = a_view(a_replica("a", model="far", digest=ONE), cold=(a_cold(),), aliases=aliases)
    other = a_view(a_replica("a", model="far", digest=TWO), cold=(a_cold(),), aliases=aliases)
    unhashed = a_view(a_replica("a", model="far", digest=ONE), cold=(a_cold(digest=""),), aliases=aliases)

    found = meaning(other, RouteRequest(model="nick"))

    assert meant(same, "nick") == "far"
    assert isinstance(found, Refusal)
    assert found.message == "the model name 'nick' could mean any of: cold, far"
    assert meant(unhashed, "nick") is RefusalCode.AMBIGUOUS_MODEL
    assert one_file(same, []) is None


@pytest.mark.rows("ADR-12", "REG-10")
def test_a_file_is_named_by_at_least_twelve_digits_of_its_digest() -> None:
    """Among all versions of the name, also where the bare name means another one."""
    versions = (GivenName("foo", "1.1.0", ModelId("foo-new")),)
    view = a_view(a_replica("a", model="foo-new", digest=TWO), cold=(a_cold("foo"),), versions=versions)

    pinned = [meaning(view, RouteRequest(model=f"foo@{digest[:19]}")) for digest in (ONE, TWO)]

    assert meant(view, "foo") == "foo-new"
    assert pinned == [("foo", ONE), ("foo-new", TWO)]
    assert meant(view, f"foo@{ONE[:18]}") is RefusalCode.MODEL_NOT_FOUND
    assert meant(view, f"foo@sha256:{'3' * 12}") is RefusalCode.MODEL_NOT_FOUND
    assert isinstance(meant(replace(view, joining=True), f"foo@sha256:{'3' * 12}"), Wait)


def test_digits_that_two_files_begin_with_are_ambiguous() -> None:
    """It takes one more."""
    first, second = f"sha256:{'1' * 12}a", f"sha256:{'1' * 12}b"
    view = a_view(a_replica("a", model="far", digest=first), a_replica("b", model="far", digest=second))

    assert meant(view, f"far@sha256:{'1' * 12}") is RefusalCode.AMBIGUOUS_MODEL
    assert meant(view, f"far@{first}") == "far"


def test_a_forwarded_request_names_an_id_and_no_version() -> None:
    """The entry node has chosen; the bare id is the file of that id."""
    view = a_view(cold=(a_cold("foo"), a_cold("foo-new", digest=TWO)),
                  versions=(GivenName("foo", "1.1.0", ModelId("foo-new")),))  # fmt: skip

    assert (meant(view, "foo"), meant(view, "foo", is_forwarded=True)) == ("foo-new", "foo")
    assert meaning(view, RouteRequest(model=f"foo@{ONE}", is_forwarded=True)) == ("foo", ONE)
    assert meant(view, f"foo@{TWO}", is_forwarded=True) is RefusalCode.MODEL_NOT_FOUND


def test_an_unknown_name_is_told_at_once_unless_the_node_is_joining() -> None:
    """Only such a refusal lets another model stand in."""
    view = a_view(cold=(a_cold("smollm"),))

    found = meaning(view, RouteRequest(model="smolm"))

    assert found == not_found(view, "smolm", ("smollm",))
    assert isinstance(found, Refusal)
    assert found.is_unknown
    assert isinstance(meant(replace(view, joining=True), "smolm"), Wait)


def test_models_are_ready_that_answer_somewhere() -> None:
    """Sorted, each once."""
    story = a_story(a_spec("here"), a_spec("asleep"), requested=("here",))
    story.tell(ready("here"))
    view = a_view(
        a_replica("a", model="there"), a_replica("a", model="here"),
        a_replica("b", model="loading", state=ServingState.LOADING), story=story,
    )  # fmt: skip

    assert ready_models(view) == ["here", "there"]


def test_a_model_that_the_index_does_not_have_yet_is_found_by_its_id() -> None:
    """What answers is not hidden by a list of names that is a moment old."""
    view = replace(a_view(a_replica("a", model="far")), names=NameIndex(()))

    assert meant(view, "far") == "far"


def test_a_name_is_refused_with_what_was_perhaps_meant() -> None:
    """For whoever resolves names without routing."""
    view = a_view(cold=(a_cold(),))

    unknown = name_refused(view, "x", Unknown("x", ("cold",)))
    ambiguous = name_refused(view, "y", Ambiguous("y", (ModelId("a"), ModelId("b"))))

    assert unknown.message == "the model 'x' does not exist; did you mean cold?"
    assert ambiguous.message == "the model name 'y' could mean any of: a, b"


def test_a_name_that_this_node_wants_and_nobody_has_is_looked_for_first() -> None:
    """What others see is only its wish; whether the name stands for anything, this node finds out."""
    wish = a_cold("user/repo", digest="")
    seeking = a_view(cold=(wish,), requested=("user/repo",))
    in_vain = replace(seeking, unresolved={"user/repo": "no such repository"})
    elsewhere = a_view(cold=(replace(wish, nodes=(NodeId("b"),)),), requested=("user/repo",))

    assert isinstance(meant(seeking, "user/repo"), Wait)
    assert meant(in_vain, "user/repo") is RefusalCode.MODEL_NOT_FOUND
    assert [meant(view, "user/repo") for view in (elsewhere, a_view(cold=(wish,)))] == ["user/repo"] * 2


@pytest.mark.parametrize("name", ["tiny", f"tiny@{ONE}", "default"])
def test_before_the_first_look_no_name_is_unknown(name: str) -> None:
    """The folders come first, then the servers that this node adopts: both may have it."""
    server = RemoteState(name="box", url="http://box", is_up=False, is_awaited=True)
    no_folders, no_server = a_view(has_inventory=False), a_view(remotes=(server,))
    known = a_view(remotes=(replace(server, is_awaited=False),))

    assert [isinstance(meant(view, name), Wait) for view in (no_folders, no_server, known)] == [True, True, False]
    assert "folders" in no_folders.unread
    assert "'box'" in no_server.unread


def test_what_a_peer_says_that_this_node_has_is_not_waited_for() -> None:
    """The peer has other hosts to go to."""
    early = a_view(has_inventory=False)

    assert meant(early, f"tiny@{ONE}", is_forwarded=True) is RefusalCode.MODEL_NOT_FOUND
