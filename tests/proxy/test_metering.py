"""Quotas at the front door: what is refused and how, what is counted, and what is given back."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.ids import ModelId
from meshllm.core.quota_config import NO_QUOTAS, UNLIMITED, QuotaRegister, patched
from meshllm.core.quota_use import QuotaUse, Spent
from meshllm.core.routing_config import RoutingConfig, Strategy
from meshllm.core.view import LocalModel
from meshllm.proxy.metering import clamped
from meshllm.proxy.paths import INFERENCE
from tests.core.builders import a_machine, a_member
from tests.proxy.builders import (
    CHAT,
    NODE,
    STREAM_END,
    STREAM_HEAD,
    TINY,
    Answer,
    House,
    Reply,
    Request,
    a_chat,
    a_get,
    a_house,
    a_model,
    a_post,
    chunk,
    until,
    whole,
)
from tests.proxy.tunnels import FIRST, a_mesh, a_served_model

HOUR_UNIX_S = 1_000_000_800.0
"""Begins an hour."""


def quotas(**limits: object) -> QuotaRegister:
    """Return quotas of the one model."""
    return NO_QUOTAS.changed(TINY, limits, NODE)


def limit(house: House, now_unix_s: float = HOUR_UNIX_S + 600, **limits: object) -> list[float]:
    """Give the model of a house quotas; return its clock, to be set."""
    clock = [now_unix_s]
    house.door.metering.clock = lambda: clock[0]
    view = house.views.newest
    house.views.newest = replace(view, quotas=quotas(**limits), epoch=view.epoch + 1)
    return clock


def told(tokens: int = 7) -> Answer:
    """Return an engine that answers with its usage."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": tokens - 3, "total_tokens": tokens}
        writer.write(whole({"model": request.json["model"], "usage": usage}))
        await writer.drain()

    return answer


def used(house: House) -> dict[str, int]:
    """Return what is used of each limit, by the report."""
    windows: Any = house.door.metering.report(TINY)["windows"]
    return {kind: window["used"] for kind, window in windows.items()}


@pytest.mark.rows("QTA-13")
async def test_a_request_above_a_limit_is_refused_in_the_words_of_openai() -> None:
    """With when to come back, and with what is left on every answer, good or bad."""
    async with a_house(told(7)) as house:
        limit(house, hourly_request_limit=1, daily_token_limit=1000)

        good, bad = await house.chat(max_tokens=4), await house.chat(max_tokens=4)

        assert (good.status, bad.status) == (200, 429)
        assert (bad.error["code"], bad.error["type"]) == ("quota_exceeded", "insufficient_quota")
        assert bad.headers["retry-after"] == "3001"
        assert bad.headers["x-ratelimit-limit-requests"] == good.headers["x-ratelimit-limit-requests"] == "1"
        assert bad.headers["x-ratelimit-remaining-requests"] == "0"
        assert bad.headers["x-ratelimit-reset-requests"] == "3001s"
        assert bad.headers["x-ratelimit-limit-tokens"] == "1000"
        assert bad.headers["x-ratelimit-remaining-tokens"] == "993"
        assert len(house.engine.requests) == 1


@pytest.mark.rows("T23")
async def test_a_full_hour_is_open_again_after_the_hour() -> None:
    """And what is reset is reset in the future."""
    async with a_house(told()) as house:
        clock = limit(house, hourly_request_limit=1)
        assert [(await house.chat()).status for _ in range(2)] == [200, 429]

        clock[0] = HOUR_UNIX_S + 3600
        again = await house.chat()

        assert again.status == 200
        assert (
            again.headers["x-ratelimit-reset-requests"] == "3600s"
            or again.headers["x-ratelimit-reset-requests"] == "3601s"
        )
        windows: Any = house.door.metering.report(TINY)["windows"]
        assert windows["hourly_requests"]["resets_at"] == "2001-09-09T04:00:00Z"


