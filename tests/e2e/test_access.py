"""Who may change a node: its user, whoever shows a key, and nobody else on the same machine."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.daemons import Daemon

pytestmark = pytest.mark.e2e
Maker = Callable[..., Daemon]
NOBODY = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@contextmanager
def somebody_else() -> Iterator[None]:
    """Make connections as another user of this machine."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@needs_root
@pytest.mark.rows("SEC-1", "SEC-2")
def test_another_user_of_the_machine_may_ask_and_drops_nothing(daemon: Maker) -> None:
    """Inference is open on loopback; what changes the node is its user's."""
    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")

        with somebody_else():
            asked = node.chat()
            refused = [
                node.request("POST", "/mesh/drop", {"model": "tiny"}), node.request("POST", "/api/tokens", {}),
                node.request("POST", "/v1/models/unload", {"model_id": "tiny"}),
                node.request("DELETE", "/api/models/tiny"),
            ]  # fmt: skip
            looked = node.request("GET", "/api/status")
        own = node.run("unload", "tiny")

        assert (asked.status, looked.status) == (200, 200)
        assert [(one.status, one.error["code"]) for one in refused] == [(403, "not_allowed")] * len(refused)
        assert own.returncode == 0, own.stderr
        assert "127.0.0.1 stranger" in node.log
        assert "127.0.0.1 owner" in node.log


@pytest.mark.rows("SEC-2")
def test_an_admin_key_is_wanted_of_everybody_and_commands_show_it(daemon: Maker) -> None:
    """In either header; the API key is not enough; inference takes either key."""
    with daemon("--model", "tiny", "--api-key", "of-all", "--admin-key", "of-admins") as node:
        api, admin = {"X-API-Key": "of-all"}, {"Authorization": "Bearer of-admins"}
        refused = node.request("POST", "/v1/models/pin", {"model_id": "tiny"}, headers=api)
        done = node.request("POST", "/v1/models/pin", {"model_id": "tiny"}, headers=admin)
        lists = [node.request("GET", "/v1/models", headers=headers).status for headers in (api, admin, {})]
        told = node.run("unload", "tiny", "--port", str(node.port))
        node.environment["MESH_LLM_ADMIN_KEY"] = "of-admins"
        unloaded = node.run("unload", "tiny", "--port", str(node.port))

    assert (refused.status, refused.error["code"]) == (401, "missing_admin_key")
    assert done.status == 200
    assert lists == [200, 200, 401]
    assert told.returncode == 1
    assert unloaded.returncode == 0, unloaded.stderr


@needs_root
@pytest.mark.rows("SEC-2")
def test_a_node_may_be_told_to_trust_its_machine(daemon: Maker) -> None:
    """Then another user administers it, too, without the key."""
    with daemon("--model", "tiny", "--admin-key", "of-admins", "--insecure-local-admin") as node:
        node.until_model("tiny", phase="ready")

        with somebody_else():
            unloaded = node.request("POST", "/v1/models/unload", {"model_id": "tiny"})

    assert unloaded.status == 200
