"""A document that changes arrive for. What the API's changes make of it is tested beside them."""

from meshllm.cli.followed import Followed, events

STATUS = {
    "node": {"name": "a", "uptime_s": 5.0},
    "leaving": False,
    "members": [{"id": "n1", "for_s": 3.0}, {"id": "n2", "for_s": 4.0}],
    "models": [{"id": "m", "retry_in_s": 8.0, "ready_for_s": None}],
    "mesh_models": [],
}
NOTHING = {"members": None, "models": None, "mesh_models": None}


def test_durations_grow_while_nothing_is_said() -> None:
    """And those until something shrink, down to nothing."""
    followed = Followed()
    followed.take("status", STATUS, "r.1", at_s=100.0)

    document = followed.document(110.0)

    assert document["node"] == {"name": "a", "uptime_s": 15.0}
    assert document["members"] == [{"id": "n1", "for_s": 13.0}, {"id": "n2", "for_s": 14.0}]
    assert document["models"] == [{"id": "m", "retry_in_s": 0.0, "ready_for_s": None}]


def test_changes_take_the_place_of_what_was_known() -> None:
    """Only an order says who is gone."""
    followed = Followed()
    followed.take("status", STATUS, "r.1", at_s=0.0)
    changes = {
        "facts": {"leaving": True},
        "entries": {"members": [{"id": "n3", "for_s": 0.0}]},
        "order": NOTHING | {"members": ["n3", "n1"]},
    }

    followed.take("changes", changes, "r.2", at_s=1.0)
    followed.take("something", {"facts": {"leaving": False}}, "r.3", at_s=2.0)

    document = followed.document(1.0)
    assert followed.event_id == "r.2"
    assert document["leaving"] is True
    assert document["members"] == [{"id": "n3", "for_s": 0.0}, {"id": "n1", "for_s": 4.0}]


def test_lines_become_events_and_comments_signs_of_life() -> None:
    """What is no JSON says nothing, and ends nothing."""
    lines = [
        "id: r.1",
        "event: status",
        'data: {"a": 1}',
        "",
        ": still here",
        "",
        "event: changes",
        "data: {",
        "",
        "data: x",
    ]

    found = list(events(lines))

    assert found == [("status", {"a": 1}, "r.1"), ("", {}, ""), ("changes", {}, "r.1")]
