"""The names of the whole mesh, and how rarely their index is made."""

from dataclasses import replace

import pytest

from meshllm.core.announcement import Announcement, DiskModel, NamedModel, RequestedModel, Role
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import Ambiguous, NameIndex, Unknown
from meshllm.core.serving.naming import Naming
from tests.core.routing.test_replicas import a_served

A, B = NodeId("a"), NodeId("b")


def says(*disk: str, **fields: object) -> Announcement:
    """Return what a node says that has these models on its disk."""
    models = tuple(DiskModel(model=ModelId(model), digest=f"sha256:{model}", size_bytes=1) for model in disk)
    facts = {"incarnation": 1, "version": 1, "role": Role.WORKER, "resources": None, "models_on_disk": models}
    return Announcement(node=A, name="a", **{**facts, **fields})


@pytest.mark.rows("ADR-1", "ADR-6")
def test_everything_that_members_have_serve_want_or_name_has_a_name() -> None:
    """Requests for all of it are answered from anywhere."""
    naming = Naming()
    naming.hear(A, says(
        "SmolLM2-135M-Instruct.Q4_1", serving=(a_served("served"),),
        requested=(RequestedModel(name="user/repo:Q4", model=ModelId("wanted")), RequestedModel(name="nowhere")),
        names=(NamedModel(name="nick", model=ModelId("served")), NamedModel(name="auto", model=ModelId("served"))),
    ))  # fmt: skip

    index = naming.index(NameIndex([ModelId("mine")]))

    names = ("mine", "smollm2-135m", "served", "SERVED", "wanted", "user/repo:Q4", "nick")
    found = [index.resolve(name) for name in names]
    assert found == ["mine", "SmolLM2-135M-Instruct.Q4_1", "served", "served", "wanted", "wanted", "served"]
    assert [type(index.resolve(name)) for name in ("nowhere", "auto")] == [Unknown, Unknown]


@pytest.mark.rows("ADR-12", "REG-10")
def test_versions_that_members_registered_are_names() -> None:
    """A bare id means the stable one, and without that the highest."""
    old, new = (
        NamedModel(name="foo", version=version, model=ModelId(f"foo-{version}")) for version in ("1.9.0", "1.10.0")
    )
    naming = Naming()
    naming.hear(A, says("foo-1.9.0", names=(old,)))
    naming.hear(B, says("foo-1.10.0", names=(new,)))
    highest = naming.index(NameIndex(())).resolve("foo")

    naming.hear(A, says("foo-1.9.0", names=(old, replace(old, name="foo@stable"))))
    index = naming.index(NameIndex(()))

    assert highest == "foo-1.10.0"
    assert [index.resolve(name) for name in ("foo", "FOO@stable", "foo@1.9.0", "foo@1.10.0")] == [
        "foo-1.9.0", "foo-1.9.0", "foo-1.9.0", "foo-1.10.0",
    ]  # fmt: skip
    assert isinstance(index.resolve("foo@1.2.0"), Unknown)


def test_names_go_with_the_last_who_gives_them() -> None:
    """One of two that leave takes nothing away."""
    naming, local = Naming(), NameIndex(())
    for node in (A, B):
        naming.hear(node, says("tiny"))

    naming.hear(A, None)
    one_left = naming.index(local).resolve("tiny")
    naming.hear(B, None)
    naming.hear(B, None)

    assert one_left == "tiny"
    assert isinstance(naming.index(local).resolve("tiny"), Unknown)


def test_an_index_is_made_only_when_the_names_differ() -> None:
    """A mesh of two hundred speaks all the time, and seldom of another model."""
    naming, local = Naming(), NameIndex(())
    naming.hear(A, says("tiny"))
    index = naming.index(local)

    naming.hear(A, says("tiny", version=2, load=0.5))
    naming.hear(A, says("tiny", serving=(a_served("tiny"),)))
    naming.hear(B, says("tiny"))
    naming.hear(B, None)
    same = naming.index(local)
    naming.hear(B, says("other"))

    assert same is index
    assert naming.index(local) is not index
    assert naming.index(NameIndex([ModelId("mine")])).resolve("mine") == "mine"


def test_one_alias_for_two_models_is_ambiguous_here() -> None:
    """Whether they are one file, their digests say: `meaning` asks them."""
    naming = Naming()
    naming.hear(A, says("one", names=(NamedModel(name="nick", model=ModelId("one")),)))
    naming.hear(B, says("two", names=(NamedModel(name="nick", model=ModelId("two")),)))

    assert naming.index(NameIndex(())).resolve("nick") == Ambiguous("nick", (ModelId("one"), ModelId("two")))
