"""What a node knows of itself before anything runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.config import Config
from meshllm.core.announcement import Address, ModelOrder
from meshllm.core.effects import KeptOrders
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.policy import ModelPolicy
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.core.routing_config import RoutingChoice, RoutingConfig
from meshllm.daemon.errors import BadTokenError
from meshllm.daemon.mesh_start import begin, core_config, rights_of
from meshllm.daemon.state_dir import StateDir
from meshllm.wire.orders import kept_orders


def a_config(tmp_path: Path) -> Config:
    """Return a configuration with folders of its own."""
    return Config(state_dir=tmp_path / "s", runtime_dir=tmp_path / "r", models_dirs=(tmp_path / "m",), name="n")


def test_the_first_start_founds_a_mesh_and_the_next_goes_on_in_it(tmp_path: Path) -> None:
    """The same node, the same mesh, and an incarnation that was never there before."""
    config = a_config(tmp_path)
    state = StateDir(config.state_dir, config.runtime_dir)

    first, second = begin(config, state), begin(config, state)

    state.release()
    assert (first.node, first.place.mesh) == (second.node, second.place.mesh)
    assert second.incarnation > first.incarnation
    assert first.rights == OWN_MACHINE
    assert first.credentials.certificate
    assert not core_config(config, first).is_joining
    assert core_config(config, first).lends
    assert not core_config(replace(config, no_rpc=True), first).lends


def test_the_roster_of_the_last_run_is_dialled(tmp_path: Path) -> None:
    """A node that comes back needs no token, and says that it is joining."""
    config = a_config(tmp_path)
    state = StateDir(config.state_dir, config.runtime_dir)
    begin(config, state).files.keep_roster(((NodeId("b" * 52), (Address("192.0.2.7", 4000),)),))

    again = begin(config, state)

    state.release()
    assert [(contact.node, contact.source) for contact in again.contacts] == [("b" * 52, "roster")]
    assert core_config(config, again).is_joining


def test_a_client_needs_a_token(tmp_path: Path) -> None:
    """It has no mesh of its own to fall back to."""
    config = replace(a_config(tmp_path), client=True)
    state = StateDir(config.state_dir, config.runtime_dir)

    with pytest.raises(BadTokenError, match="give it a token"):
        begin(config, state)

    state.release(forget=True)


def test_whoever_is_no_member_has_no_rights() -> None:
    """Until a member lets it in."""
    assert rights_of(None, 0.0) is Rights.NONE


@pytest.mark.parametrize(
    ("changes", "fills", "downloads"),
    [
        ({}, True, True),
        ({"models": ("m",)}, True, False),
        ({"assign": "disk"}, True, False),
        ({"assign": "off"}, False, False),
        ({"offline": True}, True, False),
        ({"client": True}, False, False),
    ],
)
def test_what_a_node_is_ready_to_do_for_others_is_what_it_was_told(
    tmp_path: Path, changes: dict[str, object], fills: bool, downloads: bool
) -> None:
    """Decision 0032; what it may do is a matter of its rights, which the core knows."""
    config = a_config(tmp_path)
    state = StateDir(config.state_dir, config.runtime_dir)
    start = begin(config, state)
    state.release()

    serving = core_config(replace(config, **changes), start).serving

    assert (serving.fills_gaps, serving.downloads) == (fills, downloads)


def test_what_is_said_of_models_reaches_the_core(tmp_path: Path) -> None:
    """Paths as the names that their files have."""
    file = tmp_path / "x.gguf"
    file.write_bytes(b"")
    config = replace(
        a_config(tmp_path), policies=(ModelPolicy(name=str(file), slots=2),), default_model=str(file),
        serve_all=True, no_remote_control=True,
    )  # fmt: skip
    state = StateDir(config.state_dir, config.runtime_dir)
    start = begin(config, state)
    state.release()

    serving = core_config(config, start).serving

    assert serving.models == (ModelPolicy(name="x", slots=2),)
    assert serving.default_model == "x"
    assert serving.serves_all
    assert not serving.is_controllable


def test_what_was_said_to_a_mesh_is_not_said_to_another(tmp_path: Path) -> None:
    """A node that was made to leave one keeps what is its own."""
    config = a_config(tmp_path)
    state = StateDir(config.state_dir, config.runtime_dir)
    first = begin(config, state)
    order = ModelOrder(model=ModelId("m"), verb=Verb.UNLOAD, version=3, author=first.node, hold=True)
    routing = RoutingChoice(config=RoutingConfig(max_retries=1), version=4, author=first.node)
    kept = KeptOrders(orders=(order,), clock=3, held=(ModelId("h"),), routing=routing, routing_here=RoutingConfig())

    first.files.keep_orders({**kept_orders(kept), "mesh": first.place.mesh})
    same = begin(config, state).kept
    first.files.keep_orders({**kept_orders(kept), "mesh": "another"})
    other = begin(config, state).kept

    state.release()
    assert same == kept
    assert other == KeptOrders(held=(ModelId("h"),), routing_here=RoutingConfig())


def test_the_configuration_of_routing_is_told_to_the_core(tmp_path: Path) -> None:
    """The table, and the flag that wins over it."""
    config = replace(a_config(tmp_path), routing=RoutingConfig(max_retries=1), unknown_model="fallback")
    state = StateDir(config.state_dir, config.runtime_dir)

    core = core_config(config, begin(config, state))

    state.release()
    assert (core.routing, core.unknown_model) == (RoutingConfig(max_retries=1), "fallback")


def test_orders_of_the_last_run_are_told_to_the_core(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be read is said, and left out."""
    config = a_config(tmp_path)
    state = StateDir(config.state_dir, config.runtime_dir)
    first = begin(config, state)
    order = ModelOrder(model=ModelId("m"), verb=Verb.UNLOAD, version=3, author=first.node, hold=True)
    first.files.keep_orders(kept_orders(KeptOrders(orders=(order,), clock=3)))

    again = core_config(config, begin(config, state))
    first.files.keep_orders({"orders": "nonsense"})
    after = core_config(config, begin(config, state))

    state.release()
    assert (again.kept.orders, again.kept.clock, again.is_founder) == ((order,), 3, True)
    assert after.kept == KeptOrders()
    assert "orders of the last run cannot be read" in caplog.text
