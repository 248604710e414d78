"""What an engine double saves of its slots."""

from pathlib import Path

from meshllm.testing.fake_slots import acted, slot_number


def test_words_come_back_as_they_were_saved(tmp_path: Path) -> None:
    """From the same folder, under the same name."""
    folder = f"{tmp_path}/"

    assert acted("save", folder, "a.slot", ["river", "stone"]) == ["river", "stone"]
    assert acted("restore", folder, "a.slot", []) == ["river", "stone"]


def test_what_cannot_be_done_is_nothing(tmp_path: Path) -> None:
    """No folder, a path as a name, no such file, rubbish in it, another action."""
    folder = f"{tmp_path}/"
    (tmp_path / "rubbish").write_bytes(b"\xff{")

    for action, where, name in [
        ("save", "", "a"), ("save", folder, "../a"), ("save", folder, ""), ("restore", folder, "none"),
        ("restore", folder, "rubbish"), ("erase", folder, "a"),
    ]:  # fmt: skip
        assert acted(action, where, name, ["x"]) is None


def test_a_path_names_a_slot() -> None:
    """One that there is."""
    assert [slot_number(path, 2) for path in ("/slots/0", "/slots/1", "/slots/2", "/slots/x", "/slots/")] == [
        0, 1, None, None, None,
    ]  # fmt: skip
