"""Whom an order is for, and what several answers come to."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Outcome, OutcomeCode, Verb
from meshllm.core.rights import GUEST
from meshllm.core.serving import scopes
from meshllm.core.view import MeshView
from tests.core.builders import a_member, a_spec, a_story
from tests.core.members.builders import an_announcement

TINY = ModelId("tiny")


def a_view(*others: str, **more: object) -> MeshView:
    """Return the view of a node in a mesh with some others."""
    view = a_story(a_spec()).core.view
    members = {member.announcement.node: member for member in (a_member(name, **more) for name in others)}
    return replace(view, members=MappingProxyType({**view.members, **members}))


def test_the_usual_scope_is_the_mesh_for_those_who_may_order_it() -> None:
    """Everybody else changes only what is theirs."""
    view = a_view()

    assert scopes.usual_scope(view) == "mesh"
    assert scopes.usual_scope(replace(view, me=an_announcement("a", rights=GUEST))) == "node"


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("studio", "studio".ljust(52, "2")), ("stud", "studio".ljust(52, "2")),
        ("studio".ljust(52, "2"), "studio".ljust(52, "2")), ("a", "a" * 32), ("aaaa", "a" * 32),
    ],
)  # fmt: skip
def test_a_node_is_named_by_id_beginning_or_name(scope: str, found: str) -> None:
    """As people do."""
    assert scopes.find_node(a_view("studio", "laptop"), scope) == found


@pytest.mark.parametrize(
    ("scope", "why"),
    [("stu", "no node of the mesh is called"), ("nobody", "no node of"), ("stud", "could mean any of")],
)
def test_a_scope_that_names_no_node_or_several_says_why(scope: str, why: str) -> None:
    """Three characters are too few to mean somebody."""
    assert why in scopes.find_node(a_view("studio", "student"), scope)


def test_the_dead_are_not_ordered_about() -> None:
    """Their ids are still known."""
    assert "no node" in scopes.find_node(a_view("studio", state="dead"), "studio")


def outcome(code: str) -> Outcome:
    """Return an outcome with its code as its words."""
    return Outcome(code=OutcomeCode(code), message=code, model="tiny")


@pytest.mark.parametrize(
    ("verb", "codes", "expected"),
    [
        (Verb.UNLOAD, ("done", "not_served", "unknown_model", "leaving"), "done"), (Verb.UNLOAD, (), "done"),
        (Verb.UNLOAD, ("done", "unreachable", "superseded"), "unreachable"),
        (Verb.UNLOAD, ("not_allowed", "unreachable", "done"), "not_allowed"),
        (Verb.UNLOAD, ("done", "not_loadable", "not_allowed"), "not_loadable"),
        (Verb.DROP, ("not_served", "done"), "done"), (Verb.DROP, ("not_served", "unknown_model"), "not_served"),
    ],
)  # fmt: skip
def test_the_worst_outcome_counts(verb: Verb, codes: tuple[str, ...], expected: str) -> None:
    """What is not there need not be taken away."""
    outcomes = {NodeId(f"n{number}"): outcome(code) for number, code in enumerate(codes)}

    assert scopes.combined(a_view(), verb, TINY, outcomes).code == expected


def test_every_code_has_its_place_among_the_outcomes() -> None:
    """A code without one would raise where it is least expected."""
    for code in OutcomeCode:
        scopes.combined(a_view(), Verb.LOAD, TINY, {NodeId("x"): outcome(code), NodeId("y"): outcome("done")})


def test_the_message_names_those_who_did_and_those_who_did_not() -> None:
    """With enough of their ids to find them."""
    view = a_view("studio", "laptop")
    studio, laptop = (NodeId(name.ljust(52, "2")) for name in ("studio", "laptop"))

    found = scopes.combined(view, Verb.UNLOAD, TINY, {studio: outcome("done"), laptop: outcome("unreachable")})

    assert found.message == "tiny is unloaded at studio (studio22); laptop (laptop22): unreachable"
