"""What people say about models, as values."""

from meshllm.core.policy import LoadMode, ModelPolicy


def test_a_policy_that_says_nothing_leaves_the_choice_to_the_node() -> None:
    """Naming a model is not yet an opinion about it."""
    said = ModelPolicy(name="tiny")

    assert (said.load, said.is_enabled, said.is_pinned) == (LoadMode.LAZY, True, False)
    assert (said.min_replicas, said.min_warm, said.idle_unload_s) == (0, 0, None)


def test_the_words_of_configurations() -> None:
    """People write them: they stay."""
    assert {mode.value for mode in LoadMode} == {"lazy", "eager", "off"}
