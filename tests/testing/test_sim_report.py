"""Measurements of simulated meshes."""

from meshllm.core.members.times import lan
from meshllm.testing.sim_report import compared, convergence, detection, rest


def test_a_small_mesh_is_measured() -> None:
    """The numbers are of the right kind; whether they are good is asked elsewhere."""
    found, quiet = convergence(5), rest(5, for_s=20.0)

    assert found.after_last_join_s is not None
    assert found.bytes_each > 1000
    assert quiet.connections_each == 4
    assert 0 < quiet.bytes_per_s_each <= quiet.bytes_per_s_most


def test_detection_counts_those_who_found_out() -> None:
    """Everybody but the dead one."""
    found = detection(0.0, [1], lan(), nodes=4, for_s=30.0)

    assert (found.false_deaths, found.missed) == (0, 0)
    assert 0 < found.detected_p50_s <= found.detected_most_s


def test_a_changed_number_shows_what_it_was() -> None:
    """A change of the protocol is read as a table."""
    line = compared("rest 10", {"nodes": 10, "bytes": 5}, {"nodes": 10, "bytes": 7})

    assert line.split() == ["rest", "10", "nodes=10", "bytes=5", "(was", "7)"]
    assert "was" not in compared("x", {"a": 1}, None)
