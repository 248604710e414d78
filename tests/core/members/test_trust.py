"""Trust as a whole: admissions, tokens among admins, and expelled nodes."""

import pytest

from meshllm.core import events as ev
from meshllm.core.credentials import RejectCode, Revocation
from meshllm.core.effects import Admit, Effect, KeepTrust, Level, Notify, Refuse, Send
from meshllm.core.ids import ConnectionId, NodeId, TokenId
from meshllm.core.limits import FALLEN_MEMBERS, REVOCATIONS, REVOCATIONS_BATCH
from meshllm.core.members.trust import Trust
from meshllm.core.messages import Message, Ping, Revocations, Tokens, TrustDigest
from meshllm.core.rights import GUEST, OWN_MACHINE, Rights
from tests.core.members.trusting import (
    ADA,
    BOB,
    DAY_S,
    EVE,
    HERE,
    ME,
    NOW_UNIX_S,
    TOKEN,
    a_certificate,
    a_claim,
    a_proof,
    a_revocation,
    a_token,
    asked,
    connected,
)


def a_trust(rights: Rights = OWN_MACHINE, *, peers: dict[NodeId, Rights] | None = None, **known: object) -> Trust:
    """Return a node's trust, with some connected peers."""
    trust = Trust(ME, rights, **known)
    for peer, theirs in (peers or {}).items():
        trust.handle(connected(peer, theirs), 0.0)
    return trust


def of(effects: list[Effect], kind: type) -> list:
    """Return the effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def said(trust: Trust, sender: NodeId, message: Message, now_s: float = 0.0) -> list[Effect]:
    """Return what follows from a peer's message."""
    event = ev.MessageReceived(peer=sender, connection=ConnectionId(1), message=message)
    return trust.handle(event, now_s)


def sends(effects: list[Effect]) -> list[tuple[NodeId, Message]]:
    """Return what is said to whom."""
    return [(effect.peer, effect.message) for effect in of(effects, Send)]


# -- admission -----------------------------------------------------------------------------------------


def test_a_member_is_admitted() -> None:
    """With the rights of its certificate, and nothing to write down."""
    effects = a_trust().handle(asked(a_claim(certificate=a_certificate())), 0.0)

    assert effects == [Admit(ticket=7, rights=GUEST)]


def test_a_join_is_counted_kept_and_told_to_other_admins() -> None:
    """So that a token for one node admits one, whoever it asks."""
    trust = a_trust(tokens=[a_token(uses=1)], peers={BOB: OWN_MACHINE, EVE: GUEST})
    used = a_token(uses=1, used_by=(ADA,))

    effects = trust.handle(asked(a_claim(token_proof=a_proof())), 0.0)
    second = trust.handle(asked(a_claim(BOB, token_proof=a_proof())), 0.0)

    assert effects[0] == Admit(ticket=7, rights=GUEST, issues=True)
    assert of(effects, KeepTrust) == [KeepTrust(tokens=(used,), revocations=())]
    assert sends(effects) == [(BOB, Tokens(records=(used,)))]
    assert of(second, Refuse) == [Refuse(ticket=7, code=RejectCode.UNAUTHORIZED, reason="token_used_up")]


def test_a_refusal_says_one_code_outside_and_the_reason_in_the_log() -> None:
    """Rejects do not tell which part failed."""
    effects = a_trust().handle(asked(a_claim(token_proof=a_proof())), 0.0)

    assert of(effects, Refuse) == [Refuse(ticket=7, code=RejectCode.UNAUTHORIZED, reason="token_unknown")]
    (notice,) = of(effects, Notify)
    assert (notice.level, dict(notice.fields)["reason"]) == (Level.WARNING, "token_unknown")


