"""Verdicts on claims, and patience with networks (O1)."""

from dataclasses import replace

import pytest

from meshllm.core.announcement import Address
from meshllm.core.limits import ADMISSION_FAILURES, ADMISSION_NETWORKS, ADMISSION_SILENCE_S
from meshllm.core.members.admission import Admitted, Failures, is_renewal_due, judge, network_of
from meshllm.core.members.tokens import TokenBook
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE, Rights
from tests.core.members.trusting import (
    ADA,
    DAY_S,
    EVE,
    HERE,
    NOW_UNIX_S,
    TOKEN,
    a_certificate,
    a_claim,
    a_proof,
    a_token,
)


def verdict(claim, *, mine: Rights = OWN_MACHINE, tokens=(), revoked=(), later_s: float = 0.0) -> Admitted | str:
    """Judge a claim."""
    return judge(claim, mine=mine, book=TokenBook(tokens), revoked=revoked, now_unix_s=NOW_UNIX_S + later_s)


def test_a_member_comes_in_with_its_rights() -> None:
    """Whoever asks: also a guest or a client lets members in."""
    claim = a_claim(certificate=a_certificate())

    assert verdict(claim) == verdict(claim, mine=CLIENT_ONLY) == Admitted(rights=GUEST)


def test_a_stranger_with_a_token_gets_a_certificate() -> None:
    """With the token's rights."""
    claim = a_claim(token_proof=a_proof())

    assert verdict(claim, tokens=[a_token()]) == Admitted(rights=GUEST, issues=True, uses=TOKEN)


def test_an_admin_gives_no_right_that_it_lacks() -> None:
    """Whatever the token says."""
    mine = CLIENT_ONLY | Rights.ADMIN

    assert verdict(a_claim(token_proof=a_proof()), mine=mine, tokens=[a_token()]) == Admitted(
        rights=CLIENT_ONLY, issues=True, uses=TOKEN
    )
    assert verdict(a_claim(token_proof=a_proof()), mine=Rights.ADMIN, tokens=[a_token()]) == "token_without_rights"


