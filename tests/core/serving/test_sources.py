"""Which peers a file may come from, and which file a name without a package means."""

from dataclasses import replace
from typing import Any

import pytest

from meshllm.core.announcement import Address, Announcement, DiskModel, RequestedModel
from meshllm.core.catalog import ModelReference
from meshllm.core.effects import PeerSource
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE, Rights
from meshllm.core.serving.sources import own_file_reference, sources_of
from tests.core.builders import a_member

SHA, OTHER = "a" * 64, "b" * 64
OWN = ModelId("own")
REFERENCE = ModelReference(id=OWN, repository="u/r", filename="own.gguf", size_bytes=100, sha256=SHA)
ME = NodeId("me")


def a_file(sha256: str = SHA, **changes: Any) -> DiskModel:
    """Return a file on a disk."""
    return replace(DiskModel(model=OWN, digest=f"sha256:{sha256}", size_bytes=100), **changes)


def a_giver(name: str = "n2", *files: DiskModel, **changes: Any) -> Announcement:
    """Return a member that gives files."""
    said = a_member(name, rights=GUEST).announcement
    return replace(said, models_on_disk=files or (a_file(),), bulk_port=4001, **changes)


def test_peers_with_the_very_digest_are_asked_where_they_listen() -> None:
    """At their hosts, on the port of files; whatever they call the model."""
    other_name = a_giver("n3", a_file(model=ModelId("another-name")))

    found = sources_of(REFERENCE, (other_name, a_giver("n2")), ME)

    where = (Address("192.0.2.7", 4001),)
    assert found == (
        PeerSource(node=a_giver("n2").node, name="n2", addresses=where, size_bytes=100),
        PeerSource(node=other_name.node, name="n3", addresses=where, size_bytes=100),
    )  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        a_giver("n2", a_file(OTHER)),
        a_giver("n2", a_file(size_bytes=99)),
        a_giver("n2", a_file(files=2)),
        a_giver("n2", a_file(digest="")),
        replace(a_giver(), bulk_port=0),
        replace(a_giver(), rights=CLIENT_ONLY),
        replace(a_giver(), left=True),
        replace(a_giver(), node=ME),
    ],
    ids=["another digest", "another size", "a set", "not hashed", "no port", "no right", "has left", "this node"],
)
def test_nobody_else_is_asked(said: Announcement) -> None:
    """A digest that is announced by somebody who gives files, and nothing less."""
    assert sources_of(REFERENCE, (said,), ME) == ()


def test_without_a_digest_no_peer_is_asked() -> None:
    """Nothing could be verified then; neither for a set, whose digest is none of its files'."""
    members = (a_giver(),)

    assert sources_of(replace(REFERENCE, sha256=""), members, ME) == ()
    assert sources_of(replace(REFERENCE, filename="own-00001-of-00002.gguf"), members, ME) == ()


def of(
    files: dict[str, DiskModel], *, rights: dict[str, Rights] | None = None, wishes: tuple[str, ...] = (),
    model: ModelId = OWN,
) -> str | None:  # fmt: skip
    """Return the digest that a name means."""
    givers = {NodeId(node): (rights or {}).get(node, GUEST) for node in files}
    wanted = [RequestedModel(name=OWN, model=OWN, digest=f"sha256:{digest}") for digest in wishes]
    found = own_file_reference(model, {NodeId(node): file for node, file in files.items()}, wanted, givers)
    return None if found is None else found.sha256


def test_one_file_of_a_name_is_what_the_name_means() -> None:
    """With everything that a download needs, and no package."""
    found = own_file_reference(OWN, {NodeId("n2"): a_file()}, (), {NodeId("n2"): GUEST})

    assert found == ModelReference(
        id=OWN, repository="", filename="own.gguf", size_bytes=100, sha256=SHA, asked_as="own"
    )


def test_two_files_of_one_name_mean_nothing() -> None:
    """Nobody guesses."""
    assert of({"n2": a_file(), "n3": a_file(OTHER)}) is None


def test_whoever_wants_the_model_says_which_file() -> None:
    """Its digest is in the wish."""
    assert of({"n2": a_file(), "n3": a_file(OTHER)}, wishes=(OTHER,)) == OTHER


def test_the_machines_of_the_mesh_count_before_guests() -> None:
    """A guest with another file of that name changes nothing."""
    assert of({"n2": a_file(), "n3": a_file(OTHER)}, rights={"n2": OWN_MACHINE}) == SHA


@pytest.mark.parametrize("name", ["../own", "a/b", "a\\b", ".own", "own-00001-of-00002"])
def test_a_name_that_is_no_file_name_is_nothing(name: str) -> None:
    """What a peer calls its model never leads out of the folder."""
    assert of({"n2": a_file()}, model=ModelId(name)) is None


def test_a_file_of_somebody_who_gives_none_is_nothing() -> None:
    """It may announce it all the same."""
    assert own_file_reference(OWN, {NodeId("n2"): a_file()}, (), {}) is None
