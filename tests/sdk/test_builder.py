"""What a program says of its node becomes the configuration of one."""

from pathlib import Path

import pytest

from meshllm.sdk.builder import MeshNodeBuilder, Model, Plan
from meshllm.sdk.errors import NodeStartError


async def as_planned(plan: Plan) -> Plan:
    """Return the plan in the place of a node."""
    return plan


def a_builder() -> MeshNodeBuilder[Plan]:
    """Return a builder that starts nothing."""
    return MeshNodeBuilder(as_planned)


async def test_models_keep_their_order_names_and_levels(tmp_path: Path) -> None:
    """The first is the default; each has its alias."""
    builder = a_builder().add_model(Model("foo-7b").with_isq("Q4K")).add_model_with_alias("eyes", "bar")

    plan = await builder.with_settings(state_dir=tmp_path).build()
    config = plan.config

    assert plan.models == ("foo-7b:Q4_K_M", "bar")
    assert config.default_model == "foo-7b:Q4_K_M"
    assert [policy.aliases for policy in config.policies] == [("foo-7b",), ("eyes",)]


async def test_a_default_may_be_an_alias(tmp_path: Path) -> None:
    """Said before or after the model."""
    builder = a_builder().with_default_model("eyes").add_model("foo").add_model_with_alias("eyes", "bar")

    plan = await builder.with_settings(state_dir=str(tmp_path)).build()

    assert plan.config.default_model == "eyes"


async def test_a_node_is_alone_and_private_unless_it_is_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of its own, a folder that goes with it, nobody on the network; nothing of the daemon's environment."""
    monkeypatch.setenv("MESH_LLM_PORT", "1234")
    monkeypatch.setenv("MESH_LLM_MODEL", "other")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config" / "mesh-llm").mkdir(parents=True)
    (tmp_path / ".config" / "mesh-llm" / "config.toml").write_text('models = ["a"]\nname = "daemon"')

    plan, other = a_builder().plan(), a_builder().plan()
    config = plan.config

    assert (config.port, config.host, config.models, config.assign) == (0, "127.0.0.1", (), "off")
    assert (config.no_mdns, config.bind_ip) == (True, "127.0.0.1")
    assert config.name != "daemon"
    assert len(config.api_key) > 20
    assert config.api_key != other.config.api_key
    assert config.state_dir == plan.own_folder != other.own_folder
    for one in (plan, other):
        assert one.own_folder is not None
        one.own_folder.rmdir()


async def test_settings_are_those_of_the_configuration(tmp_path: Path) -> None:
    """By their names, with the same checks; what joins a mesh is not alone."""
    settings = {"port": 9444, "ctx_size": 2048, "join": ["token"], "state_dir": tmp_path, "api_key": "k", "host": None}

    config = a_builder().with_settings(**settings).plan().config

    assert (config.port, config.ctx_size, config.join, config.api_key) == (9444, 2048, ("token",), "k")
    assert (config.no_mdns, config.bind_ip, config.host) == (False, "", "127.0.0.1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nonsense": 1}, "there is no setting 'nonsense'"),
        ({"models": ["a"]}, "there is no setting 'models'"),
        ({"ctx_size": "many"}, "--ctx-size"),
        ({"isq": "Q4K"}, "--isq: models are not quantised while they load"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_stays(
    settings: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is for people; the folder is gone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(NodeStartError, match=message):
        a_builder().with_settings(**settings).plan()

    assert list(tmp_path.iterdir()) == []


def test_names_are_unique_and_none_is_reserved() -> None:
    """A request has to mean one model."""
    builder = a_builder().add_model_with_alias("eyes", "foo")

    for again in ("Foo", "EYES"):
        with pytest.raises(NodeStartError, match="the name of two models"):
            builder.add_model(again)
    for reserved in ("auto", "Default", " "):
        with pytest.raises(NodeStartError, match="cannot name a model"):
            builder.add_model_with_alias(reserved, "bar")
    with pytest.raises(NodeStartError, match="the default 'nobody' is none of the models: eyes, foo"):
        builder.with_default_model("nobody").plan()


def test_a_level_that_no_file_has_is_refused_with_the_nearest() -> None:
    """And so is one beside a file's path."""
    with pytest.raises(NodeStartError, match="the nearest is Q4_K_M"):
        Model("foo").with_quant("AFQ4")
    with pytest.raises(NodeStartError, match="names its file already"):
        _ = Model("/models/foo.gguf", quant="4").full_name


async def test_the_path_of_a_file_is_no_alias(tmp_path: Path) -> None:
    """It is asked for by the name of its file."""
    file = tmp_path / "foo.gguf"
    file.touch()

    plan = await a_builder().add_model(str(file)).with_settings(state_dir=tmp_path).build()

    assert plan.models == ("foo",)
    assert (plan.config.policies[0].name, plan.config.policies[0].aliases) == (str(file), ())
