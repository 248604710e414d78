"""What happens in the mesh is told once, to people."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.cli.mesh_news import MeshNews
from meshllm.core.view import Member, MeshView
from tests.core.builders import a_member, a_story

ALONE = a_story().core.view


def a_view(*members: Member) -> MeshView:
    """Return a view with these other members."""
    others = {member.announcement.node: member for member in members}
    return replace(ALONE, members=MappingProxyType({**ALONE.members, **others}))


@pytest.fixture
def lines() -> list[str]:
    """Return where the lines go."""
    return []


@pytest.fixture
def news(lines: list[str]) -> MeshNews:
    """Return the teller."""
    return MeshNews(lines.append)


def test_node_alone_has_no_news(news: MeshNews, lines: list[str]) -> None:
    """Being alone is no event."""
    news.tell(ALONE)

    assert lines == []


def test_first_sight_of_the_mesh_is_one_line(news: MeshNews, lines: list[str]) -> None:
    """Who is here and what they serve; those that are gone are not counted."""
    news.tell(a_view(a_member("desk", models=("big",)), a_member("shed"), a_member("attic", state="dead")))
    news.tell(a_view(a_member("desk", models=("big",)), a_member("shed"), a_member("attic", state="dead")))

    assert lines == ["mesh:     joined, with desk, shed; they serve big"]


def test_large_mesh_is_not_listed_in_full(news: MeshNews, lines: list[str]) -> None:
    """One line has to stay one."""
    news.tell(a_view(*(a_member(f"node{letter}") for letter in "abcdefghijkl")))

    assert lines[0].endswith("nodeg, nodeh and 4 more")


def test_changes_are_told_and_doubt_is_not(news: MeshNews, lines: list[str]) -> None:
    """Most members in doubt are back at once."""
    desk = a_member("desk")
    news.tell(a_view(desk))
    lines.clear()

    for state, why in (
        ("suspect", ""),
        ("alive", ""),
        ("suspect", ""),
        ("dead", "no answer"),
        ("alive", ""),
        ("left", ""),
    ):
        news.tell(a_view(replace(desk, state=state, why=why)))
    news.tell(a_view(replace(desk, state="left"), a_member("shed", models=("big",))))

    assert lines == [
        "mesh:     desk (desk2222) is not reached any more: no answer",
        "mesh:     desk (desk2222) is here",
        "mesh:     desk (desk2222) has left",
        "mesh:     shed (shed2222) is here, serves big",
    ]