@pytest.mark.rows("QTA-14")
async def test_what_the_answer_says_is_charged_and_nothing_for_none() -> None:
    """The estimate is only set aside; an engine that fails before its answer costs nothing."""
    answers: list[Answer] = [told(7), _broken, told(9)]

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await answers[min(len(house.engine.requests) - 1, 2)](request, writer)

    async with a_house(answer) as house:
        limit(house, hourly_token_limit=1000)
        await house.chat(max_tokens=900)
        assert used(house)["hourly_tokens"] == 7

        failed = await house.chat(max_tokens=900)
        assert failed.status == 400
        assert used(house) == {"hourly_tokens": 7, "hourly_requests": 1, "daily_tokens": 7, "daily_requests": 1}

        await house.chat(max_tokens=900)
        assert used(house)["hourly_tokens"] == 16


async def _broken(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(whole({"error": {"message": "no", "type": "invalid_request_error"}}, "400 Bad Request"))
    await writer.drain()


async def test_a_stream_is_charged_by_its_last_event_or_by_what_came() -> None:
    """The client may not have asked for the usage, and may leave."""
    pieces = [chunk(b'data: {"n":%d}\n\n' % number) for number in range(3)]
    last = chunk(b'data: {"timings":{"prompt_n":4,"cache_n":2,"predicted_n":3}}\n\n')

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        tail = last if request.json.get("seed") == 1 else b""
        writer.write(STREAM_HEAD + b"".join(pieces) + tail + STREAM_END)
        await writer.drain()

    async with a_house(answer) as house:
        limit(house, hourly_token_limit=1000)

        await house.chat(stream=True, max_tokens=10, seed=1)
        assert used(house)["hourly_tokens"] == 9

        await house.chat(stream=True, max_tokens=10)
        assert used(house)["hourly_tokens"] == 9 + 1 + 3


@pytest.mark.rows("QTA-4")
async def test_one_request_takes_no_more_than_the_burst_limit() -> None:
    """Before anything runs; where a request sets no limit for its answer, it gets what is left."""
    async with a_house(told()) as house:
        limit(house, burst_token_limit=50)

        refused = await house.chat(max_tokens=50)
        fitting, open_ended = await house.chat(max_tokens=40), await house.chat()

        assert (refused.status, refused.error["code"]) == (400, "request_exceeds_burst_limit")
        assert (fitting.status, open_ended.status) == (200, 200)
        assert [one.json["max_tokens"] for one in house.engine.requests] == [40, 49]


def test_the_limit_of_an_answer_goes_where_its_engine_looks() -> None:
    """Beside everything else that was said, byte for byte."""
    chat, responses = INFERENCE[CHAT], INFERENCE["/v1/responses"]

    assert clamped(b'{ "a" : 1 }', chat, 5) == b'{"max_tokens":5, "a" : 1 }'
    assert clamped(b'\xef\xbb\xbf{"a":1}', chat, 5) == b'\xef\xbb\xbf{"max_tokens":5,"a":1}'
    assert json.loads(clamped(b'{"n_predict": -1, "x": [1]}', chat, 5)) == {"n_predict": 5, "max_tokens": 5, "x": [1]}
    assert json.loads(clamped(b'{"max_tokens": null}', chat, 5)) == {"max_tokens": 5}
    assert json.loads(clamped(b'{"input": "x"}', responses, 5)) == {"input": "x", "max_output_tokens": 5}


@pytest.mark.rows("QTA-5", "QTA-16")
async def test_no_more_requests_run_at_a_host_than_are_allowed() -> None:
    """However many slots its engine has."""
    may_answer = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await may_answer.wait()
        await told()(request, writer)

    async with a_house(answer) as house, asyncio.TaskGroup() as group:
        limit(house, max_concurrent_requests=1)
        first = group.create_task(house.chat())
        await until(lambda: house.engine.requests, "the first request reaches the engine")

        second = await house.chat()
        may_answer.set()

        assert (second.status, second.error["code"]) == (429, "quota_exceeded")
        assert (await first).status == 200
        assert (await house.chat()).status == 200


@pytest.mark.rows("QTA-8")
@pytest.mark.parametrize(
    ("on_limit", "places", "expected"), [("reject", 9, 429), ("warn", 9, 200), ("queue", 9, 429), ("queue", 0, 429)]
)
async def test_above_a_limit_people_have_the_choice(
    on_limit: str, places: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue is bounded by time and by length."""
    monkeypatch.setattr(limits, "QUOTA_QUEUE_S", 0.1)
    monkeypatch.setattr(limits, "QUOTA_LOOK_S", 0.01)
    monkeypatch.setattr(limits, "QUOTA_QUEUE_REQUESTS", places)
    async with a_house(told()) as house:
        limit(house, hourly_request_limit=1, on_limit=on_limit)
        asked: list[object] = []
        ask = house.door.metering.ledger.ask

        def counted(*args: Any) -> Any:
            asked.append(args)
            return ask(*args)

        monkeypatch.setattr(house.door.metering.ledger, "ask", counted)

        replies = [await house.chat() for _ in range(2)]

        assert [reply.status for reply in replies] == [200, expected]
        assert (len(asked) > 2) is (on_limit == "queue" and places > 0)


@pytest.mark.rows("QTA-20")
@pytest.mark.parametrize(
    ("limits_", "statuses"),
    [
        ({"max_requests_per_second": 0.01}, [200, 429]), ({"max_tokens_per_second": 0.01}, [200, 429]),
        ({"max_requests_per_second": 0.01, "burst_requests": 2}, [200, 200, 429]),
        ({"max_requests_per_second": 0.01, "action": "warn"}, [200, 200]),
        ({"max_requests_per_second": 0.01, "action": "throttle"}, [200, 429]),
        ({"max_requests_per_second": 20, "action": "throttle", "burst_requests": 1}, [200, 200]),
        ({"max_requests_per_second": 0.01, "grace_period_sec": 60}, [200, 200]),
    ],
)  # fmt: skip
async def test_requests_that_come_too_early_are_told_so_or_delayed(
    limits_: dict[str, object], statuses: list[int]
) -> None:
    """By a code of its own: coming back in a moment helps. A delay is bounded."""
    async with a_house(told()) as house:
        limit(house, **limits_)

        replies = [await house.chat() for _ in statuses]

        assert [reply.status for reply in replies] == statuses
        for reply in replies:
            if reply.status == 429:
                assert reply.error["code"] == "rate_limit_exceeded"
                assert int(reply.headers["retry-after"]) > 0


@pytest.mark.rows("QTA-9")
async def test_in_an_emergency_only_urgent_requests_come_in() -> None:
    """Whether people or the machine say that it is one."""
    async with a_house(told()) as house:
        limit(house, emergency=True)
        by_order = [await house.ask(a_post(a_chat(), CHAT, f"X-Priority: {word}")) for word in ("normal", "high")]
        limit(house, hourly_request_limit=100)
        view, full = house.views.newest, a_machine(free_bytes=1)
        house.views.newest = replace(view, resources=full, epoch=view.epoch + 1)
        by_itself = [await house.ask(a_post(a_chat(), CHAT, f"X-Priority: {word}")) for word in ("normal", "high")]

        assert [reply.status for reply in by_order] == [429, 200]
        assert [reply.status for reply in by_itself] == [429, 200]


async def test_a_request_waits_for_a_place_where_people_said_so() -> None:
    """Instead of being refused."""
    may_answer = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await may_answer.wait()
        await told()(request, writer)

    async with a_house(answer) as house, asyncio.TaskGroup() as group:
        limit(house, max_concurrent_requests=1, on_limit="queue")
        first = group.create_task(house.chat())
        await until(lambda: house.engine.requests, "the first request reaches the engine")
        second = group.create_task(house.chat())
        await until(lambda: house.door.metering.waiting, "the second waits")

        may_answer.set()

        assert [(await one).status for one in (first, second)] == [200, 200]


@pytest.mark.rows("RTE-16")
async def test_without_checks_the_host_decides_all_the_same() -> None:
    """Only what is known before is not looked at."""
    async with a_house(told(), routing=RoutingConfig(checks_quotas=False)) as house:
        limit(house, hourly_request_limit=1)
        statuses = [(await house.chat()).status for _ in range(2)]

        assert statuses == [200, 429]


async def test_a_model_without_quotas_keeps_the_straight_lane() -> None:
    """Nobody looks at its requests, whatever others have."""
    async with a_house(told()) as house:
        await house.chat()
        assert house.door.routes.known

        limit(house, hourly_request_limit=5)
        limited = await house.chat()
        assert not house.door.routes.known
        assert limited.headers["x-ratelimit-remaining-requests"] == "4"

        house.views.publish(a_model(socket=house.engine.socket))
        free = await house.chat()
        assert house.door.routes.known
        assert "x-ratelimit-limit-requests" not in free.headers


@pytest.mark.rows("QTA-15")
async def test_what_others_used_counts_here() -> None:
    """As they announce it, also when they are gone, until the window is over."""
    async with a_house(told()) as house:
        limit(house, hourly_request_limit=3)
        member = a_member("other")
        use = QuotaUse(model=TINY, hour=Spent(int(HOUR_UNIX_S), 10, 3))
        said = replace(member, announcement=replace(member.announcement, quota_uses=(use,)))
        house.views.publish(
            a_model(socket=house.engine.socket), quotas=quotas(hourly_request_limit=3),
            members={said.announcement.node: said},
        )  # fmt: skip

        refused = await house.chat()
        house.views.publish(a_model(socket=house.engine.socket), quotas=quotas(hourly_request_limit=3))
        still = await house.chat()
        house.door.metering.clock = lambda: HOUR_UNIX_S + 4 * 86_400
        house.views.publish(a_model(socket=house.engine.socket), quotas=quotas(hourly_request_limit=3))
        later = await house.chat()

        assert [reply.status for reply in (refused, still, later)] == [429, 429, 200]
        assert house.door.metering.report(TINY)["nodes"] == [
            {"node_id": NODE, "hourly_tokens": 7, "hourly_requests": 1, "daily_tokens": 7, "daily_requests": 1}
        ]


@pytest.mark.rows("QTA-15")
async def test_a_host_decides_for_requests_of_other_nodes() -> None:
    """And the entry node passes its verdict on, with when to come back."""
    async with a_mesh(told(), told()) as (entry, mesh):
        for house in mesh.houses.values():
            limit(house, hourly_request_limit=1)

        replies = [await entry.chat() for _ in range(3)]

        assert [reply.status for reply in replies] == [200, 200, 429]
        assert replies[2].error["code"] == "quota_exceeded"
        assert int(replies[2].headers["retry-after"]) > 0


@pytest.mark.rows("T14")
async def test_a_request_that_may_go_to_many_is_charged_once() -> None:
    """At the one that answered, and by what its answer says."""
    async with a_mesh(*[told(11)] * 4, models=lambda socket: (a_served_model(socket),)) as (entry, mesh):
        entry.engine.answer = told(11)
        houses = [entry, *mesh.houses.values()]
        for house in houses:
            limit(house, hourly_token_limit=1000)

        assert (await entry.chat()).status == 200

        charged = [used(house)["hourly_tokens"] for house in houses]
        assert sorted(charged) == [0, 0, 0, 0, 11]


async def test_what_was_set_aside_here_is_given_back_when_another_host_answers() -> None:
    """An engine that dies before its answer has used nothing."""

    async def dies(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with a_mesh(told(11), models=lambda socket: (a_served_model(socket),)) as (entry, mesh):
        entry.engine.answer = dies
        for house in (entry, mesh.houses[FIRST]):
            limit(house, hourly_token_limit=1000)

        replies = [await entry.chat(max_tokens=5) for _ in range(2)]

        assert [reply.status for reply in replies] == [200, 200]
        assert used(entry)["hourly_requests"] == 0
        assert used(mesh.houses[FIRST])["hourly_tokens"] == 22
        account = entry.door.metering.ledger.account(TINY, entry.door.metering.clock())
        assert account.in_flight == 0


KEYS = (("key-of-ann", "ann"), ("key-of-ben", "ben"))


def clients(house: House, **limits_: dict[str, object]) -> None:
    """Give clients quotas of their own."""
    house.door.metering.clock = lambda: HOUR_UNIX_S
    configured = tuple((f"key:{name}", patched(UNLIMITED, one)) for name, one in limits_.items())
    view = house.views.newest
    house.views.newest = replace(view, quotas=QuotaRegister(configured=configured), epoch=view.epoch + 1)


async def ask_as(house: House, key: str, **fields: Any) -> Reply:
    """Ask the model something with a key."""
    return await house.ask(a_post(a_chat(**fields), CHAT, f"Authorization: Bearer {key}"))


@pytest.mark.rows("QTA-18")
async def test_each_client_has_quotas_of_its_own() -> None:
    """With the same keys as models have; whoever has the node's own key has none."""
    async with a_house(told(7), api_key="own", client_keys=KEYS) as house:
        clients(house, ann={"hourly_token_limit": 10, "burst_token_limit": 9})

        large, first, second = [await ask_as(house, "key-of-ann", max_tokens=most) for most in (9, 4, 4)]
        others = [await ask_as(house, key) for key in ("key-of-ben", "own", "own", "none")]

        assert [reply.status for reply in (large, first, second)] == [400, 200, 429]
        assert second.error["code"] == "quota_exceeded"
        assert (first.headers["x-ratelimit-limit-tokens"], second.headers["x-ratelimit-remaining-tokens"]) == (
            "10",
            "3",
        )
        assert [reply.status for reply in others] == [200, 200, 200, 401]
        [use] = house.door.metering.ledger.uses()
        assert (use.model, use.hour.tokens) == ("key:ann", 7)


@pytest.mark.rows("QTA-19")
async def test_a_client_may_ask_so_often_in_a_minute() -> None:
    """All at once or one by one; tokens are made up for afterwards. By a code that says: come back in a moment."""
    async with a_house(told(120), client_keys=KEYS) as house:
        clients(house, ann={"requests_per_minute": 3}, ben={"tokens_per_minute": 60})

        anns = [await ask_as(house, "key-of-ann") for _ in range(4)]
        bens = [await ask_as(house, "key-of-ben", max_tokens=4) for _ in range(2)]
        house.door.metering.clock = lambda: HOUR_UNIX_S + 121
        again = [await ask_as(house, key, max_tokens=4) for key, _ in KEYS]

        assert [reply.status for reply in anns] == [200, 200, 200, 429]
        assert [reply.status for reply in bens] == [200, 429]
        assert {reply.error["code"] for reply in (anns[3], bens[1])} == {"rate_limit_exceeded"}
        assert [anns[3].headers["retry-after"], bens[1].headers["retry-after"]] == ["21", "120"]
        assert [reply.status for reply in again] == [200, 200]


async def test_a_clients_request_that_goes_elsewhere_is_charged_to_it_all_the_same() -> None:
    """The host charges the model, the entry node the client; each once."""
    async with a_mesh(told(11), client_keys=KEYS) as (entry, mesh):
        clients(entry, ann={"hourly_token_limit": 100})
        limit(mesh.houses[FIRST], hourly_token_limit=100)

        assert (await ask_as(entry, "key-of-ann", max_tokens=4)).status == 200

        assert used(mesh.houses[FIRST])["hourly_tokens"] == 11
        [use] = entry.door.metering.ledger.uses()
        assert (use.model, use.hour.tokens) == ("key:ann", 11)


async def test_a_clients_key_administers_nothing() -> None:
    """It lists models and asks them; not even a door that needs no key is closed by it."""
    async with a_house(told(), api_key="own", client_keys=KEYS) as house:
        line = "X-API-Key: key-of-ann"

        found = [(await house.ask(a_get(path, line))).status for path in ("/v1/models", "/api/status", "/health")]

        assert found == [200, 403, 200]


@pytest.mark.rows("RTE-6")
async def test_models_and_hosts_with_more_left_come_first() -> None:
    """Whatever else speaks for the others; one that is nearly used up only where all are."""

    def three(socket: Path) -> tuple[LocalModel, ...]:
        return tuple(a_model(name, socket=socket, key=name) for name in ("one", "two", "three"))

    config = RoutingConfig(model_strategy=Strategy.QUOTA_AWARE, strategy=Strategy.QUOTA_AWARE)
    async with a_house(told(30), models=three, routing=config) as house:
        register = NO_QUOTAS
        for name, most in (("one", 1000), ("two", 100), ("three", 33)):
            register = register.changed(ModelId(name), {"hourly_token_limit": most}, NODE)
        house.door.metering.clock = lambda: HOUR_UNIX_S
        house.views.newest = replace(house.views.newest, quotas=register, epoch=2)
        for name in ("one", "two", "three"):
            assert (await house.chat(model=name, max_tokens=9)).status == 200

        replies = [await house.chat(model="auto", max_tokens=9) for _ in range(3)]

        assert [reply.headers["x-mesh-model"] for reply in replies] == ["one"] * 3
        decision = next(iter(house.door.memory.decisions.newest())).decision
        left = {rating.name: round(rating.candidate.quota_left, 2) for rating in decision.ratings}
        assert left == {"one": 0.91, "two": 0.7, "three": 0.09}
