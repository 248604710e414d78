"""One version of a name is one file, wherever it lies."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import Announcement, DiskModel, NamedModel, Role, ServedModel
from meshllm.core.effects import StartEngine
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Intent, Verb
from meshllm.core.policy import ModelPolicy
from meshllm.core.registration import Registration, RegistryNotes
from meshllm.core.serving.registry import (
    check_name,
    conflict,
    names_said,
    registered_names,
    versions_of,
    with_registration,
)
from meshllm.core.standing import MemberState
from meshllm.core.view import Member, MeshView
from tests.core.builders import a_spec, a_story

OLD, NEW = "foo-v1", "foo-v2"


def an_entry(version: str = "1.0.0", model: str = OLD, *, name: str = "foo", **changes: object) -> Registration:
    """Return a version of `foo`, by default of the file `foo-v1`."""
    facts = {
        "name": name, "version": version, "model": ModelId(model), "digest": f"sha256:{model}",
        "path": f"/models/{model}.gguf", "size_bytes": 1, "registered_unix_s": 5.0,
    }  # fmt: skip
    return Registration(**facts | changes)


def a_node(
    node: str, *files: str, names: tuple[NamedModel, ...] = (), state: MemberState = MemberState.ALIVE
) -> Member:
    """Return a member with these files."""
    said = Announcement(
        node=NodeId(node), name=node, incarnation=1, version=1, role=Role.WORKER, resources=None, names=names,
        models_on_disk=tuple(
            DiskModel(model=ModelId(file), digest=f"sha256:{file}", size_bytes=9) for file in files
        ),
    )  # fmt: skip
    return Member(announcement=said, state=state, since_s=0.0)


def named(model: str, version: str, name: str = "foo") -> NamedModel:
    """Return what a node says of a version."""
    return NamedModel(name=name, model=ModelId(model), version=version, registered_unix_s=7.0)


def a_view(*entries: Registration, members: tuple[Member, ...] = ()) -> MeshView:
    """Return the view of a node with the files `foo-v1` and `foo-v2`, and these registrations."""
    story = a_story(a_spec(OLD), a_spec(NEW), min_unasked_bytes=10**12)
    story.tell(ev.RegistryChanged(entries=entries))
    view = story.core.view
    known = {**view.members, **{member.announcement.node: member for member in members}}
    return replace(view, members=MappingProxyType(known))


@pytest.mark.rows("REG-6", "REG-7")
@pytest.mark.parametrize(
    ("name", "version", "alias", "code"),
    [
        ("foo", "1.0.0", "", None), ("user/foo:Q4", "1.0.0", "stable", None),
        ("default", "1.0.0", "", "reserved_name"), ("AUTO", "1.0.0", "", "reserved_name"),
        ("register", "1.0.0", "", "reserved_name"), ("unload", "1.0.0", "", "reserved_name"),
        ("", "1.0.0", "", "invalid_value"), ("a@b", "1.0.0", "", "invalid_value"), ("/a", "1.0.0", "", "invalid_value"),
        ("a\nb", "1.0.0", "", "invalid_value"), ("a" * 256, "1.0.0", "", "invalid_value"),
        ("a" * 250, "1.0.0", "stable", "invalid_value"),
        ("foo", "1.0", "", "invalid_version"), ("foo", "latest", "", "invalid_version"),
        ("foo", "1.0.0", "not stable", "invalid_value"), ("foo", "1.0.0", "1.0.0", "invalid_value"),
    ],
)  # fmt: skip
def test_words_of_a_registration_are_checked(name: str, version: str, alias: str, code: str | None) -> None:
    """Reserved words never name a model; a version is three numbers."""
    found = check_name(name, version, alias)

    assert (found.code if found is not None else None) == code


@pytest.mark.rows("REG-6", "REG-9")
def test_a_version_is_one_file_here_and_elsewhere() -> None:
    """409 with where the other one is; the same file again, and another version, are fine."""
    elsewhere = a_node("b" * 52, "other", names=(named("other", "2.0.0"),))
    dead = a_node("c" * 52, "other", names=(named("other", "3.0.0"),), state=MemberState.DEAD)
    unhashed = replace(elsewhere.announcement, node=NodeId("d" * 52), names=(named("gone", "4.0.0"),))
    mine = (an_entry(),)
    view = a_view(*mine, members=(elsewhere, dead, replace(dead, announcement=unhashed, state=MemberState.ALIVE)))

    def code(new: Registration) -> str:
        found = conflict(view, mine, new)
        return found.code if found is not None else ""

    assert code(an_entry()) == ""
    assert code(an_entry("1.1.0", NEW)) == ""
    assert code(an_entry("1.0.0", NEW)) == "version_conflict"
    assert code(an_entry("2.0.0", NEW)) == "version_conflict"
    assert code(an_entry("3.0.0", NEW)) == ""
    assert code(an_entry("4.0.0", NEW)) == ""
    found = conflict(view, mine, an_entry("2.0.0", NEW))
    assert found is not None
    assert "b" * 52 in found.message


@pytest.mark.rows("REG-6")
def test_a_file_of_that_name_is_the_first_version_unless_another_was_registered() -> None:
    """Two files would answer to one name and version."""
    view = a_view()

    clash = conflict(view, (), an_entry("1.0.0", NEW, name=OLD))

    assert clash is not None
    assert conflict(view, (), an_entry("1.0.0", OLD, name=OLD)) is None
    assert conflict(view, (), an_entry("1.1.0", NEW, name=OLD)) is None


@pytest.mark.rows("REG-9")
def test_an_alias_moves_to_the_version_that_takes_it() -> None:
    """`stable` is one version; registering the same version again keeps its aliases."""
    first = with_registration((an_entry("9.0.0", name="bar", aliases=("stable",)),), an_entry(aliases=("stable",)))
    second = with_registration(first, an_entry("1.1.0", NEW, aliases=("stable",)))
    third = with_registration(second, an_entry("1.1.0", NEW, aliases=("canary",)))

    assert [(one.name, one.version, one.aliases) for one in third] == [
        ("bar", "9.0.0", ("stable",)), ("foo", "1.0.0", ()), ("foo", "1.1.0", ("stable", "canary")),
    ]  # fmt: skip


@pytest.mark.rows("REG-9")
def test_names_are_told_of_files_that_are_there_and_unchanged() -> None:
    """Configured aliases and versions; another file in the place is another model."""
    on_disk = {ModelId(OLD): a_spec(OLD), ModelId(NEW): a_spec(NEW)}
    policies = {
        ModelId(OLD): ModelPolicy(name=OLD, aliases=("nick",)),
        ModelId("gone"): ModelPolicy(name="gone", aliases=("x",)),
    }  # fmt: skip
    mine = (
        an_entry(aliases=("stable",)), an_entry("1.1.0", NEW, digest="sha256:before"), an_entry("2.0.0", "gone"),
    )  # fmt: skip

    said = names_said(policies, mine, on_disk)

    assert [(one.name, one.version) for one in said] == [("foo", "1.0.0"), ("foo@stable", "1.0.0"), ("nick", "")]
    assert {one.model for one in said} == {OLD}
    renamed = names_said({}, (an_entry("1.0.0", "before", digest=f"sha256:{NEW}"),), on_disk)
    assert [(one.name, one.model) for one in renamed] == [("foo", NEW)]


@pytest.mark.rows("REG-8")
def test_versions_of_the_whole_mesh_are_the_newest_first() -> None:
    """With the nodes that have each file, those that say nothing of it too."""
    there = a_node("b" * 52, "foo-x", "foo-v2", names=(named("foo-x", "1.10.0"), named("foo-x", "1.10.0", "foo@next")))
    mine = (an_entry(aliases=("stable",)), an_entry("1.2.0", NEW))
    view = a_view(*mine, members=(there, a_node("c" * 52, "foo-v1", state=MemberState.DEAD)))
    me, other = view.me.node, NodeId("b" * 52)

    found = versions_of(view, "foo")

    assert [(one.version, one.model, one.nodes, one.aliases) for one in found] == [
        ("1.10.0", "foo-x", (other,), ("next",)), ("1.2.0", NEW, (me, other), ()), ("1.0.0", OLD, (me,), ("stable",)),
    ]  # fmt: skip
    assert [one.mine for one in found] == [None, mine[1], mine[0]]
    assert found[0].registered_unix_s == 7.0
    assert registered_names(view, ModelId(NEW)) == ("foo",)


@pytest.mark.rows("REG-7", "REG-9")
def test_a_model_that_nobody_registered_has_its_first_version() -> None:
    """And two different files of one id are two entries of it, told apart by their digests."""
    other = a_node("b" * 52, OLD)
    said = replace(
        other.announcement, models_on_disk=(DiskModel(model=ModelId(OLD), digest="sha256:else", size_bytes=3),),
        serving=(ServedModel(model=ModelId("hot"), digest="sha256:hot", state="ready"),),
    )  # fmt: skip
    view = a_view(members=(replace(other, announcement=said),))

    assert [(one.version, one.digest) for one in versions_of(view, OLD)] == [
        ("1.0.0", f"sha256:{OLD}"), ("1.0.0", "sha256:else"),
    ]  # fmt: skip
    assert [one.version for one in versions_of(view, "hot")] == ["1.0.0"]
    assert versions_of(view, "nothing") == ()


@pytest.mark.rows("REG-14")
def test_what_was_registered_with_a_version_holds_for_requests_that_say_nothing() -> None:
    """As its engine's defaults from the next load on; what the configuration says of the model wins."""
    older = an_entry("1.0.0", notes=RegistryNotes(temperature=0.9))
    newer = an_entry("1.1.0", registered_unix_s=6.0, notes=RegistryNotes(temperature=0.2, max_tokens=7, source="hub"))
    elsewhere = an_entry("2.0.0", NEW, notes=RegistryNotes(temperature=0.7))

    def arguments(*policies: ModelPolicy) -> tuple[str, ...]:
        story = a_story(a_spec(OLD), a_spec(NEW), policies=policies, min_unasked_bytes=10**12)
        story.tell(ev.RegistryChanged(entries=(older, newer, elsewhere)))
        story.tell(ev.IntentReceived(intent=Intent(verb=Verb.LOAD, model=OLD, request_id="r", scope="node")))
        started = [effect for effect in story.effects if isinstance(effect, StartEngine)]
        return started[-1].plan.options.arguments

    assert arguments() == ("--temp", "0.2", "--predict", "7")
    assert arguments(ModelPolicy(name=OLD, temperature=0.0)) == ("--temp", "0.0", "--predict", "7")
