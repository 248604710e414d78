"""What followers of the status document are told, also as files that the console puts into its own document.

`MESHLLM_REWRITE_DOCUMENTS=1` writes the files anew; review them as a diff.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from meshllm.api import changes
from meshllm.api.changes import AGES, COUNTDOWNS, SECTIONS, StatusLedger
from meshllm.api.status import status_document
from meshllm.cli import followed
from meshllm.cli.followed import Followed
from meshllm.core.ids import ModelId
from meshllm.core.view import MeshView
from tests.api.test_status import DOCUMENTS, FACTS, NAMES, in_a_mesh, view_of
from tests.core.builders import a_member

FIXED_S = 100.0
LATER_S = 130.0


def whole(view: MeshView, now_s: float = FIXED_S, in_flight: int = 0) -> dict[str, Any]:
    """Return the whole document."""
    return status_document(view, now_s, FACTS, lambda _: in_flight)


def changed(view: MeshView) -> MeshView:
    """Return a later view: a model gone, a member dead, another one new, the default another."""
    desk, shed = a_member("desk", models=("big", "new")), a_member("shed", state="dead", since_s=120.0, why="no answer")
    others = (desk, shed, a_member("late"))
    members = {**view.members, **{member.announcement.node: member for member in others}}
    local = {model: entry for model, entry in view.local.items() if model != "held"}
    return replace(
        view, members=MappingProxyType(members), local=MappingProxyType(local), default_model=ModelId("big"),
        epoch=view.epoch + 1,
    )  # fmt: skip


def without_ages(value: Any) -> Any:
    """Return JSON without what grows by itself, and without the epoch."""
    if isinstance(value, list):
        return [without_ages(one) for one in value]
    if isinstance(value, dict):
        return {key: without_ages(one) for key, one in value.items() if key not in {*AGES, *COUNTDOWNS, "epoch"}}
    return value


def test_a_follower_ends_up_with_the_whole_document() -> None:
    """Whatever follows what: nothing is missing and nothing too much."""
    ledger, reader = StatusLedger(FIXED_S), Followed()
    views = [view_of(name) for name in NAMES]
    walk = [*views, *reversed(views), changed(in_a_mesh()), in_a_mesh()]

    for number, view in enumerate(walk):
        known = ledger.revision
        ledger.take(view, FACTS, dict.fromkeys(view.local, number % 3))
        if number == 0:
            reader.take("status", whole(view), "", FIXED_S)
        else:
            reader.take("changes", json.loads(json.dumps(ledger.changes(known, FIXED_S))), "", FIXED_S)

        expected = json.loads(json.dumps(whole(view, in_flight=number % 3)))
        assert without_ages(reader.document(FIXED_S)) == without_ages(expected)


def test_who_missed_something_is_told_all_of_it_at_once() -> None:
    """A follower goes on from any revision, however long it was away."""
    ledger, reader, views = StatusLedger(FIXED_S), Followed(), [view_of(name) for name in NAMES]
    ledger.take(views[0], FACTS, {})
    known = ledger.revision
    reader.take("status", whole(views[0]), "", FIXED_S)
    for view in views[1:]:
        ledger.take(view, FACTS, {})

    reader.take("changes", ledger.changes(known, FIXED_S), "", FIXED_S)

    assert without_ages(reader.document(FIXED_S)) == without_ages(whole(views[-1]))


def test_time_alone_changes_nothing() -> None:
    """Everybody's clock goes on: nobody has to be told."""
    ledger, view = StatusLedger(FIXED_S), in_a_mesh()
    ledger.take(view, FACTS, {})
    before = ledger.revision
    heard = {node: replace(member, last_heard_s=500.0) for node, member in view.members.items()}

    ledger.take(replace(view, epoch=view.epoch + 1), FACTS, {})
    ledger.take(replace(view, members=MappingProxyType(heard), epoch=view.epoch + 2), FACTS, {})
    once_heard = ledger.revision
    again = {node: replace(member, last_heard_s=900.0) for node, member in view.members.items()}
    ledger.take(replace(view, members=MappingProxyType(again), epoch=view.epoch + 3), FACTS, {})

    assert before == 1
    assert ledger.revision == once_heard


def test_only_what_changed_is_built_and_told() -> None:
    """One busy model of many is one entry."""
    ledger, view = StatusLedger(FIXED_S), in_a_mesh()
    ledger.take(view, FACTS, {})
    known = ledger.revision

    ledger.take(replace(view, epoch=view.epoch + 1), FACTS, {ModelId("tiny"): 3})
    told: Any = ledger.changes(known, FIXED_S)

    assert [(name, [entry["id"] for entry in told["entries"][name]]) for name in SECTIONS] == [
        ("members", []), ("models", ["tiny"]), ("mesh_models", []),
    ]  # fmt: skip
    assert told["order"] == dict.fromkeys(SECTIONS)
    assert told["facts"] == {}


def test_durations_are_those_of_the_moment_and_grow_at_the_reader() -> None:
    """What is not said again grows older by itself; what is said is as it is now."""
    view, reader, ledger = in_a_mesh(), Followed(), StatusLedger(FIXED_S)
    ledger.take(view, FACTS, {})
    reader.take("status", whole(view), "", FIXED_S)
    known = ledger.revision
    ledger.take(changed(view), FACTS, {})

    reader.take("changes", ledger.changes(known, LATER_S), "", LATER_S)

    assert reader.document(LATER_S + 7) == {**whole(changed(view), LATER_S + 7), "epoch": view.epoch + 1}


@pytest.mark.parametrize("name", ["before", "changes", "after"])
def test_changes_are_those_that_the_console_knows(name: str) -> None:
    """The console puts `changes` into `before` and has to find `after`."""
    view = in_a_mesh()
    later, ledger = changed(view), StatusLedger(FIXED_S)
    ledger.take(view, FACTS, {})
    known = ledger.revision
    ledger.take(later, FACTS, {})
    found = {"before": whole(view), "changes": ledger.changes(known, LATER_S), "after": whole(later, LATER_S)}[name]
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    file = Path(DOCUMENTS) / "changes" / f"{name}.json"

    if os.environ.get("MESHLLM_REWRITE_DOCUMENTS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    assert file.read_text() == text


def test_both_sides_mean_the_same_fields() -> None:
    """The command line may not ask the API's modules; so this does."""
    for name in ("SECTIONS", "AGES", "COUNTDOWNS"):
        assert getattr(followed, name) == getattr(changes, name)
