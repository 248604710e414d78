"""The book of tokens: proofs, uses, and two books that become one."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.credentials import TokenRecord
from meshllm.core.ids import NodeId, TokenId
from meshllm.core.limits import TOKEN_LEEWAY_S, TOKEN_USERS, TOKENS
from meshllm.core.members.tokens import TokenBook
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE
from tests.core.members.trusting import ADA, BOB, DAY_S, EVE, NOW_UNIX_S, TOKEN, a_proof, a_token


def test_a_good_proof_finds_its_token() -> None:
    """The secret itself is never needed."""
    assert TokenBook([a_token()]).check(a_proof(), ADA, NOW_UNIX_S) == a_token()


@pytest.mark.parametrize(
    ("record", "proof", "later_s", "reason"),
    [
        (a_token(), a_proof(token=TokenId("0" * 16)), 0.0, "token_unknown"),
        (a_token(), a_proof(b"guessed"), 0.0, "token_wrong_secret"),
        (a_token(), replace(a_proof(), transcript=b"another"), 0.0, "token_wrong_secret"),
        (a_token(), replace(a_proof(), proof=b""), 0.0, "token_wrong_secret"),
        (a_token(is_revoked=True), a_proof(), 0.0, "token_revoked"),
        (a_token(), a_proof(), DAY_S + TOKEN_LEEWAY_S + 1, "token_expired"),
        (a_token(uses=1, used_by=(BOB,)), a_proof(), 0.0, "token_used_up"),
        (a_token(used_by=tuple(NodeId(f"{n:052}") for n in range(TOKEN_USERS))), a_proof(), 0.0, "token_used_up"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_way_to_fail_has_its_word(record: TokenRecord, proof, later_s: float, reason: str) -> None:
    """Who has not proved the secret never gets as far as the others."""
    assert TokenBook([record]).check(proof, ADA, NOW_UNIX_S + later_s) == reason


def test_clocks_may_differ_by_five_minutes() -> None:
    """Expiry is the admin's to tell."""
    late_s = NOW_UNIX_S + DAY_S + TOKEN_LEEWAY_S

    assert isinstance(TokenBook([a_token()]).check(a_proof(), ADA, late_s), TokenRecord)


def test_a_node_counts_once() -> None:
    """Restarting with the same command uses nothing up."""
    book = TokenBook([a_token(uses=1)])

    first, again = book.use(TOKEN, ADA), book.use(TOKEN, ADA)

    assert (first, again) == (a_token(uses=1, used_by=(ADA,)), None)
    assert isinstance(book.check(a_proof(), ADA, NOW_UNIX_S), TokenRecord)
    assert book.check(a_proof(), BOB, NOW_UNIX_S) == "token_used_up"


def test_what_is_left_can_be_shown() -> None:
    """To people, and to whoever asks whether anybody can join."""
    assert a_token().uses_left is None
    assert a_token(uses=3, used_by=(ADA,)).uses_left == 2
    assert a_token(uses=1, used_by=(ADA, BOB)).uses_left == 0
    assert a_token().is_live(NOW_UNIX_S)
    assert not a_token().is_live(NOW_UNIX_S + 2 * DAY_S)
    assert not a_token(is_revoked=True).is_live(NOW_UNIX_S)
    assert not a_token(uses=1, used_by=(ADA,)).is_live(NOW_UNIX_S)


def test_revoking_is_once_and_for_all() -> None:
    """A second time changes nothing."""
    other = TokenId("f" * 16)
    book = TokenBook([a_token(), a_token(token_id=other)])

    revoked = book.revoke(TOKEN)

    assert revoked == a_token(is_revoked=True)
    assert book.revoke(TOKEN) is None
    assert book.revoke(TokenId("9" * 16)) is None
    assert [record.token_id for record in book.revoke_all()] == [other]
    assert book.get(other) == a_token(token_id=other, is_revoked=True)
    assert book.get(TokenId("9" * 16)) is None


def test_the_tokens_that_a_node_has_can_be_revoked() -> None:
    """It could come back under another key."""
    book = TokenBook([a_token(used_by=(EVE,)), a_token(token_id=TokenId("f" * 16), used_by=(ADA,))])

    assert [record.token_id for record in book.revoke_used_by(EVE)] == [TOKEN]


def test_another_admin_gives_no_right_that_it_lacks() -> None:
    """Nor does a later record widen the first."""
    book = TokenBook()

    first = book.merge(a_token(rights=OWN_MACHINE), GUEST)
    later = book.merge(a_token(rights=OWN_MACHINE), OWN_MACHINE)

    assert (first, later) == (a_token(rights=GUEST), None)
    assert TokenBook([a_token(rights=CLIENT_ONLY)]).merge(a_token(rights=GUEST), GUEST) is None


VERSIONS = [
    a_token(), a_token(used_by=(ADA,)), a_token(used_by=(BOB, EVE)), a_token(is_revoked=True),
    a_token(token_id=TokenId("f" * 16)), a_token(token_id=TokenId("f" * 16), used_by=(EVE,)),
]  # fmt: skip


@given(st.lists(st.sampled_from(VERSIONS), max_size=8))
def test_the_order_of_news_does_not_matter(news: list[TokenRecord]) -> None:
    """All admins end with the same book, and say so with one hash."""
    digests = set()
    for order in itertools.islice(itertools.permutations(news), 24):
        book = TokenBook()
        for record in order + order[:2]:
            book.merge(record, OWN_MACHINE)
        digests.add(book.digest())

    assert len(digests) == 1


def test_the_hash_changes_with_whatever_matters() -> None:
    """Otherwise two admins would not notice that they differ."""
    books = [[], [VERSIONS[0]], [VERSIONS[1]], [VERSIONS[3]], [VERSIONS[0], VERSIONS[4]]]

    assert len({TokenBook(records).digest() for records in books}) == len(books)


def test_the_book_is_bounded() -> None:
    """The tokens that end first go first; one that ends before all others is not taken."""
    tokens = [a_token(token_id=TokenId(f"{n:016x}"), expires_unix_s=NOW_UNIX_S + n) for n in range(1, TOKENS + 2)]
    book = TokenBook(tokens)

    early = book.merge(a_token(token_id=TokenId("e" * 16), expires_unix_s=NOW_UNIX_S), OWN_MACHINE)

    assert book.records == tuple(tokens[1:])
    assert early is None


def test_a_record_does_not_show_its_hash() -> None:
    """The journal is shown to people."""
    assert "secret" not in repr(a_token())
    assert "proof=" not in repr(a_proof())
