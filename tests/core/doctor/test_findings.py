"""Findings: their names in an exit, and lists of names."""

from meshllm.core.doctor.findings import Finding, Result, failed, listed


def test_the_names_of_what_failed_are_told_once_each_with_their_model() -> None:
    """The last line of `doctor` names them."""
    findings = [
        Finding(name="port", result=Result.OK, message="free"),
        Finding(name="engine", result=Result.FAIL, message="none"),
        Finding(name="memory", result=Result.FAIL, message="short", model="tiny"),
        Finding(name="engine", result=Result.FAIL, message="another"),
        Finding(name="health", result=Result.WARN, message="slow"),
    ]

    assert failed(findings) == ("engine", "memory of tiny")


def test_a_finding_is_one_line_with_what_to_do() -> None:
    """Message first."""
    assert Finding(name="a", result=Result.FAIL, message="it is shut", advice="open it").line == "it is shut: open it"
    assert Finding(name="a", result=Result.OK, message="it is open").line == "it is open"


def test_many_names_are_cut_short() -> None:
    """A hundred models are no sentence."""
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"
