"""Names resolve in one order, and never to two models at once."""

import pytest

from meshllm.core.ids import ModelId
from meshllm.core.names import Ambiguous, GivenName, NameIndex, Unknown

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


VERSIONED = NameIndex(
    [ModelId("foo"), ModelId("foo-new"), ModelId("bar")],
    {"bar@stable": [ModelId("foo")]},
    [
        GivenName("foo", "1.1.0", ModelId("foo-new")), GivenName("bar", "2.0.0", ModelId("foo-new")),
        GivenName("baz", "odd", ModelId("foo")), GivenName("baz", "0.1.0", ModelId("bar")),
        GivenName("two", "1.0.0", ModelId("foo")), GivenName("two", "1.0.0", ModelId("bar")),
    ],
)  # fmt: skip


@pytest.mark.rows("ADR-12", "REG-10")
@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("foo", "foo-new"), ("FOO", "foo-new"), ("foo@1.1.0", "foo-new"), ("Foo@1.1.0", "foo-new"),
        ("foo@1.0.0", "foo"), ("bar", "foo"), ("bar@stable", "foo"), ("bar@2.0.0", "foo-new"), ("baz", "bar"),
        ("baz@odd", "foo"),
    ],
)  # fmt: skip
def test_versions_come_before_files_of_the_same_name(asked: str, model: str) -> None:
    """The stable one, else the highest; a file whose version nobody said is the first."""
    assert VERSIONED.resolve(asked) == model


def test_a_version_that_two_files_have_is_ambiguous_and_one_that_none_has_unknown() -> None:
    """As with any name."""
    assert VERSIONED.resolve("two@1.0.0") == Ambiguous("two@1.0.0", ("bar", "foo"))
    assert isinstance(VERSIONED.resolve("foo@9.9.9"), Unknown)
    assert isinstance(VERSIONED.resolve("nothing@1.0.0"), Unknown)


def test_all_that_a_name_may_mean_is_told() -> None:
    """For whoever names a file by its digest too."""
    assert VERSIONED.meant_by("foo") == ("foo-new", "foo")
    assert VERSIONED.meant_by("two@1.0.0") == ("bar", "foo")
    assert VERSIONED.meant_by("nothing") == ()


def test_an_index_that_includes_nothing_more_is_the_same() -> None:
    """Whoever holds it need not look again."""
    assert VERSIONED.including([ModelId("foo")], {"bar@stable": [ModelId("foo")]}) is VERSIONED
    more = VERSIONED.including([ModelId("qux")], {"bar@stable": [ModelId("qux")], "q": [ModelId("qux")]})

    assert [more.resolve(name) for name in ("foo", "q", "bar@2.0.0")] == ["foo-new", "qux", "foo-new"]
    assert isinstance(more.resolve("bar@stable"), Ambiguous)


def test_near_names_are_found_among_thousands() -> None:
    """Without comparing each of them letter by letter, and once for the same mistake."""
    index = NameIndex([ModelId(f"model-{number}-q4") for number in range(1_500)])

    found = index.resolve("modle-77-q4")

    assert isinstance(found, Unknown)
    assert "model-77-q4" in found.near
    assert index.resolve("modle-77-q4") is found
