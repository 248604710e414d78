"""How fast a large mesh comes to one view, what it costs at rest, and how it tells the dead from the living."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from meshllm.core.members.times import lan, wan
from meshllm.testing.invariants import check_quiet
from meshllm.testing.sim_report import a_mesh, convergence, detection, rest

KEPT = json.loads((Path(__file__).parent / "baseline.json").read_text(encoding="utf-8"))


@pytest.mark.timeout(120)
def test_two_hundred_nodes_have_one_view_three_seconds_after_the_last_join() -> None:
    """Each knows one other at its start."""
    found = convergence(200)

    assert found.after_last_join_s is not None
    assert found.after_last_join_s <= 3.0
    assert asdict(found) == KEPT["converge 200"]


def test_numbers_are_the_ones_that_were_kept() -> None:
    """Whoever changes the protocol runs `scripts/simulate --rewrite` and shows the difference."""
    assert asdict(convergence(50)) == KEPT["converge 50"]
    assert asdict(rest(10)) == KEPT["rest 10"]


def test_what_a_node_sends_at_rest_grows_no_faster_than_the_logarithm() -> None:
    """From fifty nodes to a thousand, by the numbers that were kept."""
    of = {nodes: KEPT[f"rest {nodes}"]["bytes_per_s_each"] for nodes in (50, 200, 1000)}

    assert of[200] <= of[50] * 7.7 / 5.6
    assert of[1000] <= of[50] * 10.0 / 5.6


def test_the_kept_numbers_keep_the_promises() -> None:
    """No false death up to 20 % loss; a silent death is known within 16 s, on one site within 10."""
    for name, bound_s in (("wan", 16.0), ("lan", 10.0)):
        for loss in ("0%", "1%", "5%", "20%"):
            row = KEPT[f"detect {name} {loss}"]
            assert (row["false_deaths"], row["missed"]) == (0, 0)
            assert row["detected_most_s"] <= bound_s


@pytest.mark.parametrize(("times", "bound_s"), [(wan(), 16.0), (lan(), 10.0)], ids=["wan", "lan"])
def test_a_fifth_of_all_packets_lost_kills_nobody(times: object, bound_s: float) -> None:
    """Five minutes of it, then a death that everybody finds out about in time."""
    found = detection(0.20, [11], times, for_s=300.0)

    assert (found.false_deaths, found.missed) == (0, 0)
    assert found.detected_most_s <= bound_s


@pytest.mark.rows("T22")
@pytest.mark.timeout(120)
def test_a_large_mesh_finds_out_about_five_deaths_at_once() -> None:
    """Also those who have no connection to the dead."""
    mesh = a_mesh(60, 5, wan())
    mesh.run(30.0)
    for name in ("n0003", "n0014", "n0022", "n0039", "n0058"):
        mesh.crash(name)

    took_s = mesh.run_while(lambda: not mesh.is_one_view(), 25.0, step_s=0.25)

    assert took_s is not None
    assert took_s <= 22.0
    check_quiet(mesh)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_kept_number_is_still_true() -> None:
    """The cheap ones are checked always, these now and then, the others by `scripts/simulate`."""
    assert asdict(rest(50)) == KEPT["rest 50"]
    assert asdict(detection(0.05, range(3), wan())) == KEPT["detect wan 5%"]
