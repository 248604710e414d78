"""Whom to stay connected to, and when to dial whom again."""

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.announcement import Address
from meshllm.core.ids import ConnectionId, NodeId
from meshllm.core.limits import DIALS_AT_ONCE
from meshllm.core.messages import Ack, PingRequest, Push
from meshllm.core.rights import Rights
from meshllm.core.standing import MemberState
from tests.core.members.builders import Party, a_record, an_address


def found(party: Party, name: str, source: str = "token") -> None:
    """Tell the node where another is."""
    party.tell(ev.AddressFound(peer=NodeId(name), addresses=(an_address(name),), source=source))


def failed(party: Party, name: str, code: str = "timeout") -> None:
    """Let a dial fail."""
    party.tell(ev.DialFailed(peer=NodeId(name), code=code, message="no answer"))


def dials(party: Party) -> list[str]:
    """Return who was dialled, in order."""
    return [dial.peer for dial in party.done(do.Dial)]


def test_a_found_address_is_dialled_at_once() -> None:
    """A token leads into the mesh."""
    party = Party()

    found(party, "a")

    assert [(dial.peer, dial.addresses) for dial in party.done(do.Dial)] == [("a", (an_address("a"),))]


def test_a_failed_dial_is_tried_every_five_seconds_then_more_rarely() -> None:
    """A seed that starts a minute late is found in time; one that is gone costs little."""
    party = Party()
    found(party, "a")
    rounds = []
    for minutes in (1, 10):
        before = len(dials(party))
        end_s = party.now_s + 60 * minutes
        while party.now_s < end_s:
            seen = len(dials(party))
            party.advance(0.5)
            if len(dials(party)) > seen or seen == 1:
                failed(party, "a")
        rounds.append((len(dials(party)) - before) / minutes)

    assert 10 <= rounds[0] <= 14
    assert 9 <= rounds[1] <= 15  # the only lost node: one of all is dialled every five seconds for an hour


def test_dials_are_bounded() -> None:
    """A roster of a hundred nodes is not dialled at once."""
    party = Party()

    for number in range(100):
        found(party, f"n{number}", source="roster")
    party.advance(1.0)

    assert len(dials(party)) == DIALS_AT_ONCE


def test_a_dial_that_is_never_answered_counts_as_failed() -> None:
    """A mistake of the transport must not stop dialling for ever."""
    party = Party()
    found(party, "a")

    party.advance(30.0)

    assert len(dials(party)) >= 2


def test_a_refusal_is_not_asked_for_every_five_seconds() -> None:
    """Whoever says no means it for a while."""
    party = Party()
    found(party, "a")
    failed(party, "a", "rejected")

    party.advance(200.0)

    assert len(dials(party)) == 1


def test_an_address_that_is_this_node_itself_is_forgotten() -> None:
    """One's own mDNS advert, or a token made here."""
    party = Party()
    found(party, "a")
    failed(party, "a", "self")

    party.advance(60.0)

    assert len(dials(party)) == 1


def test_in_a_small_mesh_every_member_is_dialled_the_smaller_id_first() -> None:
    """Two that learn of each other at once need one connection, not two."""
    party = Party("b")

    party.hear("b", Push(records=(a_record("z"), a_record("a"))))
    party.advance(0.5)
    early = dials(party)
    party.advance(1.0)

    assert early == ["z"]
    assert dials(party) == ["z", "a"]


def test_in_a_large_mesh_a_few_are_picked() -> None:
    """About twice the logarithm, and as many others pick this node."""
    party = Party("b")
    records = tuple(a_record(f"n{number:03}") for number in range(200))

    for start in range(0, 200, 50):
        party.hear("b", Push(records=records[start : start + 50]))
    for _ in range(30):
        party.advance(0.5)
        for dial in party.done(do.Dial)[-20:]:
            if dial.peer not in party.members.circle.links:
                party.connect(dial.peer, is_dialled=True)

    chosen = party.members.connections.chosen
    assert len(chosen) == 16
    assert chosen <= set(party.members.circle.links)
    assert len(party.members.circle.links) < 50


def a_crowd(count: int = 100) -> Party:
    """Return a node in a large mesh, whose dials all succeed."""
    party = Party("b")
    for start in range(0, count, 50):
        party.hear("b", Push(records=tuple(a_record(f"n{start + number:03}") for number in range(50))))
    answer_dials(party, 20.0)
    return party


