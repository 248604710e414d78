"""Which engine a node runs, and why it cannot."""

import importlib.util
import sys
from pathlib import Path

import pytest

from meshllm.core.engines import EngineFault
from meshllm.engine import build
from meshllm.engine.build import probe_build
from meshllm.engine.inquiry import EngineUnusableError

WITHIN_S = 30.0


def script(path: Path, body: str) -> str:
    """Write an executable shell script and return its path."""
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


async def unusable(choice: str, within_s: float = WITHIN_S) -> EngineUnusableError:
    """Return the refusal of a choice."""
    with pytest.raises(EngineUnusableError) as refusal:
        await probe_build(choice, within_s=within_s)
    return refusal.value


async def test_native_server_is_asked_who_it_is(native: Path) -> None:
    """A path names a llama-server."""
    found = await probe_build(str(native))

    assert (found.kind, found.version, found.uses_gpu, found.program) == (
        "llama-server",
        "0 (fa4e)",
        False,
        str(native),
    )


async def test_gpu_of_a_native_server_is_seen(tmp_path: Path) -> None:
    """Its own list of devices says what it computes on."""
    answers = 'echo "version: 7 (abc)"; echo "Available devices:"; echo "  CUDA0: H100 (81089 MiB, 80553 MiB free)"'

    assert (await probe_build(script(tmp_path / "llama-server", answers))).uses_gpu


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo hello", "is no llama-server"),
        ("kill -ILL $$", "take a portable build"),
        (
            "echo 'x: error while loading shared libraries: libcudart.so.13: cannot open'; exit 127",
            "a library is missing",
        ),
        ('echo "version `GLIBC_2.99\' not found"; exit 1'.replace("`", "'"), "needs a newer system"),
        ("exit 9", "status 9"),
    ],
)
async def test_unusable_program_is_explained(tmp_path: Path, body: str, words: str) -> None:
    """One line that says what is wrong and what would help."""
    refusal = await unusable(script(tmp_path / "llama-server", body))

    assert words in str(refusal)
    assert "\n" not in str(refusal)
    assert refusal.failure.fault is EngineFault.UNUSABLE_BUILD


async def test_program_for_another_machine_is_explained(tmp_path: Path) -> None:
    """The commonest mistake with downloaded programs."""
    program = tmp_path / "llama-server"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    program.chmod(0o755)

    assert "another kind of machine" in str(await unusable(str(program)))


@pytest.mark.parametrize(("mode", "words"), [(0o644, "is not executable"), (None, "does not exist")])
async def test_program_that_is_none_is_told(tmp_path: Path, mode: int | None, words: str) -> None:
    """A path with a slip of the pen is the person's to mend."""
    program = tmp_path / "llama-server"
    if mode is not None:
        program.touch(mode)

    refusal = await unusable(str(program))

    assert words in str(refusal)
    assert refusal.failure.fault is EngineFault.CANNOT_START


async def test_program_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    """A start of the daemon never waits for ever."""
    refusal = await unusable(script(tmp_path / "llama-server", "cat /dev/zero | tail -c 1"), within_s=0.3)

    assert "did not answer" in str(refusal)


async def test_nothing_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is a sentence, not a traceback."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(build, "find_program", lambda: None)

    assert "pip install xllamacpp" in str(await unusable("auto"))
    assert "is not installed" in str(await unusable("xllamacpp"))


async def test_auto_takes_a_native_server_where_there_is_no_wheel(
    monkeypatch: pytest.MonkeyPatch, native: Path
) -> None:
    """The wheel first, then what is found."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(build, "find_program", lambda: str(native))

    assert (await probe_build("auto")).kind == "llama-server"


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("import os; os.abort()", "signal 6"),
        ("import no_such_library", "cannot import xllamacpp"),
        ("__version__ = '1'\ndef get_device_info(): return [{}]", "ended by itself"),
    ],
)
async def test_broken_wheel_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, words: str
) -> None:
    """Native code may crash at its import: that happens in a child, and becomes a sentence."""
    (tmp_path / "xllamacpp.py").write_text(module, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert words in str(await unusable("xllamacpp"))


async def test_wheel_that_talks_nonsense_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that isn't ours is quoted."""
    (tmp_path / "xllamacpp.py").write_text("import os; print('hi', flush=True); os._exit(0)", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert "unexpected answer: 'hi'" in str(await unusable("xllamacpp"))


async def test_wheel_is_never_imported_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may crash has no place in the daemon's process."""
    module = (
        "from types import SimpleNamespace as N\n__version__ = '7'\nget_device_info = lambda: []\nget_system_info = str"
    )
    (tmp_path / "xllamacpp.py").write_text(module, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    found = await probe_build("xllamacpp")

    assert (found.kind, found.version, found.uses_gpu) == ("xllamacpp", "7", False)
    assert "xllamacpp" not in sys.modules


async def test_fake_engine_is_for_tests() -> None:
    """Its switches travel in the choice."""
    assert (await probe_build("fake")).kind == "fake"
    assert (await probe_build('fake:{"load_s": 1}')).program == '{"load_s": 1}'
    assert "no JSON" in str(await unusable("fake:{"))