def test_too_many_failures_lead_to_silence_for_those_without_a_certificate() -> None:
    """Ten a minute; members of the same network still come in, since nobody else can have their certificates."""
    trust = a_trust(tokens=[a_token()])
    wrong = asked(a_claim(EVE, token_proof=a_proof(b"guessed")))

    last = [trust.handle(wrong, float(n)) for n in range(10)][-1]
    eleventh = trust.handle(wrong, 10.0)
    right = trust.handle(asked(a_claim(token_proof=a_proof())), 11.0)
    member = trust.handle(asked(a_claim(certificate=a_certificate())), 12.0)
    later = trust.handle(asked(a_claim(token_proof=a_proof())), 80.0)

    assert [notice.message for notice in of(last, Notify)][-1].startswith("too many failures")
    silence = Refuse(ticket=7, code=RejectCode.UNAUTHORIZED, reason="too_many_failures", is_silent=True)
    assert eleventh == right == [silence]
    assert member == [Admit(ticket=7, rights=GUEST)]
    assert of(later, Admit) == [Admit(ticket=7, rights=GUEST, issues=True)]


def failed(code: RejectCode) -> ev.HandshakeFailed:
    """Return a handshake that came to nothing."""
    return ev.HandshakeFailed(ticket=3, address=HERE, code=code, reason="bad_signature")


def test_handshakes_that_fail_before_a_claim_count_too() -> None:
    """They are answered, until there is silence."""
    trust = a_trust()

    answers = [trust.handle(failed(RejectCode.UNAUTHORIZED), float(n))[0] for n in range(12)]

    assert [answer.is_silent for answer in answers if isinstance(answer, Refuse)] == [False] * 10 + [True] * 2
    assert answers[0] == Refuse(ticket=3, code=RejectCode.UNAUTHORIZED, reason="bad_signature")


@pytest.mark.parametrize("code", [RejectCode.SELF, RejectCode.VERSION_MISMATCH])
def test_honest_failures_do_not_count(code: RejectCode) -> None:
    """An old program that tries again and again is no attack."""
    trust = a_trust()

    answers = [trust.handle(failed(code), float(n)) for n in range(20)]

    assert answers == [[Refuse(ticket=3, code=code, reason="bad_signature")]] * 20


# -- tokens --------------------------------------------------------------------------------------------


def test_a_new_token_is_kept_and_told_to_admins_alone() -> None:
    """Its hash proves as its secret does."""
    trust = a_trust(peers={ADA: OWN_MACHINE, BOB: GUEST})

    effects = trust.handle(ev.TokenMade(record=a_token(), now_unix_s=NOW_UNIX_S), 0.0)

    assert trust.tokens == (a_token(),)
    assert of(effects, KeepTrust) == [KeepTrust(tokens=(a_token(),), revocations=())]
    assert sends(effects) == [(ADA, Tokens(records=(a_token(),)))]


def test_a_token_beyond_the_limit_is_told() -> None:
    """Rather than lost in silence."""
    full = [a_token(token_id=TokenId(f"{n:016x}"), expires_unix_s=NOW_UNIX_S + DAY_S) for n in range(256)]
    trust = a_trust(tokens=full)

    effects = trust.handle(ev.TokenMade(record=a_token(expires_unix_s=NOW_UNIX_S), now_unix_s=NOW_UNIX_S), 0.0)

    assert [notice.level for notice in of(effects, Notify)] == [Level.WARNING]
    assert of(effects, KeepTrust) == []


def test_revoking_and_rotating() -> None:
    """Nobody joins any more; members stay."""
    other = TokenId("f" * 16)
    trust = a_trust(tokens=[a_token(), a_token(token_id=other)], peers={ADA: OWN_MACHINE})

    one = trust.handle(ev.TokenRevoked(token=TOKEN, now_unix_s=NOW_UNIX_S), 0.0)
    all_others = trust.handle(ev.TokensRotated(now_unix_s=NOW_UNIX_S), 0.0)
    again = trust.handle(ev.TokenRevoked(token=TOKEN, now_unix_s=NOW_UNIX_S), 0.0)

    assert sends(one) == [(ADA, Tokens(records=(a_token(is_revoked=True),)))]
    assert sends(all_others) == [(ADA, Tokens(records=(a_token(token_id=other, is_revoked=True),)))]
    assert again == []
    refusal = trust.handle(asked(a_claim(token_proof=a_proof())), 0.0)[0]
    assert isinstance(refusal, Refuse)
    assert refusal.reason == "token_revoked"


