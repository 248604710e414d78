"""`scripts/fake_mesh`: the real management API over a simulated mesh, for people who work on the console."""

from aiohttp.test_utils import TestClient, TestServer

from meshllm.api.app import make_app
from meshllm.testing.scenario import Scenario
from scripts.fake_mesh_node import FakeMeshNode
from scripts.serve_fake_mesh import HOSTILE, ME, story

NODES = 8
DEATH_S = 20.0


def a_mesh() -> FakeMeshNode:
    """Return a small mesh, as seen by its first node."""
    scenario = Scenario()
    for order in story(NODES, is_hostile=True):
        scenario.obey(order)
    return FakeMeshNode(scenario, ME, "127.0.0.1:1")


async def test_the_simulated_mesh_is_shown_by_the_real_api() -> None:
    """What the console reads of a real node it can read here; a name full of markup is a name."""
    node = a_mesh()
    async with TestClient(TestServer(make_app(node))) as client:
        document = await (await client.get("/api/status")).json()

    names = {member["name"] for member in document["members"]}
    warmths = {model["id"]: model["warmth"] for model in document["mesh_models"]}
    assert len(names) == NODES + 1
    assert HOSTILE in names
    assert (warmths["chat-8b"], warmths["giant-400b"]) == ("warm", "cold")


async def test_orders_change_the_mesh_and_are_logged() -> None:
    """A node that is crashed is dead within the promise, and the log says so."""
    node = a_mesh()
    async with TestClient(TestServer(make_app(node))) as client:
        node.obey("crash n01")
        node.run_until(node.clock_s + DEATH_S)
        document = await (await client.get("/api/status")).json()
        log = await (await client.get("/api/logs")).text()

    assert {member["name"]: member["state"] for member in document["members"]}["n01"] == "dead"
    assert "member is dead" in log


async def test_requests_leave_decisions() -> None:
    """With candidates of the simulated mesh, each with a score."""
    node = a_mesh()
    node.obey(f"traffic chat-8b 5 at {ME}")
    node.run_until(node.clock_s + DEATH_S)
    async with TestClient(TestServer(make_app(node))) as client:
        explained = await (await client.get("/api/explain")).json()
        stats = await (await client.get("/routing/stats")).json()

    assert explained["decisions"][0]["candidates"][0]["candidate"] in node.scenario.mesh.nodes
    assert stats["successful_routes"] > 0


async def test_routing_can_be_changed() -> None:
    """By the core of the simulated node, which answers as a real one does."""
    async with TestClient(TestServer(make_app(a_mesh()))) as client:
        changed = await (await client.post("/routing/config", json={"strategy": "random"})).json()
        refused = await client.post("/routing/config", json={"strategy": "fastest"})

    assert (changed["strategy"], refused.status) == ("random", 400)
