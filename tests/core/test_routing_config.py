"""What people may say about routing: partial changes, their refusals, and which choice counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.ids import NodeId
from meshllm.core.routing_config import (
    DEFAULT,
    KEYS,
    ConfigFault,
    RoutingChoice,
    RoutingConfig,
    RoutingConfigError,
    RoutingRegister,
    ScoreWeights,
    Shadow,
    Strategy,
    checked,
    differing,
    newest,
    patched,
    shown,
    unwrapped,
)

ME, OTHER = NodeId("me"), NodeId("other")


def test_there_are_eight_strategies_by_their_names() -> None:
    """People write them."""
    assert list(Strategy) == [
        "round_robin", "least_loaded", "cache_aware", "quota_aware", "random", "weighted_random", "latency_based",
        "affinity_based",
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["fastest", "", 3, None, ["random"], {}])
def test_any_other_strategy_is_refused_with_the_list(value: object) -> None:
    """Null brings the default back and is no mistake."""
    if value is None:
        assert patched(RoutingConfig(strategy=Strategy.RANDOM), {"strategy": None}) == DEFAULT
        return

    with pytest.raises(RoutingConfigError, match=r"round_robin, least_loaded, .*affinity_based") as caught:
        patched(DEFAULT, {"strategy": value})

    assert (caught.value.fault, caught.value.key) == (ConfigFault.INVALID_STRATEGY, "strategy")


@pytest.mark.rows("RTE-2")
def test_the_document_of_a_node_that_was_told_nothing() -> None:
    """Every key, with its default."""
    assert RoutingRegister().shown() == {
        "strategy": "cache_aware", "model_strategy": "least_loaded", "enable_health_checks": True,
        "enable_quota_checks": True, "enable_cache_optimization": True, "max_load_threshold": 0.85,
        "min_cache_hit_rate": 0.3, "affinity_timeout_sec": 300, "affinity_from_user": False, "max_retries": 3,
        "retry_delay_ms": 100, "unknown_model": "reject", "ab_test_enabled": False, "ab_test_split": 0.5,
        "ab_test_model_a": None, "ab_test_model_b": None, "ab_test_variants": {}, "weights": {},
        "score_weights": {"cache": 0.4, "load": 0.4, "quota": 0.2}, "shadow": [], "rollout": {},
        "routing_time_alarm_us": 1000, "scope": "mesh", "version": 0,
    }  # fmt: skip


def test_a_change_leaves_what_it_does_not_name() -> None:
    """Somebody who posts one key means one key."""
    before = patched(DEFAULT, {"strategy": "random", "weights": {"a": 1, "b": 2}})

    after = patched(before, {"max_retries": 1, "retry_delay_ms": 250, "weights": {"a": None, "c": 0.5}})

    assert (after.strategy, after.max_retries, after.retry_delay_s) == (Strategy.RANDOM, 1, 0.25)
    assert after.weights == (("b", 2.0), ("c", 0.5))


def test_what_is_shown_can_be_sent_back() -> None:
    """A person edits what they got."""
    config = patched(DEFAULT, {
        "strategy": "weighted_random", "weights": {"x": 3}, "score_weights": {"cache": 1}, "max_load_threshold": 0.5,
        "ab_test_variants": {"a": 1, "b": 2}, "ab_test_enabled": True,
        "shadow": [{"of": "a", "to": "b", "sample": 0.1}], "ab_test_model_a": "a", "unknown_model": "fallback",
        "rollout": {"of": "a", "to": "b", "steps": [["1%", "10m"], [0.25, "1.5h"], [0.5, 7], ["100%"]]},
    })  # fmt: skip

    assert patched(DEFAULT, shown(config)) == config
    assert shown(config)["rollout"] == {
        "of": "a", "to": "b", "steps": [[0.01, 600.0], [0.25, 5400.0], [0.5, 7.0], [1.0]],
    }  # fmt: skip
    assert patched(config, {"rollout": {}}).rollout is patched(config, {"rollout": None}).rollout is None


@pytest.mark.parametrize(
    ("changes", "fault", "key"),
    [
        ({"stratgy": "random"}, ConfigFault.UNKNOWN_KEY, "stratgy"),
        ({"max_load_threshold": 1.5}, ConfigFault.INVALID_VALUE, "max_load_threshold"),
        ({"max_load_threshold": True}, ConfigFault.INVALID_VALUE, "max_load_threshold"),
        ({"min_cache_hit_rate": float("nan")}, ConfigFault.INVALID_VALUE, "min_cache_hit_rate"),
        ({"affinity_timeout_sec": "300"}, ConfigFault.INVALID_VALUE, "affinity_timeout_sec"),
        ({"affinity_timeout_sec": -1}, ConfigFault.INVALID_VALUE, "affinity_timeout_sec"),
        ({"enable_quota_checks": 1}, ConfigFault.INVALID_VALUE, "enable_quota_checks"),
        ({"max_retries": 2.5}, ConfigFault.INVALID_VALUE, "max_retries"),
        ({"max_retries": 11}, ConfigFault.INVALID_VALUE, "max_retries"),
        ({"max_retries": 10**400}, ConfigFault.INVALID_VALUE, "max_retries"),
        ({"retry_delay_ms": 10**400}, ConfigFault.INVALID_VALUE, "retry_delay_ms"),
        ({"unknown_model": "guess"}, ConfigFault.INVALID_VALUE, "unknown_model"),
        ({"unknown_model": ["reject"]}, ConfigFault.INVALID_VALUE, "unknown_model"),
        ({"weights": {"a\x1b[2J": 1}}, ConfigFault.INVALID_VALUE, "weights"),
        ({"weights": {"\ud800": 1}}, ConfigFault.INVALID_VALUE, "weights"),
        ({"weights": {f"{n:0500}": 1 for n in range(20)}}, ConfigFault.INVALID_VALUE, "weights"),
        ({"weights": [1]}, ConfigFault.INVALID_VALUE, "weights"),
        ({"weights": {"a": -1}}, ConfigFault.INVALID_VALUE, "weights.a"),
        ({"weights": {"": 1}}, ConfigFault.INVALID_VALUE, "weights"),
        ({"score_weights": {"speed": 1}}, ConfigFault.INVALID_VALUE, "score_weights"),
        ({"score_weights": 3}, ConfigFault.INVALID_VALUE, "score_weights"),
        ({"shadow": {}}, ConfigFault.INVALID_VALUE, "shadow"),
        ({"shadow": [{"of": "a"}]}, ConfigFault.INVALID_VALUE, "shadow[0]"),
        ({"shadow": [{"of": "a", "to": "b", "sample": 2}]}, ConfigFault.INVALID_VALUE, "shadow[0].sample"),
        ({"rollout": []}, ConfigFault.INVALID_VALUE, "rollout"),
        ({"rollout": {"of": "a", "to": "b"}}, ConfigFault.INVALID_VALUE, "rollout"),
        ({"rollout": {"of": "a", "to": 3, "steps": [[1]]}}, ConfigFault.INVALID_VALUE, "rollout.to"),
        *(
            ({"rollout": {"of": "a", "to": "b", "steps": steps}}, ConfigFault.INVALID_VALUE, f"rollout.steps{where}")
            for steps, where in (
                ([], ""),
                ([[1]] * 33, ""),
                (3, ""),
                ([[0.1], [1]], "[0]"),
                ([[0.1, 5]], "[0]"),
                ([["10", 5], [1]], "[0]"),
                ([["1e1%", 5], [1]], "[0]"),
                ([["-1%", 5], [1]], "[0]"),
                ([[0.1, -5], [1]], "[0]"),
                ([[0.1, "5w"], [1]], "[0]"),
                ([[0.1, 10**400], [1]], "[0]"),
                ([[float("nan"), 1], [1]], "[0]"),
                ([["%", 1], [1]], "[0]"),
                ([5], "[0]"),
                ([["101%"]], "[0]"),
                ([[True]], "[0]"),
            )
        ),
        ({"ab_test_model_a": 3}, ConfigFault.INVALID_VALUE, "ab_test_model_a"),
        ({"ab_test_enabled": True, "ab_test_model_a": "a"}, ConfigFault.INVALID_VALUE, "ab_test_enabled"),
    ],
)
def test_a_bad_change_is_refused_by_its_key(changes: dict[str, object], fault: ConfigFault, key: str) -> None:
    """Nothing of it is taken."""
    with pytest.raises(RoutingConfigError) as caught:
        patched(DEFAULT, changes)

    assert (caught.value.fault, caught.value.key) == (fault, key)
    assert key.partition(".")[0] in caught.value.message


def test_ab_test_as_a_strategy_compares_two_models() -> None:
    """The strategy within each stays what it was."""
    config = patched(DEFAULT, {"strategy": "ab_test", "ab_test_model_a": "a", "ab_test_model_b": "b"})

    assert (config.ab_test_enabled, config.strategy) == (True, Strategy.CACHE_AWARE)
    assert patched(config, {"ab_test_enabled": False}).ab_test_enabled is False


def test_a_choice_for_the_mesh_has_a_higher_version_and_its_author() -> None:
    """So that every node comes to the same one."""
    first = RoutingRegister().changed({"strategy": "random"}, ME)
    second = first.changed({"max_retries": 2, "version": 1}, OTHER)

    assert first.mesh is not None
    assert second.mesh is not None
    assert (second.version, second.mesh.author, second.scope) == (2, OTHER, "mesh")
    assert second.effective == RoutingConfig(strategy=Strategy.RANDOM, max_retries=2)
    assert newest([second.mesh, first.mesh]) == second.mesh
    assert newest([]) is None


def test_two_choices_of_one_version_are_ordered_by_their_authors() -> None:
    """Two people press the button at once."""
    mine, others = (RoutingChoice(config=DEFAULT, version=4, author=author) for author in (ME, OTHER))

    assert newest([mine, others]) == newest([others, mine]) == others


def test_a_node_may_differ_from_its_mesh_until_somebody_chooses_for_the_mesh_there() -> None:
    """What is said last at a node counts there."""
    register = RoutingRegister().changed({"strategy": "random"}, ME)

    differing = register.changed({"scope": "node", "strategy": "round_robin"}, ME)
    again = differing.changed({"max_retries": 0}, ME)
    ended = again.changed({"scope": "mesh", "max_retries": 5}, ME)

    assert (differing.scope, differing.version, differing.effective.strategy) == ("node", 1, Strategy.ROUND_ROBIN)
    assert (again.scope, again.effective.max_retries, again.mesh) == ("node", 0, register.mesh)
    assert (ended.scope, ended.version, ended.node) == ("mesh", 2, None)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"scope": "world"}, ConfigFault.INVALID_VALUE),
        ({"version": 7}, ConfigFault.VERSION_CONFLICT),
        ({"scope": ["mesh"]}, ConfigFault.INVALID_VALUE),
        ({"version": "0"}, ConfigFault.INVALID_VALUE),
        ({"version": False}, ConfigFault.INVALID_VALUE),
        ({"routing_config": [1]}, ConfigFault.INVALID_VALUE),
    ],
)
def test_a_choice_for_nobody_or_about_old_news_is_refused(document: dict[str, object], fault: ConfigFault) -> None:
    """Somebody else was quicker: look again."""
    with pytest.raises(RoutingConfigError) as caught:
        RoutingRegister().changed(document, ME)

    assert caught.value.fault is fault


def test_a_change_for_the_mesh_is_one_of_the_meshs_choice() -> None:
    """What a node has for itself is not made everybody's in passing; going back to the mesh's is no choice."""
    register = RoutingRegister().changed({"max_retries": 1}, ME)
    differing_here = register.changed({"scope": "node", "strategy": "random"}, ME)

    assert differing_here.changed({"scope": "mesh", "max_retries": 2}, ME).effective == RoutingConfig(max_retries=2)
    assert differing_here.changed({"scope": "mesh"}, ME) == register
    assert register.changed({"max_retries": 2}, ME, usual="node").scope == "node"


def test_keys_may_lie_below_one_as_some_programs_send_them() -> None:
    """Both forms mean the same; a key in both is a mistake."""
    assert unwrapped({"routing_config": {"strategy": "random"}, "scope": "node"}) == {
        "strategy": "random", "scope": "node"
    }  # fmt: skip
    assert RoutingRegister().changed({"routing_config": {"strategy": "random"}}, ME).effective == RoutingConfig(
        strategy=Strategy.RANDOM
    )
    with pytest.raises(RoutingConfigError, match="given once") as caught:
        unwrapped({"routing_config": {"strategy": "random"}, "strategy": "random"})
    assert caught.value.key == "strategy"


def test_every_key_that_does_not_exist_is_named() -> None:
    """A person mends all at once."""
    with pytest.raises(RoutingConfigError, match="'stratgy', 'retries'; the keys are: strategy, model_strategy"):
        patched(DEFAULT, {"stratgy": "random", "max_retries": 1, "retries": 2})


@pytest.mark.parametrize(
    "config",
    [
        RoutingConfig(max_retries=-1), RoutingConfig(weights=(("", 1.0),)), RoutingConfig(max_load=9.0),
        RoutingConfig(score_weights=ScoreWeights(cache=-1.0)), RoutingConfig(ab_test_enabled=True),
        RoutingConfig(shadow=(Shadow(of="a", to="b", sample=0.5),) * 65), RoutingConfig(unknown_model="guess"),
    ],
)  # fmt: skip
def test_what_nobody_could_have_set_is_not_taken_from_elsewhere(config: RoutingConfig) -> None:
    """A peer or a file says it."""
    assert checked(RoutingConfig(strategy=Strategy.RANDOM)) == RoutingConfig(strategy=Strategy.RANDOM)

    with pytest.raises(RoutingConfigError):
        checked(config)


def test_a_difference_names_keys_with_before_and_after() -> None:
    """For a log of changes."""
    assert differing(DEFAULT, RoutingConfig(retry_delay_s=0.25)) == {"retry_delay_ms": (100.0, 250.0)}
    assert tuple(shown(DEFAULT)) == KEYS


def test_what_a_node_was_started_with_wins_over_what_is_chosen() -> None:
    """`--unknown-model`: at that node, and of it nothing is said to others."""
    register = RoutingRegister(unknown_model="fallback")

    changed = register.changed({"max_retries": 1, "unknown_model": "reject"}, ME)
    here = changed.changed({"scope": "node", "max_retries": 2}, ME)

    assert (register.effective.unknown_model, changed.shown()["unknown_model"]) == ("fallback", "fallback")
    assert changed.mesh is not None
    assert changed.mesh.config.unknown_model == "reject"
    assert here.node == RoutingConfig(max_retries=2)
    assert here.effective == RoutingConfig(max_retries=2, unknown_model="fallback")


_ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([*Strategy, "node", "fallback"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*KEYS, "scope", "version", "routing_config", "other"]), _ANY_JSON, max_size=4))
def test_whatever_is_sent_is_taken_or_refused(document: dict[str, object]) -> None:
    """Never a mistake of ours; what is taken, every other node takes as well."""
    before = RoutingRegister().changed({"strategy": "random"}, ME)

    try:
        after = before.changed(document, ME)
    except RoutingConfigError:
        after = before

    assert checked(after.effective).strategy == after.effective.strategy
    assert after.version in (1, 2)