def answer_dials(party: Party, for_s: float) -> None:
    """Let time pass; every dial succeeds, and everybody who is connected talks."""
    for _ in range(int(for_s)):
        party.effects.clear()
        party.advance(1.0)
        for dial in party.done(do.Dial):
            party.connect(dial.peer, is_dialled=True)
        for peer in party.members.circle.linked:
            party.hear(peer, Ack(seq=0))


def test_connections_beyond_what_is_needed_are_ended_gently() -> None:
    """Those that this node dialled first, those that others dialled at twice as many."""
    party = a_crowd()
    for number in range(100):
        if (name := f"n{number:03}") not in party.members.circle.links:
            party.connect(name, is_dialled=number % 2 == 0)
    assert len(party.members.circle.links) == 101
    answer_dials(party, 15.0)

    party.hear("b", Push(records=(a_record("newcomer"),)))
    party.advance(0.5)

    ended = [one.code for one in party.done(do.Disconnect)]
    assert set(ended) == {"spare"}
    assert len(party.members.circle.links) <= 4 * 14
    assert party.members.connections.chosen <= set(party.members.circle.links)


def test_a_connection_that_a_tunnel_wants_is_not_spare() -> None:
    """For as long as it said."""
    party = a_crowd()
    strangers = [node for node in party.members.table.live() if node not in party.members.circle.links]
    party.tell(ev.PeerWanted(peer=strangers[0], for_s=100.0))
    answer_dials(party, 2.0)
    for stranger in strangers[1:60]:
        party.connect(stranger, is_dialled=True)
    answer_dials(party, 15.0)

    party.hear("b", Push(records=(a_record("newcomer"),)))
    party.advance(0.5)

    assert strangers[0] in party.members.circle.links
    assert party.done(do.Disconnect)


def test_a_peer_that_has_enough_connections_is_replaced_by_another() -> None:
    """It said that this one is spare; dialling it again would go on for ever."""
    party = a_crowd()
    spare = min(party.members.connections.chosen)

    party.lose(spare, "spare")
    answer_dials(party, 3.0)

    assert spare not in party.members.circle.links
    assert len(party.members.connections.chosen) == 14


def test_now_and_then_a_member_without_a_connection_is_looked_up() -> None:
    """Its death may have been noticed by nobody who is left."""
    party = a_crowd()
    linked = set(party.members.circle.links)

    answer_dials(party, 70.0)

    assert 1 <= len(set(party.members.circle.links) - linked) <= 4


def test_a_member_that_cannot_be_looked_up_is_asked_about_and_buried() -> None:
    """In a large mesh, a failed dial is what a lost ping is in a small one."""
    party = a_crowd()
    gone = next(node for node in party.members.table.live() if node not in party.members.circle.links)
    party.tell(ev.PeerWanted(peer=gone))

    party.effects.clear()
    failed(party, gone)
    asked = len(party.said(PingRequest))
    for _ in range(7):
        for peer in party.members.circle.linked:
            party.hear(peer, Ack(seq=0))
        failed(party, gone)
        party.advance(1.0)

    assert asked == min(len(party.members.circle.links), 32)
    assert party.state(gone) is MemberState.DEAD


def test_a_mesh_that_shrinks_watches_those_that_it_had_no_connection_to() -> None:
    """They would stay alive for ever otherwise."""
    party = a_crowd(50)
    linked, everybody = party.members.circle.linked, party.members.table.live()
    for node in (*(one for one in linked if one != "b"), *(one for one in everybody if one not in linked)):
        if not party.members.circle.is_full:
            party.hear("b", Push(records=(a_record(node, 1, 1, left=True),)))
    unknown = [node for node in party.members.table.live() if node != "b"]

    for _ in range(30):
        party.hear("b", Ack(seq=0))
        party.advance(1.0)

    assert unknown
    assert {party.state(node) for node in unknown} == {MemberState.DEAD}


def test_a_contact_that_is_gone_for_an_hour_is_dialled_more_rarely() -> None:
    """Every half minute, for as long as anybody remembers it."""
    party = Party()
    found(party, "a")
    for _ in range(4000):
        party.effects.clear()
        party.advance(1.0)
        if dials(party):
            failed(party, "a")
    counted = 0
    for _ in range(300):
        party.effects.clear()
        party.advance(1.0)
        counted += len(dials(party))
        if dials(party):
            failed(party, "a")

    assert 8 <= counted <= 13