def test_tokens_are_taken_from_admins_and_passed_on() -> None:
    """Not back to where they came from, and not twice."""
    trust = a_trust(peers={ADA: OWN_MACHINE, BOB: OWN_MACHINE, EVE: GUEST})

    first, again = (said(trust, ADA, Tokens(records=(a_token(),))) for _ in range(2))

    assert sends(first) == [(BOB, Tokens(records=(a_token(),)))]
    assert again == []


def test_nobody_else_gives_tokens_and_nobody_else_gets_them() -> None:
    """Neither from a guest, nor at a guest, nor from a stranger."""
    assert said(a_trust(peers={EVE: GUEST}), EVE, Tokens(records=(a_token(),))) == []
    assert said(a_trust(GUEST, peers={ADA: OWN_MACHINE}), ADA, Tokens(records=(a_token(),))) == []
    assert said(a_trust(), ADA, Tokens(records=(a_token(),))) == []


# -- expelled nodes ------------------------------------------------------------------------------------


def revoke(trust: Trust, entry: Revocation) -> list[Effect]:
    """Expel a node here."""
    return trust.handle(ev.NodeRevoked(revocation=entry, now_unix_s=NOW_UNIX_S), 0.0)


def test_an_expelled_node_is_told_everywhere_and_stays_out() -> None:
    """With its certificate and with the token that it had, also under another key."""
    trust = a_trust(tokens=[a_token(used_by=(EVE,))], peers={ADA: GUEST, EVE: GUEST})

    effects = revoke(trust, a_revocation())

    assert trust.revoked == {EVE}
    assert trust.revocations == (a_revocation(),)
    assert (ADA, Revocations(entries=(a_revocation(),))) in sends(effects)
    kept = of(effects, KeepTrust)[-1]
    assert kept == KeepTrust(tokens=(a_token(used_by=(EVE,), is_revoked=True),), revocations=(a_revocation(),))
    for claim in (
        a_claim(EVE, certificate=a_certificate(EVE)), a_claim(EVE, token_proof=a_proof()),
        a_claim(BOB, token_proof=a_proof()),
    ):  # fmt: skip
        assert of(trust.handle(asked(claim), 0.0), Admit) == []


def test_news_of_expelled_nodes_travels_on() -> None:
    """Through members that are no admins, once."""
    trust = a_trust(GUEST, peers={ADA: GUEST, BOB: GUEST})

    first, again = (said(trust, ADA, Revocations(entries=(a_revocation(),))) for _ in range(2))

    assert sends(first) == [(BOB, Revocations(entries=(a_revocation(),)))]
    assert again == []
    assert trust.revoked == {EVE}


def test_of_two_revocations_all_nodes_keep_the_same() -> None:
    """In whatever order they hear of them."""
    early, late = a_revocation(until=NOW_UNIX_S + 1), a_revocation(until=NOW_UNIX_S + 2)
    one, two = a_trust(peers={ADA: GUEST}), a_trust(peers={ADA: GUEST})

    for entry in (early, late):
        said(one, ADA, Revocations(entries=(entry,)))
    for entry in (late, early):
        said(two, ADA, Revocations(entries=(entry,)))

    assert one.revocations == two.revocations == (late,)


def test_a_node_learns_that_it_was_expelled_itself() -> None:
    """And says so in its own log."""
    effects = said(a_trust(GUEST, peers={ADA: GUEST}), ADA, Revocations(entries=(a_revocation(ME, by=None),)))

    (notice,) = of(effects, Notify)
    assert (notice.level, dict(notice.fields)["by"]) == (Level.ERROR, "root")


def test_what_an_expelled_node_says_counts_no_more() -> None:
    """Its connection ends in a moment."""
    trust = a_trust(peers={EVE: OWN_MACHINE})
    revoke(trust, a_revocation())

    assert said(trust, EVE, Tokens(records=(a_token(),))) == []
    assert trust.handle(connected(EVE, connection=2), 0.0) == []


