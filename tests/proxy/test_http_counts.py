"""Every answer of a front door is counted, under names that nobody can make up."""

import asyncio
from collections.abc import Mapping

import pytest

from meshllm.core.http_numbers import UNKNOWN_MODEL, Labels
from meshllm.proxy.front_door import FrontDoor
from meshllm.proxy.http_counts import LEFT, MANAGEMENT, MODELS, OTHER, report_of
from tests.proxy.builders import CHAT, House, a_chat, a_get, a_house, a_post, answer_ok, until
from tests.proxy.tunnels import a_mesh


def counted(door: FrontDoor) -> Mapping[Labels, int]:
    """Return what was counted."""
    return report_of(door.http, door.traffic).requests


async def ask(house: House, **fields: object) -> int:
    """Ask the model something; return the status."""
    return (await house.ask(a_post(a_chat(**fields)))).status


@pytest.mark.rows("MET-8")
async def test_answers_of_every_kind_are_counted() -> None:
    """By the path that they came in at; whatever is not inference has few names."""
    async with a_house() as house:
        await ask(house)
        await house.ask(a_post({"model": "tiny", "prompt": "x"}, "/v1/completions"))
        await house.ask(a_get("/v1/models"))
        await house.ask(a_get("/v1/models/tiny"))
        await house.ask(a_get("/api/status"))
        await house.ask(a_get("/v1/chat/completions"))

        assert counted(house.door) == {
            ("POST", CHAT, "tiny", 200): 1, ("POST", "/v1/completions", "tiny", 200): 1,
            ("GET", MODELS, "", 200): 2, ("GET", MANAGEMENT, "", 200): 1, ("GET", CHAT, UNKNOWN_MODEL, 405): 1,
        }  # fmt: skip
        assert house.door.http.durations[CHAT, "tiny"].steps[-1][1] == 1


@pytest.mark.rows("MET-8")
async def test_a_model_that_nothing_has_is_unknown() -> None:
    """Clients that make up names make up no series."""
    async with a_house() as house:
        for number in range(5):
            await ask(house, model=f"made-up-{number}")

        assert counted(house.door) == {("POST", CHAT, UNKNOWN_MODEL, 404): 5}


async def test_a_model_is_counted_under_its_own_name() -> None:
    """Whatever it was called, `default` for one."""
    async with a_mesh(answer_ok) as (entry, _):
        await ask(entry, model="TINY")

        assert counted(entry.door) == {("POST", CHAT, "tiny", 200): 1}


async def test_requests_on_the_straight_lane_are_counted_with_the_others() -> None:
    """Nothing is timed there, and so one leaves it now and then."""
    async with a_house() as house:
        asked = 0
        while not sum(count for _, count in house.door.traffic.on_lane()):
            assert await ask(house) == 200
            asked += 1

        assert counted(house.door) == {("POST", CHAT, "tiny", 200): asked}
        assert house.door.http.durations[CHAT, "tiny"].steps[-1][1] == asked - 1


async def test_one_request_now_and_then_leaves_the_straight_lane_to_be_timed() -> None:
    """The one after the targets were forgotten, whichever that is; the lane takes the others as before."""
    async with a_house() as house:
        while not sum(count for _, count in house.door.traffic.on_lane()):
            await ask(house)
        timing = house.door.http.durations[CHAT, "tiny"]
        before = timing.steps[-1][1]
        house.door.routes.time_next()
        await ask(house)

        assert timing.steps[-1][1] == before + 1


@pytest.mark.rows("MET-8")
async def test_streams_are_timed_to_their_first_piece_and_between_pieces() -> None:
    """From what passes, without reading it."""
    async with a_house() as house:
        await ask(house, stream=True)
        await until(lambda: house.door.http.between_tokens, "the stream's end")
        house.door.traffic.measured()
        await ask(house, stream=True)

        told = report_of(house.door.http, house.door.traffic)
        assert sum(told.first_tokens["tiny"].values()) == 2
        assert house.door.http.between_tokens["tiny"].steps[-1][1] >= 1


async def test_a_client_that_leaves_is_counted_as_one_that_left() -> None:
    """Neither as well nor as badly answered."""
    begun = asyncio.Event()

    async def never(_request: object, _writer: asyncio.StreamWriter) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with a_house(never) as house:
        client = await house.connect()
        await client.send(a_post(a_chat()))
        await begun.wait()
        await client.close()
        await until(lambda: counted(house.door), "its end")

        assert counted(house.door) == {("POST", CHAT, "tiny", LEFT): 1}


async def test_what_is_refused_at_the_door_has_one_name() -> None:
    """Whatever path was tried by whom should not be here."""
    async with a_house(api_key="k") as house:
        for path in ("/api/status", "/wp-login.php"):
            await house.ask(a_get(path))

        assert counted(house.door) == {("GET", OTHER, "", 401): 2}
