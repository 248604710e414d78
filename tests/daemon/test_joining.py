"""A node finds its mesh again, joins the one of its tokens, or founds one; never another one in silence."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.core.announcement import Address
from meshllm.core.ids import MeshId, NodeId, TokenId
from meshllm.core.limits import CERTIFICATE_LIFE_S
from meshllm.core.rights import GUEST, OWN_MACHINE
from meshllm.daemon.errors import BadTokenError, NotJoinedError, StartError
from meshllm.daemon.joining import Newcomer, Place, found, place_of, usable_tokens
from meshllm.daemon.mesh_files import Membership, MeshFiles
from meshllm.transport.certificates import read_certificate
from meshllm.transport.identity import Identity
from meshllm.wire.token import Token, encode_token

NOW = 1_800_000_000.0
MESH, OTHER = MeshId("m" * 51 + "a"), MeshId("o" * 51 + "a")


def a_token(number: int = 1, mesh: MeshId = MESH) -> str:
    """Return a token of a mesh."""
    return encode_token(
        Token(
            mesh=mesh, issuer=NodeId("i" * 51 + "a"), addresses=(Address("192.0.2.7", 4000),),
            token_id=TokenId(f"{number:016x}"), secret=b"s" * 32, rights=GUEST, expires_unix_s=2_000_000_000,
        )
    )  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> MeshFiles:
    """Return an empty state folder."""
    return MeshFiles(tmp_path)


@pytest.fixture
def me() -> Newcomer:
    """Return a node that starts."""
    return Newcomer(identity=Identity.generate(), name="desk", mesh_name="home")


@pytest.mark.rows("CLI-9")
def test_node_without_token_founds_a_mesh_and_finds_it_again(files: MeshFiles, me: Newcomer) -> None:
    """It has all rights there, by a certificate that anybody can check against the mesh's id."""
    first = place_of(files, me, (), NOW)
    again = place_of(files, me, (), NOW + 60)

    assert (first.is_new, again.is_new) == (True, False)
    assert first.membership == again.membership
    assert first.membership is not None
    facts = read_certificate(first.membership.certificate, first.mesh, NOW)
    assert (facts.node, facts.rights, facts.name) == (me.identity.node, OWN_MACHINE, "desk")
    assert first.membership.name == "home"


def test_token_leads_to_its_mesh(files: MeshFiles, me: Newcomer) -> None:
    """Nothing is written down before a member has let the node in."""
    place = place_of(files, me, (a_token(1), a_token(2), f" '{a_token(1)}'\n"), NOW)

    assert (place.mesh, place.membership, len(place.tokens)) == (MESH, None, 2)
    assert place.contacts[0] == (NodeId("i" * 51 + "a"), (Address("192.0.2.7", 4000),))
    assert files.membership() is None


def test_member_keeps_its_mesh_with_or_without_the_token(files: MeshFiles, me: Newcomer) -> None:
    """Restarting with `--join` is harmless."""
    mesh = place_of(files, me, (), NOW).mesh

    place = place_of(files, me, (a_token(mesh=mesh),), NOW)

    assert (place.mesh, place.is_new, len(place.tokens)) == (mesh, False, 1)
    assert place.membership is not None


def test_token_of_another_mesh_is_refused(files: MeshFiles, me: Newcomer) -> None:
    """A node never changes its mesh in silence."""
    place_of(files, me, (), NOW)

    with pytest.raises(BadTokenError, match="this node belongs to") as caught:
        place_of(files, me, (a_token(),), NOW)

    assert caught.value.exit_code == 5


def test_client_needs_a_token_and_leaves_nothing(files: MeshFiles, me: Newcomer) -> None:
    """Also beside a node whose folder it was given."""
    place_of(files, me, (), NOW)
    client = replace(me, is_client=True)

    with pytest.raises(BadTokenError, match="give it a token"):
        place_of(files, client, (), NOW)
    assert place_of(files, client, (a_token(),), NOW) == Place(
        mesh=MESH, membership=None, tokens=usable_tokens((a_token(),))
    )


def test_node_that_must_join_founds_no_mesh(files: MeshFiles, me: Newcomer) -> None:
    """It would belong to that one for good, and the token that comes later would be refused."""
    joiner = replace(me, must_join=True)

    with pytest.raises(NotJoinedError, match="--require-join") as caught:
        place_of(files, joiner, (), NOW)

    assert caught.value.exit_code == 6
    assert files.membership() is None
    assert place_of(files, joiner, (a_token(),), NOW).mesh == MESH


@pytest.mark.rows("MSH-2")
def test_one_good_token_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    """The bad one is said, not shown."""
    damaged = a_token()[:-3] + "aaa"
    with caplog.at_level(logging.WARNING):
        assert len(usable_tokens((damaged, a_token()))) == 1

    assert "one of the tokens cannot be used" in caplog.text
    assert damaged[:30] not in caplog.text


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ((a_token()[:-3] + "aaa",), "damaged"),
        (("",), "empty"),
        (("x" * 1_000_000,), "no token"),
        (("sk-123",), "begins with meshllm1-"),
        (("meshllm9-abc",), "another version"),
        ((a_token(), a_token(mesh=OTHER)), "2 different meshes"),
    ],
)
def test_bad_token_is_told_by_its_reason(texts: tuple[str, ...], words: str) -> None:
    """Exit code 5, one line."""
    with pytest.raises(BadTokenError, match=words):
        usable_tokens(texts)


def test_founder_renews_its_own_certificate(files: MeshFiles, me: Newcomer) -> None:
    """Alone for a month, it is still a member of its mesh."""
    first = place_of(files, me, (), NOW).membership
    assert first is not None

    for later_s in (0.7 * CERTIFICATE_LIFE_S, 3 * CERTIFICATE_LIFE_S):
        place = place_of(files, me, (), NOW + later_s)
        assert place.membership is not None
        assert place.membership.certificate != first.certificate
        read_certificate(place.membership.certificate, place.mesh, NOW + later_s)
        assert files.membership() == place.membership


def test_member_without_a_good_certificate_starts_and_says_so(
    files: MeshFiles, me: Newcomer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its models still serve this machine; a member or a token renews it."""
    membership = replace(found(me, NOW), root_key=b"")
    files.keep_membership(membership)

    with caplog.at_level(logging.WARNING):
        place = place_of(files, me, (), NOW + 2 * CERTIFICATE_LIFE_S)

    assert place.membership == membership
    assert "no longer good" in caplog.text


def test_folder_that_was_half_copied_is_refused(files: MeshFiles, me: Newcomer) -> None:
    """Two nodes with one membership would undo each other."""
    files.keep_membership(replace(found(me, NOW), root_key=b""))

    with pytest.raises(StartError, match="another node"):
        place_of(files, replace(me, identity=Identity.generate()), (), NOW)


def test_damaged_root_key_stops_the_start(files: MeshFiles, me: Newcomer) -> None:
    """The founder could not admit anybody any more, and nobody would know why."""
    files.keep_membership(replace(found(me, NOW), root_key=b"-----BEGIN PRIVATE KEY-----"))

    with pytest.raises(StartError, match="root key"):
        place_of(files, me, (), NOW)


def test_membership_is_what_the_files_keep(files: MeshFiles, me: Newcomer) -> None:
    """Byte for byte."""
    membership: Membership = found(me, NOW)
    files.keep_membership(membership)

    assert files.membership() == membership