def test_members_that_an_expelled_admin_admitted_fall_with_it() -> None:
    """It could have made as many as it liked. With another admin's certificate they come back."""
    trust = a_trust()
    trust.handle(connected(BOB, GUEST, by=(EVE,)), 0.0)
    trust.handle(connected(ADA, GUEST), 0.0)

    revoke(trust, a_revocation())
    fallen = trust.revoked
    trust.handle(connected(BOB, GUEST, connection=2, by=(EVE,)), 0.0)
    still = trust.revoked
    back = trust.handle(asked(a_claim(BOB, certificate=a_certificate(BOB, by=(ADA,)))), 0.0)

    assert fallen == still == {EVE, BOB}
    assert back == [Admit(ticket=7, rights=GUEST)]
    assert trust.revoked == {EVE}


def test_the_fallen_are_bounded() -> None:
    """They are refused by their certificates in any case."""
    trust = a_trust(revocations=[a_revocation()])

    for n in range(FALLEN_MEMBERS + 5):
        trust.handle(connected(NodeId(f"{n:052}"), GUEST, by=(EVE,)), 0.0)

    assert len(trust.revoked) == FALLEN_MEMBERS + 1


def test_revocations_are_bounded() -> None:
    """Those that end first go first."""
    entries = [a_revocation(NodeId(f"{n:052}"), until=NOW_UNIX_S + 1 + n) for n in range(REVOCATIONS)]
    trust = a_trust(revocations=entries)

    first = revoke(trust, a_revocation())
    none = revoke(trust, a_revocation(ADA, until=NOW_UNIX_S + 0.5))

    assert of(first, KeepTrust) != []
    assert len(trust.revocations) == REVOCATIONS
    assert entries[0].node not in trust.revoked
    assert (none, ADA in trust.revoked) == ([], False)


def test_old_revocations_are_forgotten() -> None:
    """When nothing that the node was given is valid any more."""
    trust = a_trust(revocations=[a_revocation(ADA, until=NOW_UNIX_S - 1)])

    revoke(trust, a_revocation())

    assert trust.revoked == {EVE}


# -- two nodes that meet -------------------------------------------------------------------------------


def digest_to(trust: Trust, peer: NodeId, rights: Rights) -> TrustDigest:
    """Connect a peer and return the digest that it is sent."""
    ((to, message),) = sends(trust.handle(connected(peer, rights), 0.0))
    assert to == peer
    assert isinstance(message, TrustDigest)
    return message


def met(one: Trust, two: Trust, rights: Rights = OWN_MACHINE, *, now_s: float = 0.0) -> int:
    """Let two nodes meet and talk until nothing is left to say. Return how many messages that took."""
    queue = [(two, ADA, digest_to(one, BOB, rights)), (one, BOB, digest_to(two, ADA, rights))]
    count = 0
    while queue:
        trust, sender, message = queue.pop(0)
        count += 1
        for _, answer in sends(said(trust, sender, message, now_s)):
            queue.append((two, ADA, answer) if trust is one else (one, BOB, answer))
    return count


def test_two_admins_that_meet_know_the_same_afterwards() -> None:
    """Tokens and expelled nodes, both ways."""
    one = Trust(ADA, OWN_MACHINE, [a_token()], [a_revocation()])
    two = Trust(BOB, OWN_MACHINE, [a_token(used_by=(EVE,))], [a_revocation(NodeId("c" * 52))])

    met(one, two)

    assert one.tokens == two.tokens
    assert one.revoked == two.revoked == {EVE, "c" * 52}
    assert met(one, two, now_s=60.0) == 2


def test_a_guest_learns_who_was_expelled_and_nothing_of_tokens() -> None:
    """Whoever it meets."""
    admin = Trust(ADA, OWN_MACHINE, [a_token()], [a_revocation()])
    guest = Trust(BOB, GUEST)

    met(admin, guest, GUEST)

    assert guest.revoked == {EVE}
    assert guest.tokens == ()
    assert digest_to(admin, NodeId("c" * 52), GUEST).tokens == b""