@pytest.mark.parametrize(
    ("claim", "options", "reason"),
    [
        (a_claim(), {}, "no_credential"),
        (a_claim(certificate_problem="the certificate has expired"), {}, "the certificate has expired"),
        (a_claim(EVE, certificate=a_certificate(EVE)), {"revoked": {EVE}}, "node_revoked"),
        (a_claim(EVE, token_proof=a_proof()), {"revoked": {EVE}, "tokens": [a_token()]}, "node_revoked"),
        (a_claim(certificate=a_certificate(by=(ADA, EVE))), {"revoked": {EVE}}, "issuer_revoked"),
        (a_claim(token_proof=a_proof()), {}, "token_unknown"),
        (a_claim(token_proof=a_proof(b"no")), {"tokens": [a_token()]}, "token_wrong_secret"),
        (a_claim(token_proof=a_proof()), {"tokens": [a_token()], "later_s": 2 * DAY_S}, "token_expired"),
        (a_claim(token_proof=a_proof()), {"tokens": [a_token(is_revoked=True)]}, "token_revoked"),
        (a_claim(token_proof=a_proof()), {"tokens": [a_token(uses=1, used_by=(EVE,))]}, "token_used_up"),
        (a_claim(token_proof=a_proof()), {"tokens": [a_token()], "mine": GUEST}, "not_an_admin"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_reason_has_its_word(claim, options: dict[str, object], reason: str) -> None:
    """For the local log; outside there is one code."""
    assert verdict(claim, **options) == reason


def test_a_bad_token_beside_a_good_certificate_does_no_harm() -> None:
    """People restart a node with the command that they joined by, weeks later."""
    claim = a_claim(certificate=a_certificate(), token_proof=a_proof())

    assert verdict(claim) == Admitted(rights=GUEST)
    assert verdict(claim, tokens=[a_token(is_revoked=True)]) == Admitted(rights=GUEST)


def test_a_token_that_gives_nothing_new_is_not_used() -> None:
    """Uses are for those who need them."""
    claim = a_claim(certificate=a_certificate(), token_proof=a_proof())

    assert verdict(claim, tokens=[a_token(uses=1)]) == Admitted(rights=GUEST)


def test_a_token_can_widen_the_rights_of_a_member() -> None:
    """A guest becomes one of one's own machines."""
    claim = a_claim(certificate=a_certificate(rights=CLIENT_ONLY), token_proof=a_proof())

    assert verdict(claim, tokens=[a_token()]) == Admitted(rights=GUEST, issues=True, uses=TOKEN)


def test_an_admin_with_fewer_rights_than_the_member_leaves_its_certificate_alone() -> None:
    """It could only give it a narrower one."""
    held = a_certificate(rights=GUEST | Rights.RPC, age_s=25 * DAY_S)
    wide = a_token(rights=OWN_MACHINE)

    found = verdict(a_claim(certificate=held, token_proof=a_proof()), mine=GUEST | Rights.ADMIN, tokens=[wide])

    assert found == Admitted(rights=GUEST | Rights.RPC)


def test_who_was_admitted_by_an_expelled_admin_can_join_again() -> None:
    """With a token of somebody else."""
    claim = a_claim(certificate=a_certificate(by=(EVE,)), token_proof=a_proof())

    assert verdict(claim, tokens=[a_token()], revoked={EVE}) == Admitted(rights=GUEST, issues=True, uses=TOKEN)


@pytest.mark.parametrize(("age_days", "is_due"), [(0, False), (19, False), (20, True), (29, True)])
def test_a_certificate_is_renewed_after_two_thirds_of_its_life(age_days: int, is_due: bool) -> None:
    """By any admin that it meets."""
    held = a_certificate(age_s=age_days * DAY_S)

    assert is_renewal_due(held, NOW_UNIX_S) == is_due
    assert verdict(a_claim(certificate=held)) == Admitted(rights=GUEST, issues=is_due)
    assert verdict(a_claim(certificate=held), mine=GUEST) == Admitted(rights=GUEST)


# -- patience ------------------------------------------------------------------------------------------


def failing(failures: Failures, count: int, address: Address = HERE, since_s: float = 0.0) -> list[bool]:
    """Fail once a second."""
    return [failures.note(address, since_s + n) for n in range(count)]


def test_after_ten_failures_in_a_minute_there_is_silence_for_a_minute() -> None:
    """And it is told once."""
    failures = Failures()

    told = failing(failures, ADMISSION_FAILURES)

    assert told == [False] * 9 + [True]
    assert failures.is_silent(HERE, 9.5)
    assert failures.is_silent(HERE, 8.9 + ADMISSION_SILENCE_S)
    assert not failures.is_silent(HERE, 9.0 + ADMISSION_SILENCE_S)
    assert failing(failures, 1, since_s=10.0) == [False]


def test_nine_failures_or_ten_slow_ones_are_borne() -> None:
    """People mistype."""
    failures, slow = Failures(), Failures()

    failing(failures, ADMISSION_FAILURES - 1)
    for n in range(30):
        slow.note(HERE, n * 7.0)

    assert not failures.is_silent(HERE, 10.0)
    assert not slow.is_silent(HERE, 210.0)


def test_neighbours_share_their_network_s_silence_and_others_do_not() -> None:
    """Addresses within a network are free to choose."""
    failures = Failures()

    failing(failures, 10)

    assert failures.is_silent(Address("192.0.2.250", 1), 10.0)
    assert not failures.is_silent(Address("192.0.3.7", 4000), 10.0)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.0/24"), ("::ffff:192.0.2.7", "192.0.2.0/24"), ("127.0.0.1", "127.0.0.0/24"),
        ("2001:db8:1:2ff::7", "2001:db8:1:200::/56"), ("::1", "::/56"), ("fe80::1%eth0", "fe80::/56"), ("x", "x"),
    ],
)  # fmt: skip
def test_networks(host: str, network: str) -> None:
    """As subscribers have them."""
    assert network_of(Address(host, 1)) == network


def test_the_networks_that_are_watched_are_bounded() -> None:
    """The one that failed longest ago is forgotten."""
    failures = Failures()
    failing(failures, 9)

    for n in range(ADMISSION_NETWORKS):
        failures.note(replace(HERE, host=f"10.{n >> 8}.{n & 255}.1"), 9.0)

    assert not failures.note(HERE, 9.0)
