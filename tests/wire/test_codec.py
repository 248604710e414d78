"""Messages as payloads: every kind there and back, and everything that is none."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core import messages as said
from meshllm.core.announcement import Announcement, Record
from meshllm.core.credentials import Revocation, TokenRecord
from meshllm.core.ids import NO_MODEL, ModelId, NodeId, TokenId
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.core.limits import ORDER_MESSAGE_CHARS
from meshllm.core.messages import KINDS, Message
from meshllm.core.rights import GUEST
from meshllm.wire.announcements import decode_announcement, encode_announcement
from meshllm.wire.codec import decode_message, encode_message
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.packing import pack, plain
from tests.wire.builders import NODE, OTHER, announcement


def seal(own: Announcement) -> bytes:
    """Stand in for a signature."""
    return b"signed" + encode_announcement(own)


def open_sealed(data: bytes) -> Announcement:
    """Stand in for the check of a signature."""
    if not data.startswith(b"signed"):
        raise WireError(WireCode.UNAUTHORIZED, "forged")
    return decode_announcement(data[6:])


def decode(payload: bytes) -> Message:
    """Decode with the stand-in."""
    return decode_message(payload, open_sealed, open_revocation=open_revocation)


def record(**changes: object) -> Record:
    """Return somebody's record as it was received."""
    about = announcement(**changes)
    return Record(announcement=about, sealed=seal(about))


REVOCATION = Revocation(node=OTHER, by=NODE, at_unix_s=1.0, until_unix_s=2.0, reason="sold", sealed=b"by an admin")
TOKEN = TokenRecord(
    token_id=TokenId("00112233445566ff"), secret_hash=b"h" * 32, rights=GUEST, made_by=NODE, made_unix_s=1.5,
    expires_unix_s=2.5,
)  # fmt: skip
OTHER_TOKEN = replace(TOKEN, uses=3, used_by=(NODE, OTHER), is_revoked=True)


def open_revocation(data: bytes) -> Revocation:
    """Stand in for the check of an admin's signature."""
    if data != REVOCATION.sealed:
        raise WireError(WireCode.UNAUTHORIZED, "no admin")
    return REVOCATION