def test_the_books_of_addresses_are_bounded() -> None:
    """In nodes, and in addresses of each."""
    party = Party()
    for number in range(3000):
        found(party, f"n{number}", "lan")
    for number in range(40):
        many = (Address(host=f"192.0.2.{number}", port=1),)
        party.tell(ev.AddressFound(peer=NodeId("n0"), addresses=many, source="lan"))

    contacts = party.members.connections.contacts
    assert len(contacts) == 2048
    assert len(contacts[NodeId("n0")].addresses) == 16


def connected(party: Party, connection: int, *, is_dialled: bool) -> None:
    """Report a connection to `a`."""
    party.tell(ev.PeerConnected(
        peer=NodeId("a"), connection=ConnectionId(connection), address=an_address("a"), is_dialled=is_dialled,
        rights=Rights.NONE, rtt_s=0.05,
    ))  # fmt: skip


def test_after_a_double_dial_the_one_of_the_smaller_id_stays() -> None:
    """Both sides decide the same without a word: here `a` is the smaller one."""
    for first, second in ((True, False), (False, True)):
        party = Party()
        connected(party, 1, is_dialled=first)
        connected(party, 2, is_dialled=second)

        (ended,) = party.done(do.Disconnect)
        assert ended.connection == (1 if first else 2)
        assert ended.code == "replaced"


def test_a_second_dial_of_the_same_side_replaces_the_first() -> None:
    """Its process has started again; the old connection leads nowhere."""
    party = Party()
    connected(party, 1, is_dialled=False)
    connected(party, 2, is_dialled=False)

    assert [one.connection for one in party.done(do.Disconnect)] == [1]


def test_a_connection_replaces_one_that_is_older_than_any_double_dial() -> None:
    """Whichever side dialled."""
    party = Party()
    connected(party, 1, is_dialled=False)
    party.advance(15.0)
    connected(party, 2, is_dialled=True)

    assert [one.connection for one in party.done(do.Disconnect)] == [1]


def test_the_late_end_of_a_replaced_connection_removes_nothing() -> None:
    """Lesson F12: connections are told apart by their ids."""
    party = Party()
    connected(party, 1, is_dialled=False)
    connected(party, 2, is_dialled=False)

    party.tell(ev.PeerLost(peer=NodeId("a"), connection=ConnectionId(1), code="replaced"))

    assert party.members.circle.links[NodeId("a")].connection == 2


def test_a_connection_to_oneself_is_ended() -> None:
    """It proves nothing and serves nobody."""
    party = Party()

    party.connect("m")

    assert [one.code for one in party.done(do.Disconnect)] == ["self"]
    assert party.members.circle.links == {}


def test_a_tunnel_may_ask_for_a_connection() -> None:
    """In a large mesh most hosts have none until they are needed."""
    party = Party("b")
    for start in range(0, 100, 50):
        party.hear("b", Push(records=tuple(a_record(f"n{start + number:03}") for number in range(50))))
    party.advance(20.0)
    stranger = next(node for node in party.members.table.live() if node not in dials(party) and node != "b")

    party.tell(ev.PeerWanted(peer=stranger))

    assert stranger in dials(party)


def test_own_addresses_are_never_dialled() -> None:
    """Another node may announce what is this node's own."""
    party = Party("a")
    own = party.own.announcement.addresses
    elsewhere = Address(host="192.0.2.9", port=1)

    party.hear("a", Push(records=(a_record("z", addresses=(*own, elsewhere)),)))
    party.advance(1.0)

    assert [dial.addresses for dial in party.done(do.Dial)] == [(elsewhere,)]


def test_the_roster_is_kept_soon_and_then_now_and_then() -> None:
    """A crash must not make a stranger of a node; a busy mesh must not wear out a disk."""
    party = Party("a")
    party.advance(1.0)
    first = len(party.done(do.KeepRoster))

    for number in range(20):
        party.hear("a", Push(records=(a_record(f"n{number}"),)))
        party.advance(0.5)
    party.advance(10.0)

    kept = party.done(do.KeepRoster)
    assert first + len(kept) <= 3
    assert len(kept[-1].entries) == 21


def test_a_node_that_reaches_nobody_says_so_once() -> None:
    """Whoever gave it a token that leads nowhere is told; a roster of many that sleep is one line."""
    party = Party()
    for name in ("a", "b"):
        found(party, name)

    for name in ("a", "b", "a"):
        failed(party, name)
        party.advance(6.0)

    warnings = [one.message for one in party.done(do.Notify) if one.level is do.Level.WARNING]
    assert warnings == ["no other node is reached yet; trying on"]
