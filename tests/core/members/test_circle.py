"""What the parts of membership share."""

import random

from meshllm.core import events as ev
from meshllm.core.ids import NodeId
from meshllm.core.members.circle import Circle
from meshllm.core.members.times import lan, wan
from meshllm.core.messages import Ping
from meshllm.core.statement import OwnStatement
from tests.core.members.builders import Party, an_announcement


def automatic() -> Party:
    """Return a node whose patience follows its connections."""
    party = Party()
    party.members.circle._is_given = False
    return party


def test_one_site_is_noticed_by_its_round_trips_and_left_with_the_first_far_peer() -> None:
    """A node with one slow connection is patient with everybody."""
    party = automatic()
    circle = party.members.circle

    party.connect("a", rtt_s=0.002)
    on_site = circle.times
    party.connect("b", rtt_s=0.012)
    nearly = circle.times
    party.connect("c", rtt_s=0.040)

    assert (on_site, nearly, circle.times) == (lan(), lan(), wan())


def test_a_round_trip_counts_when_it_changes_much() -> None:
    """Every view would differ otherwise."""
    party = Party("a")
    link = party.members.circle.links[NodeId("a")]

    for rtt_s, expected_s in ((0.055, 0.05), (0.2, 0.2), (-1.0, 0.2)):
        party.tell(ev.RoundTripMeasured(peer=NodeId("a"), rtt_s=rtt_s))
        assert link.rtt_s == expected_s


def test_own_lag_lengthens_patience_and_is_forgotten() -> None:
    """A node that is late itself is no judge of others."""
    party = Party("a")
    circle = party.members.circle

    party.tell(ev.LoopLagged(lag_s=2.0))
    late = (circle.stretch, circle.may_accuse)
    party.advance(10.0)

    assert late == (5.0, False)
    assert (circle.stretch, circle.may_accuse) == (1.0, True)


def test_picking_takes_connected_live_members_only() -> None:
    """Whoever is asked has to be able to answer."""
    party = Party("a", "b", "c")
    party.lose("b")

    picked = party.members.circle.pick(5, without=("c",))

    assert picked == ["a"]


def test_nothing_is_sent_where_no_connection_is() -> None:
    """Such a message would be lost without an answer."""
    own = OwnStatement(an_announcement("m"), 5.0)
    circle = Circle(own, random.Random(1), None)

    circle.send(NodeId("a"), Ping(seq=1))

    assert circle.take() == []