OFFER = said.SplitOffer(
    model=ModelId("m"), digest="sha256:" + "a" * 64, epoch=3, first_layer=0, layers=12, memory_bytes=10**9
)  # fmt: skip
MESSAGES: list[Message] = [
    said.Ping(seq=0), said.Ping(seq=2**62), said.Ack(seq=7), said.PingRequest(seq=1, target=NODE),
    said.PingReply(seq=1, target=OTHER),
    said.Digest(summary=b"12345678"),
    said.Digest(
        summary=b"12345678", buckets=(b"a", b""), of_buckets=(1, 63), is_answer=True,
        entries=(said.DigestEntry(node=NODE, incarnation=1, version=2),),
    ),
    said.Delta(), said.Delta(records=(record(), record(node=OTHER)), wanted=(NODE, OTHER)),
    said.Push(records=(record(),)), said.Push(records=()),
    said.Verdict(node=NODE, incarnation=4, is_dead=True), said.Verdict(node=NODE, incarnation=4, is_dead=False),
    said.Leaving(record=record(), reason="asked to"),
    said.TrustDigest(revocations=b"12345678"), said.TrustDigest(revocations=b"", tokens=b"12345678"),
    said.Revocations(entries=(REVOCATION,)), said.Revocations(entries=()), said.Tokens(records=(TOKEN, OTHER_TOKEN)),
    said.Order(intent=Intent(verb=Verb.UNLOAD, model="m", request_id="r1", hold=True, scope="node")),
    said.OrderResult(request_id="r1", outcome=Outcome(code=OutcomeCode.DONE, message="m is unloaded", model="m")),
    said.HealthQuestion(model=ModelId("m")), said.HealthQuestion(model=NO_MODEL),
    OFFER, said.SplitAnswer(model=ModelId("m"), epoch=3), said.SplitRelease(model=ModelId("m"), epoch=2**53),
    said.SplitAnswer(model=ModelId("m"), epoch=3, refusal="no memory", highest=7),
    said.SplitEnded(model=ModelId("m"), epoch=3, reason="it crashed"),
    said.ErrorReport(code="unsupported", message="a kind that is not known here"),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_comes_back(message: Message) -> None:
    """There and back again."""
    assert decode(encode_message(message, seal)) == message


def test_an_outcome_is_made_to_fit() -> None:
    """An engine's last lines may be long, and in several lines."""
    long = Outcome(code=OutcomeCode.LOAD_FAILED, message="one\ntwo" * 1000, model="m")

    found = decode(encode_message(said.OrderResult(request_id="r1", outcome=long), seal))

    assert isinstance(found, said.OrderResult)
    assert found.outcome.message == ("one?two" * 1000)[:ORDER_MESSAGE_CHARS]


@pytest.mark.parametrize(
    "message",
    [
        said.Order(intent=Intent(verb=Verb.UNLOAD, model="", request_id="r")),
        said.Order(intent=Intent(verb=Verb.UNLOAD, model="m" * 300, request_id="r")),
        said.Order(intent=Intent(verb=Verb.UNLOAD, model="m", request_id="r" * 300)),
        said.Order(intent=Intent(verb=Verb.UNLOAD, model="m", request_id="r", author=NodeId("me"))),
        said.OrderResult(request_id="r", outcome=Outcome(code=OutcomeCode.DONE, message="", model="m" * 300)),
    ],
)
def test_orders_out_of_bounds_are_refused(message: Message) -> None:
    """Whoever sends them."""
    with pytest.raises(WireError):
        decode(encode_message(message, seal))


@pytest.mark.parametrize(
    "message",
    [
        replace(OFFER, epoch=0), replace(OFFER, epoch=2**53 + 1), replace(OFFER, layers=0),
        replace(OFFER, layers=10**6),
        replace(OFFER, first_layer=10**6), replace(OFFER, digest="sha256:1"), replace(OFFER, model=ModelId("m" * 300)),
        said.SplitAnswer(model=ModelId("m"), epoch=0), said.SplitRelease(model=ModelId("m"), epoch=0),
    ],
)  # fmt: skip
def test_what_is_said_of_no_possible_split_is_refused(message: Message) -> None:
    """Whoever sends it."""
    with pytest.raises(WireError):
        decode(encode_message(message, seal))


def test_an_order_to_have_no_default_needs_no_model() -> None:
    """It ends a node's own choice."""
    order = said.Order(intent=Intent(verb=Verb.DEFAULT, model="", request_id="r"))

    assert decode(encode_message(order, seal)) == order


def test_every_kind_is_tried() -> None:
    """A kind that is added to the core gets its example here."""
    assert {type(message) for message in MESSAGES} == set(KINDS.values())


def test_one_s_own_record_is_sealed_when_it_is_sent() -> None:
    """The core does not sign."""
    own = announcement()

    found = decode(encode_message(said.Push(records=(Record(announcement=own),)), seal))

    assert found == said.Push(records=(Record(announcement=own, sealed=seal(own)),))


def test_another_s_record_is_passed_on_as_it_was_signed() -> None:
    """Fields that only newer nodes know travel on, inside the signed bytes."""
    newer = b"signed" + pack({"mood": "good", "x": 1}) + b"anything"
    carried = Record(announcement=announcement(), sealed=newer)

    payload = encode_message(said.Push(records=(carried,)), seal)

    assert newer in payload


def test_a_forged_record_refuses_the_message() -> None:
    """By default."""
    with pytest.raises(WireError) as caught:
        decode(pack({"k": "push", "records": [seal(announcement()), b"forged"]}))

    assert caught.value.code is WireCode.UNAUTHORIZED


@pytest.mark.parametrize("kind", ["push", "delta"])
def test_a_forged_record_may_be_left_out_and_told(kind: str) -> None:
    """One node whose certificate has run out must not stop the news of all others."""
    refused: list[WireError] = []
    payload = pack({"k": kind, "records": [b"forged", seal(announcement())]})

    message = decode_message(payload, open_sealed, refused.append)

    assert isinstance(message, said.Push | said.Delta)
    assert message.records == (record(),)
    assert [error.code for error in refused] == [WireCode.UNAUTHORIZED]


def test_forged_revocations_are_left_out_and_told_or_refuse_the_message() -> None:
    """As records are. Where nobody can check them, none is taken."""
    refused: list[WireError] = []
    payload = pack({"k": "revocations", "entries": [b"forged", REVOCATION.sealed]})

    message = decode_message(payload, open_sealed, refused.append, open_revocation)
    for check in (None, open_revocation):
        with pytest.raises(WireError) as caught:
            decode_message(payload, open_sealed, None, check)
        assert caught.value.code is WireCode.UNAUTHORIZED

    assert message == said.Revocations(entries=(REVOCATION,))
    assert [error.code for error in refused] == [WireCode.UNAUTHORIZED]


def test_a_forged_farewell_is_refused_in_any_case() -> None:
    """Only the leaver says that it leaves."""
    refused: list[WireError] = []

    with pytest.raises(WireError):
        decode_message(pack({"k": "leaving", "record": b"forged", "reason": ""}), open_sealed, refused.append)

    assert refused == []


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ({}, WireCode.UNKNOWN_KIND), ({"critical": 0}, WireCode.UNKNOWN_KIND),
        ({"critical": []}, WireCode.UNKNOWN_KIND),
        ({"critical": 1}, WireCode.UNSUPPORTED), ({"critical": True}, WireCode.UNSUPPORTED),
    ],
    ids=str,
)  # fmt: skip
def test_an_unknown_kind_is_ignored_or_answered_as_its_sender_asks(extra: dict[str, object], code: WireCode) -> None:
    """Neighbouring versions get along, and know where they do not."""
    with pytest.raises(WireError) as caught:
        decode(pack({"k": "haggle", **extra}))

    assert caught.value.code is code