def test_many_revocations_come_in_batches() -> None:
    """Each fits into a frame."""
    entries = [a_revocation(NodeId(f"{n:052}")) for n in range(REVOCATIONS_BATCH * 2 + 1)]
    trust = a_trust(peers={ADA: GUEST}, revocations=entries)

    effects = said(trust, ADA, TrustDigest(revocations=b""))

    sizes = [len(message.entries) for _, message in sends(effects) if isinstance(message, Revocations)]
    assert sizes == [REVOCATIONS_BATCH, REVOCATIONS_BATCH, 1]


def test_asking_again_and_again_is_answered_now_and_then() -> None:
    """A small question has a large answer. A new connection begins anew."""
    trust = a_trust(peers={ADA: GUEST}, revocations=[a_revocation()])
    question = TrustDigest(revocations=b"")

    counts = [len(said(trust, ADA, question, now_s)) for now_s in (0.0, 1.0, 9.9, 10.0)]
    trust.handle(connected(ADA, GUEST, connection=2), 11.0)

    assert counts == [1, 0, 0, 1]
    assert len(said(trust, ADA, question, 11.0)) == 1


def test_a_peer_is_gone_with_its_last_connection() -> None:
    """What is said of it by late events changes nothing."""
    trust = a_trust(tokens=[a_token()])
    trust.handle(connected(ADA, connection=1), 0.0)
    trust.handle(connected(ADA, connection=2), 0.0)
    lost = [ev.PeerLost(peer=ADA, connection=ConnectionId(n), code="closed") for n in (1, 2)]

    after_one = (trust.handle(lost[0], 0.0), sends(trust.handle(ev.TokenRevoked(token=TOKEN, now_unix_s=0.0), 0.0)))
    after_two = (trust.handle(lost[1], 0.0), trust.handle(lost[1], 0.0), said(trust, ADA, TrustDigest(revocations=b"")))

    assert after_one == ([], [(ADA, Tokens(records=(a_token(is_revoked=True),)))])
    assert after_two == ([], [], [])


def test_what_was_said_on_a_connection_that_ends_is_said_again_on_the_one_that_stays() -> None:
    """Of two at once one is closed, with what was on its way: nobody would ask for that."""
    trust = a_trust(tokens=[a_token()], revocations=[a_revocation()])
    trust.handle(connected(ADA, connection=1), 0.0)
    trust.handle(connected(ADA, connection=2), 0.0)
    answered = said(trust, ADA, TrustDigest(revocations=b""))

    effects = trust.handle(ev.PeerLost(peer=ADA, connection=ConnectionId(2), code="replaced"), 0.1)

    assert sends(answered) == [(ADA, Revocations(entries=(a_revocation(),)))]
    assert sends(effects) == [(ADA, Revocations(entries=(a_revocation(),))), (ADA, Tokens(records=(a_token(),)))]


def test_what_was_said_on_the_connection_that_stays_is_not_repeated() -> None:
    """Where nodes know the same, two connections at once cost nothing."""
    trust = a_trust(revocations=[a_revocation()])
    trust.handle(connected(ADA, connection=1), 0.0)
    said(trust, ADA, TrustDigest(revocations=b""))
    trust.handle(connected(ADA, connection=2), 0.0)

    second = trust.handle(ev.PeerLost(peer=ADA, connection=ConnectionId(2), code="replaced"), 0.1)
    twice = trust.handle(ev.PeerLost(peer=ADA, connection=ConnectionId(2), code="replaced"), 0.1)

    assert (second, twice) == ([], [])


def test_other_messages_are_others_affair() -> None:
    """Trust leaves them alone."""
    assert said(a_trust(peers={ADA: GUEST}), ADA, Ping(seq=1)) == []


def test_a_node_that_becomes_an_admin_shares_tokens() -> None:
    """Its rights are told to it."""
    trust = a_trust(GUEST, tokens=[a_token()], peers={ADA: OWN_MACHINE})
    before = digest_to(trust, ADA, OWN_MACHINE)

    trust.rights = OWN_MACHINE

    assert before.tokens == b""
    assert digest_to(trust, ADA, OWN_MACHINE).tokens != b""
