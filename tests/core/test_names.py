"""Names resolve in one order, and never to two models at once."""

import pytest

from meshllm.core.ids import ModelId
from meshllm.core.names import Ambiguous, NameIndex, Unknown

INDEX = NameIndex(
    [ModelId("Qwen2.5-3B-Instruct-Q4_K_M"), ModelId("Qwen2.5-3B-Instruct-Q8_0"), ModelId("SmolLM2-135M-Instruct.Q4_1")],
    {
        "smollm2-135m": [ModelId("SmolLM2-135M-Instruct.Q4_1")],
        "both": [ModelId("Qwen2.5-3B-Instruct-Q8_0"), ModelId("SmolLM2-135M-Instruct.Q4_1")],
    },
)


@pytest.mark.rows("ADR-1")
@pytest.mark.parametrize(
    "asked",
    [
        "SmolLM2-135M-Instruct.Q4_1",
        "smollm2-135m-instruct.q4_1",
        "smollm2-135m",
        "SMOLLM2-135M",
        "SmolLM2-135M-Instruct",
    ],
)
def test_id_alias_stem_and_case_all_lead_to_the_model(asked: str) -> None:
    """People write a name in the way they know it."""
    assert INDEX.resolve(asked) == "SmolLM2-135M-Instruct.Q4_1"


def test_stem_of_two_quantisations_is_ambiguous() -> None:
    """Guessing between two files would serve another model tomorrow."""
    found = INDEX.resolve("qwen2.5-3b-instruct")

    assert found == Ambiguous("qwen2.5-3b-instruct", ("Qwen2.5-3B-Instruct-Q4_K_M", "Qwen2.5-3B-Instruct-Q8_0"))


@pytest.mark.rows("ADR-1")
def test_alias_of_two_models_is_ambiguous() -> None:
    """An alias that two models claim resolves to neither."""
    assert isinstance(INDEX.resolve("both"), Ambiguous)


@pytest.mark.rows("ADR-1")
def test_exact_id_wins_over_every_other_reading() -> None:
    """A model named like the alias of another is still reachable."""
    index = NameIndex([ModelId("a"), ModelId("b")], {"a": [ModelId("b")]})

    assert index.resolve("a") == "a"


@pytest.mark.parametrize("asked", ["../x", "-m", "a\nb", "🦙", "x" * 10_000, " "])
def test_strange_names_are_unknown(asked: str) -> None:
    """A name is only ever compared, never interpreted."""
    assert isinstance(INDEX.resolve(asked), Unknown)


def test_typing_error_gets_near_names() -> None:
    """The answer to a typing error is the name that was meant."""
    found = INDEX.resolve("smolm2-135m")

    assert isinstance(found, Unknown)
    assert "smollm2-135m" in found.near


def test_aliases_of_a_model_are_listed() -> None:
    """The model list shows by which other names a model answers."""
    assert INDEX.aliases_of(ModelId("SmolLM2-135M-Instruct.Q4_1")) == ("both", "smollm2-135m")
