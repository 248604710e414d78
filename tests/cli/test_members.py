"""Members as rows, from documents of any version."""

from meshllm.cli.members import COLUMNS, members_of, mesh_line, table
from tests.cli.scripted import document


def test_rows_are_what_the_document_says() -> None:
    """Names stand for ids where they are known."""
    me, desk, phone, shed, attic = members_of(document("in_a_mesh"), "members")

    assert (me.is_me, me.state, me.models) == (True, "alive", ["tiny"])
    assert (desk.models, desk.rtt_ms, desk.connected, desk.heard_s) == (["big"], 2.1, True, 1.0)
    assert [member.lines for member in (me, desk, phone)] == [0, 2, 0]
    assert (phone.role, phone.memory_bytes, phone.message) == ("client", 0, "told of by desk")
    assert (shed.state, attic.state, shed.for_s) == ("suspect", "dead", 10.0)


def test_table_has_a_cell_for_each_column() -> None:
    """This node is marked; a state that worries says for how long."""
    rows = table(members_of(document("in_a_mesh"), "members"))

    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert [row[0] for row in rows] == ["a *", "desk", "phone", "shed", "attic"]
    assert [row[COLUMNS.index("LINES")] for row in rows] == ["-", 2, "-", "-", "-"]
    assert [row[2] for row in rows] == ["alive", "alive", "alive", "suspect 10 s", "dead 10 s"]


def test_odd_document_shows_what_it_has() -> None:
    """An older or newer node."""
    members = members_of(
        {"members": [{"rtt_ms": True, "models": 5, "rights": [5, "host"], "vouched_by": "x" * 52}, 7]}, "members"
    )

    assert len(members) == 1
    assert (members[0].rtt_ms, members[0].rights, members[0].message) == (None, ["host"], "told of by xxxxxxxx")
    assert members[0].lines == 0  # an older node says nothing of them
    assert members_of({}, "members") == []


def test_mesh_is_a_line() -> None:
    """Before there is one, too."""
    assert mesh_line({}, []) == "none"
    assert mesh_line({"id": "m" * 52}, members_of({"members": [{"state": "alive"}]}, "members")) == "mmmmmmmm: 1 node"


def test_a_model_that_loads_is_told_from_one_that_answers() -> None:
    """In the row and in the table."""
    models = [{"id": "tiny", "state": "ready"}, {"id": "big", "state": "loading"}]

    (row,) = members_of({"members": [{"id": "x", "state": "alive", "models": models}]}, "members")

    assert (row.models, row.loading) == (["tiny"], ["big"])
    assert "tiny, big (loading)" in table([row])[0]


def test_a_node_that_nobody_has_let_in_yet_is_told_from_one_alone() -> None:
    """A token that was used up: the node runs, and nothing else would show it."""
    members = members_of({"members": [{"state": "alive"}]}, "members")

    line = mesh_line({"id": "m" * 52, "rights": []}, members)

    assert line == "mmmmmmmm: 1 node; no member has let this node in yet, the log says why"
