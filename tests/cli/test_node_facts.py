"""From the node's documents to what the checks want to know."""

import pytest

from meshllm.cli import node_facts
from meshllm.cli.rows import items
from meshllm.core.doctor.loading import MemoryHere
from meshllm.core.limits import GIB, LOAD_TIMEOUT_S
from tests.cli.scripted import document

MACHINE = {
    "memory_total_bytes": 20 * GIB, "memory_free_bytes": 19 * GIB,
    "gpus": [{"total_bytes": 10 * GIB, "free_bytes": 4 * GIB}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "uses_gpu", "found"),
    [
        ("90%", False, MemoryHere(usable_bytes=18 * GIB, free_bytes=18 * GIB)),
        ("50%", True, MemoryHere(usable_bytes=23 * GIB, free_bytes=22 * GIB)),
        (f"{5 * GIB}B", False, MemoryHere(usable_bytes=5 * GIB, free_bytes=5 * GIB)),
        (None, False, MemoryHere(usable_bytes=18 * GIB, free_bytes=18 * GIB)),
    ],
)
def test_memory_is_what_the_limit_leaves_of_the_machine(limit: object, uses_gpu: bool, found: MemoryHere) -> None:
    """With a GPU a model may lie on both."""
    assert node_facts.memory_here(MACHINE, limit, uses_gpu=uses_gpu) == found


def test_models_had_better_lie_on_the_gpu() -> None:
    """Full precision is judged by that."""
    assert node_facts.own_memory_bytes(MACHINE, "50%", uses_gpu=True) == 5 * GIB
    assert node_facts.own_memory_bytes(MACHINE, "50%", uses_gpu=False) == 10 * GIB


@pytest.mark.rows("OPS-5")
def test_a_load_is_told_by_all_that_the_node_says_of_it() -> None:
    """State, health, arithmetic, log, settings."""
    entry = next(one for one in items(document("troubled"), "models") if one["id"] == "bad")

    whole = node_facts.load_case(
        entry, {"checks": {"file_integrity": "failed"}}, {"fits": "no", "needed": "9 GB", "free": "3 GB"}, ["a line"],
        {"load_timeout_s": 60},
    )  # fmt: skip
    bare = node_facts.load_case({"id": "x"}, {}, {}, (), {})

    assert (whole.model, whole.phase, whole.fault, whole.failure) == ("bad", "failed", "bad_file", "it is broken")
    assert (whole.integrity, whole.log, whole.load_timeout_s) == ("failed", ("a line",), 60.0)
    assert whole.waiting == "capacity: needs 9 GB, 3 GB are free"
    assert (bare.phase, bare.waiting, bare.load_timeout_s) == ("", "", LOAD_TIMEOUT_S)


@pytest.mark.rows("OPS-6")
def test_models_are_told_with_their_quotas_and_what_ails_them() -> None:
    """Limits may stand below `quotas`; adopted ones are somebody else's."""
    status = {
        "models": [
            {"id": "a", "size_bytes": 5, "quantization": "F16", "wanted": True, "health_status": "degraded"},
            {"id": "b", "wanted": False, "phase": "dropped"},
            {"id": "c", "kind": "adopted"},
        ]
    }  # fmt: skip
    quotas = {"a": {"quotas": {"max_ram_mb": 5}, "on_limit": "warn"}, "b": {"quotas": {"max_ram_mb": 0}}}

    a, b = node_facts.served(status, quotas, {"a": "it is slow"})

    assert (a.model, a.is_wanted, a.has_quotas, a.why) == ("a", True, True, "it is slow")
    assert (b.is_wanted, b.has_quotas, b.why) == (False, False, "")
    assert node_facts.flat(quotas["a"]) == {"max_ram_mb": 5, "on_limit": "warn"}


@pytest.mark.rows("SEC-3")
def test_only_models_that_clients_may_use_count_for_production() -> None:
    """What was dropped or is held does no harm."""
    status = {"models": [{"id": "a", "phase": "ready"}, {"id": "b", "phase": "dropped"}, {"id": "c", "phase": "held"}]}

    assert [one.model for one in node_facts.in_use(status, {})] == ["a"]


def test_files_are_what_has_a_digest() -> None:
    """What is still being fetched is none to load instead."""
    assert [one.model for one in node_facts.files(document("troubled")) if one.model == "fresh"] == []
    assert "bad" in [one.model for one in node_facts.files(document("troubled"))]


@pytest.mark.rows("OPS-1")
def test_complaints_are_warnings_and_errors_that_name_the_model() -> None:
    """In both forms of the log."""
    lines = [
        "12:00:00 INFO  mine is fine", "12:00:01 WARN  Mine-7B is odd", '{"level": "ERROR", "message": "mine"}',
        "12:00:02 WARN  another is odd",
    ]  # fmt: skip

    assert node_facts.complaints(lines, "me/mine:Q4") == (lines[1], lines[2])
    assert node_facts.complaints(lines, "") == ()


def test_the_reason_of_ill_health_is_the_first_that_a_host_has() -> None:
    """Others may know none."""
    assert node_facts.reason_of({"nodes": [{"reason": ""}, {"reason": "slow"}]}) == "slow"
    assert node_facts.reason_of({}) == ""
