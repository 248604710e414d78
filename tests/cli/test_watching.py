"""`status --watch`: what it shows while the node talks, while it is gone, and when it is back."""

import json
from collections.abc import Callable

import pytest
from rich.console import Console

from meshllm.cli import watching
from meshllm.cli.status import facts, tables, warnings
from meshllm.cli.watching import Watched, picture
from tests.cli.conftest import Shell
from tests.cli.scripted import Answer, ScriptedNode, document

REFUSED: Answer = (401, {"error": {"message": "no key"}})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(watching, "RETRY_S", 0.0)


def told(name: str, said: object, event_id: str = "r.1") -> str:
    """Return an event as the node writes it."""
    return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(said)}\n\n: still here\n\n"


def answers(*found: Answer) -> Callable[[], Answer]:
    """Return a function that gives one answer after the other."""
    left = iter(found)
    return lambda: next(left)


def drawn(watched: Watched) -> str:
    """Return the screen as text."""
    console = Console(width=120, height=60, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(picture(watched, facts, tables, warnings))
    return capture.get()


def test_each_change_is_printed_for_who_reads_by_a_program(shell: Shell, node: ScriptedNode) -> None:
    """One document a line: the whole one each time, also where only a change was sent."""
    changes = {"facts": {"leaving": True}, "entries": {}, "order": {}}
    node.answers["GET /api/events"] = answers(
        (200, told("status", document("serving")) + told("changes", changes, "r.2")), REFUSED
    )

    assert shell("status", "--watch", "--json", "--port", node.port) != 0

    first, second = map(json.loads, shell.out.splitlines())
    assert first["machine"] == document("serving")["machine"]
    assert [model["phase"] for model in first["models"]] == ["dropped", "held", "ready"]
    assert (first["leaving"], second["leaving"]) == (False, True)


def test_it_goes_on_where_it_was_cut_off(shell: Shell, node: ScriptedNode) -> None:
    """The node is told which event was the last; a refusal ends it, with its reason."""
    node.answers["GET /api/events"] = answers(
        (200, told("status", document("serving"), "r.7")), (200, told("changes", {}, "r.7")), REFUSED
    )

    assert shell("status", "--watch", "--port", node.port) != 0

    assert node.last_ids == ["", "r.7", "r.7"]
    assert "MESH_LLM_API_KEY" in shell.err
    assert shell.out.count("fake 1 on the GPU") == 2


def test_a_node_that_never_was_there_ends_it(shell: Shell) -> None:
    """With the same sentence as without `--watch`."""
    assert shell("status", "--watch", "--port", 1) != 0
    assert "no node is running" in shell.err


def test_screen_keeps_what_was_last_known_with_its_age() -> None:
    """Durations stand still while nobody answers."""
    now_s = [100.0]
    watched = Watched(clock=lambda: now_s[0])
    before = drawn(watched)
    watched.take("status", document("in_a_mesh"), "r.1")
    live = drawn(watched)
    watched.lost("the node does not answer")
    now_s[0] = 145.0

    lost = drawn(watched)

    assert "connecting" in before
    assert "no answer for 12 s" in live
    assert "ago" not in live
    assert "the node does not answer; this is from 45 s ago" in lost
    assert lost.split("\n", 1)[1].split() == live.split()
    watched.take("", {}, "")
    assert "ago" not in drawn(watched)


def test_who_is_not_reached_comes_first_on_the_screen() -> None:
    """A screen ends somewhere, and nobody can scroll it."""
    watched = Watched()
    watched.take("status", document("in_a_mesh"), "r.1")

    lines = [line.split()[0] for line in drawn(watched).splitlines() if " host " in line or " client " in line]

    assert lines == ["a", "shed", "attic", "desk", "phone"]


def test_names_do_not_steer_the_terminal() -> None:
    """They come from other machines; neither escapes nor rich's markup do anything."""
    watched = Watched()
    status = document("in_a_mesh")
    evil = [{"id": "x", "name": "[bold]\x1b[2Jevil", "state": "alive"}, {"id": "y", "name": "b", "state": "alive"}]
    watched.take("status", status | {"members": evil}, "r.1")

    text = drawn(watched)

    assert "[bold]" in text
    assert "\x1b" not in text