BAD = {
    "no kind": {},
    "kind is a number": {"k": 1},
    "kind is a list": {"k": ["ping"]},
    "no sequence": {"k": "ping"},
    "sequence is text": {"k": "ping", "seq": "1"},
    "sequence is a boolean": {"k": "ping", "seq": True},
    "target is no id": {"k": "ping_request", "seq": 1, "target": "me"},
    "reply target is no id": {"k": "ping_reply", "seq": 1, "target": "../x"},
    "records are text": {"k": "push", "records": ["signed"]},
    "records are a map": {"k": "push", "records": {}},
    "wanted is no id": {"k": "delta", "wanted": ["x"]},
    "summary is text": {"k": "digest", "summary": "x"},
    "summary is long": {"k": "digest", "summary": bytes(33)},
    "bucket is long": {"k": "digest", "summary": b"", "buckets": [bytes(33)]},
    "entry is no map": {"k": "digest", "summary": b"", "entries": [1]},
    "entry is no id": {"k": "digest", "summary": b"", "entries": [{"node": "x", "incarnation": 1, "version": 1}]},
    "verdict on nobody": {"k": "verdict", "node": "", "incarnation": 1, "is_dead": True},
    "reason is long": {"k": "leaving", "record": seal(announcement()), "reason": "x" * 300},
    "hash of trust is long": {"k": "trust_digest", "revocations": bytes(33)},
    "hash of tokens is text": {"k": "trust_digest", "revocations": b"", "tokens": "x"},
    "revocations are maps": {"k": "revocations", "entries": [{}]},
    "token id is no id": {"k": "tokens", "records": [plain(replace(TOKEN, token_id=TokenId("../x")))]},
    "token hash is short": {"k": "tokens", "records": [plain(replace(TOKEN, secret_hash=b""))]},
    "token's maker is nobody": {"k": "tokens", "records": [plain(replace(TOKEN, made_by=NodeId("x")))]},
    "token's user is nobody": {"k": "tokens", "records": [plain(replace(TOKEN, used_by=(NodeId("x"),)))]},
    "token has too many users": {"k": "tokens", "records": [plain(replace(TOKEN, used_by=(NODE,) * 1025))]},
    "code is no word": {"k": "error", "code": "<b>", "message": ""},
    "message is long": {"k": "error", "code": "bad", "message": "x" * 300},
    "message steers": {"k": "error", "code": "bad", "message": "\x1b[2J"},
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_what_is_no_message_is_refused(content: dict[str, object]) -> None:
    """With our error, whatever it is."""
    with pytest.raises(WireError) as caught:
        decode(pack(content))

    assert caught.value.code is WireCode.MALFORMED


def test_unknown_fields_are_left_out() -> None:
    """A newer node may say more."""
    assert decode(pack({"k": "ping", "seq": 1, "urgent": True})) == said.Ping(seq=1)


def test_a_message_from_this_node_is_made_fit() -> None:
    """An exception's text with line breaks must not make the peer refuse the report."""
    report = said.ErrorReport(code="malformed", message="line\nbreak " + "x" * 500)

    found = decode(encode_message(report, seal))

    assert isinstance(found, said.ErrorReport)
    assert found.message.startswith("line?break xxx")


@given(
    st.sampled_from(sorted(KINDS)), st.dictionaries(st.sampled_from(["seq", "records", "node", "summary"]), st.none())
)
def test_any_content_gives_a_message_or_our_error(kind: str, content: dict[str, None]) -> None:
    """No other exception leaves the decoder."""
    with pytest.raises(WireError):
        decode(pack({"k": kind, **content, "seq": None, "records": None, "record": None, "summary": 1, "node": 1,
                     "items": 1, "code": 1}))  # fmt: skip
