"""Routes are remembered as long as the view is the same, and pools as long as their engine lives."""

from pathlib import Path

import pytest

from meshllm.core.engines import EngineEndpoint, EngineState
from meshllm.core.ids import ModelId
from meshllm.core.routing.routes import Refusal, Wait
from meshllm.core.routing_config import RoutingRegister
from meshllm.proxy.paths import INFERENCE
from meshllm.proxy.target import Target
from meshllm.proxy.targets import Targets, Tunnels
from meshllm.proxy.traffic import Traffic
from meshllm.proxy.tunnel_pool import NoTunnels
from meshllm.proxy.ways import Reach
from tests.core.builders import a_spec
from tests.proxy.builders import FALLING_BACK, NODE, ViewsDouble, a_house, a_model, a_view

CHAT, VECTORS = INFERENCE["/v1/chat/completions"], INFERENCE["/v1/embeddings"]


def made(*models: object, **facts: object) -> tuple[Targets, ViewsDouble]:
    """Return targets over a view of those models."""
    views = ViewsDouble(a_view(*models, **facts))  # type: ignore[arg-type]
    return Targets(views, Traffic(), NODE, Path("/api.sock"), Tunnels(NoTunnels(), Reach(print))), views


async def test_a_route_is_planned_once_for_a_view() -> None:
    """Thousands of requests, one plan."""
    targets, views = made(a_model(socket="/a"))

    first = targets.find("tiny", CHAT)

    assert targets.find("tiny", CHAT) is first
    views.publish(a_model(socket="/b"))
    second = targets.find("tiny", CHAT)
    assert isinstance(second, Target)
    assert second is not first
    assert second.pool.endpoint == EngineEndpoint(socket_path="/b", key="engine-key")


async def test_the_same_engine_keeps_its_pool_from_view_to_view() -> None:
    """A view changes with every percent of some other model's load."""
    targets, views = made(a_model(socket="/a"))
    first = targets.find("tiny", CHAT)

    views.publish(a_model(socket="/a"), a_model("other", state=EngineState.STARTING))
    second = targets.find("tiny", CHAT)

    assert isinstance(first, Target)
    assert isinstance(second, Target)
    assert first.pool is second.pool


async def test_waits_and_refusals_are_asked_anew() -> None:
    """Names are the clients' to choose: remembering all of them would be a leak."""
    targets, _ = made(a_model(state=EngineState.STARTING))

    assert isinstance(targets.find("tiny", CHAT), Wait)
    assert isinstance(targets.find("nobody", CHAT), Refusal)
    assert targets.known == {}


@pytest.mark.rows("API-3")
async def test_what_a_model_cannot_do_is_refused() -> None:
    """API-3: vectors only of models that make them."""
    targets, _ = made(a_model(socket="/a"))

    refusal = targets.find("tiny", VECTORS)

    assert isinstance(refusal, Refusal)
    assert refusal.code == "capability_not_supported"


@pytest.mark.rows("PRX-5")
async def test_an_unknown_name_falls_back_where_that_is_wished() -> None:
    """X1: the default, visibly; never for vectors, which are not comparable."""
    models = (a_model("a", socket="/a"), a_model("b", socket="/b"))
    targets, views = made(*models, routing=RoutingRegister(node=FALLING_BACK))

    target = targets.find("nobody", CHAT)

    assert isinstance(target, Target)
    assert target.model == "a"
    assert b"X-Mesh-Route-Reason: fallback\r\nX-Mesh-Fallback: unknown_model\r\n" in target.client_lines
    assert isinstance(targets.find("nobody", VECTORS), Refusal)
    views.publish(a_model("a", state=EngineState.FAILED), a_model("b", socket="/b"), default="a")
    fallen = targets.find("nobody", CHAT)
    assert isinstance(fallen, Target | Wait)


async def test_names_cannot_split_an_answer() -> None:
    """A file may be called anything; a header may not."""
    name = "a\r\nSet-Cookie: b é"
    targets, _ = made(a_model(name, socket="/a", spec=a_spec(name)))

    target = targets.find(name, CHAT)

    assert isinstance(target, Target)
    assert target.client_lines.count(b"\r\n") == 3
    assert b"X-Mesh-Model: a%0D%0ASet-Cookie: b %C3%A9\r\n" in target.client_lines


async def test_connections_to_an_engine_that_is_gone_are_closed() -> None:
    """Descriptors are few."""
    async with a_house() as house:
        await house.chat()
        assert house.engine.open == 1

        house.views.publish(a_model("tiny", state=EngineState.STOPPED))
        await house.door._targets.views.changed(1)
        house.door._targets.find(ModelId("tiny"), CHAT)
        await house.engine.hung_up.wait()

        assert house.engine.open == 0
