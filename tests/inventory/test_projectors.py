"""Which projector belongs to which model, by the names that are in use."""

import pytest

from meshllm.inventory.digests import FileVersion
from meshllm.inventory.folder_walk import FoundFile
from meshllm.inventory.projectors import projector_for


def found(*names: str) -> list[FoundFile]:
    """Return projectors of one folder."""
    return [FoundFile(folder="/m", name=name, version=FileVersion(f"/m/{name}", 1, 1), inode=1) for name in names]


def chosen(model: str, *names: str, is_flat: bool = True) -> str | None:
    """Return the name of the chosen projector."""
    file = projector_for(model, found(*names), is_flat=is_flat)
    return file.name if file is not None else None


@pytest.mark.parametrize(
    ("model", "projector"),
    [
        ("gemma-3-4b-it-Q4_K_M", "mmproj-gemma-3-4b-it-f16.gguf"),
        ("google_gemma-3-4b-it-Q4_K_M", "mmproj-google_gemma-3-4b-it-bf16.gguf"),
        ("Qwen2-VL-2B-Instruct-Q4_K_M", "mmproj-Qwen2-VL-2B-Instruct-Q8_0.gguf"),
        ("Qwen2-VL-2B-Instruct-Q4_K_M", "Qwen2-VL-2B-Instruct.mmproj-f16.gguf"),
        ("Foo-7B.Q4_0", "mmproj-Foo-7B.gguf"),
    ],
)
def test_a_projector_that_names_the_model_is_found(model: str, projector: str) -> None:
    """Whatever separates the words, and whatever its precision."""
    assert chosen(model, "mmproj-Other-7B-f16.gguf", projector) == projector


@pytest.mark.parametrize("projector", ["mmproj-F16.gguf", "mmproj-Other-7B-f16.gguf", "mmproj-model-f16.gguf"])
def test_among_many_models_a_projector_that_names_none_is_not_taken(projector: str) -> None:
    """It could be anybody's."""
    assert chosen("Foo-7B-Q4_0", projector) is None


@pytest.mark.parametrize("projector", ["mmproj-F16.gguf", "mmproj-model-f16.gguf"])
def test_in_a_folder_of_its_own_any_projector_is_taken(projector: str) -> None:
    """Its folder says whose it is."""
    assert chosen("Foo-7B-Q4_0", projector, is_flat=False) == projector


def test_half_precision_is_preferred() -> None:
    """As llama.cpp does when it downloads one."""
    names = ("mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-Q8_0.gguf")

    assert chosen("Foo", *names, is_flat=False) == "mmproj-F16.gguf"
    assert chosen("Foo", "mmproj-F32.gguf", "mmproj-a.gguf", is_flat=False) == "mmproj-F32.gguf"


def test_without_projectors_there_is_none() -> None:
    """Most models see nothing."""
    assert chosen("Foo", is_flat=False) is None
