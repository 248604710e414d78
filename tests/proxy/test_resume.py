"""A stream survives its engine: whatever is cut, and wherever, the client reads one text."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.ids import NodeId
from meshllm.wire.tunnel_frames import TunnelRefusal
from tests.proxy.builders import Client, House, Reply, Request, a_chat, a_house, a_post, until
from tests.proxy.storyteller import PROMPT_TOKENS, STORY, TOKENS, Heard, Teller
from tests.proxy.tunnels import FIRST, SECOND, THIRD, FarHalf, Half, Mesh, a_mesh, a_replica, a_served_model

USAGE = {"stream_options": {"include_usage": True}}
WHOLE = (PROMPT_TOKENS, len(TOKENS), PROMPT_TOKENS + len(TOKENS))
TEXT = "/v1/completions"


async def a_story(entry: House, *lines: str, **fields: Any) -> Heard:
    """Ask for the story, as a stream."""
    return Heard(await entry.ask(a_post(a_chat(stream=True, **fields), "/v1/chat/completions", *lines)))


async def a_text(entry: House, **fields: Any) -> Heard:
    """Ask for the story, as a text completion."""
    return Heard(await entry.ask(a_post({"model": "tiny", "prompt": "<|p|>", "stream": True, **fields}, TEXT)))


@asynccontextmanager
async def a_cut(*nodes: tuple[NodeId, int], tellers: tuple[Teller, ...] = ()) -> AsyncIterator[tuple[House, Mesh]]:
    """Open a mesh of three hosts, of which some lose the tunnel of their first request after so many bytes."""
    left = dict(nodes)
    async with a_mesh(*(tellers or (Teller(), Teller(), Teller()))) as (entry, mesh):

        def cutting(node: NodeId) -> Any:
            def fault(_: Half, far: FarHalf) -> None:
                far.cut_after = left.pop(node, None)

            return fault

        mesh.faults = {node: cutting(node) for node, _ in nodes}
        yield entry, mesh


async def test_nothing_happens_to_a_stream_to_which_nothing_happens() -> None:
    """The reference of all others."""
    async with a_cut() as (entry, mesh):
        heard = await a_story(entry, **USAGE)

    assert (heard.text, heard.is_whole, heard.usages, heard.comments) == (STORY, True, [WHOLE], [])
    assert mesh.asked == [FIRST]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_chat", [True, False])
async def test_wherever_a_tunnel_is_cut_the_text_is_the_same(seed: int, *, is_chat: bool) -> None:
    """In a character, in an event, between them, behind the last one: no gap, no repetition, one of everything."""
    rng = random.Random(seed)
    ask = a_story if is_chat else a_text
    fields = USAGE if is_chat else {}
    async with a_cut() as (entry, mesh):
        await ask(entry, **fields)
        size_bytes = mesh.ends[0][1].written

    for cut in [rng.randrange(1, size_bytes + 1) for _ in range(12)]:
        async with a_cut((FIRST, cut)) as (entry, mesh):
            heard = await ask(entry, **fields)

        assert (cut, heard.text) == (cut, STORY)
        assert heard.is_whole
        assert len(heard.times) == 1
        assert heard.usages == [WHOLE]


async def test_a_stream_that_goes_on_says_where_and_since_when() -> None:
    """As a comment, which no client takes for text."""
    async with a_mesh(Teller(breaks_after=[6]), Teller()) as (entry, mesh):
        heard = await a_story(entry)
        counted = entry.door.counters()

    assert heard.comments == [f"resumed on {SECOND[:4]} after 5 tokens"]
    assert (heard.text, heard.is_whole) == (STORY, True)
    assert mesh.asked == [FIRST, SECOND, SECOND, SECOND]
    assert (counted["streams_lost"], counted["streams_resumed"]) == (1, 1)


async def test_a_stream_goes_on_twice_and_no_third_time() -> None:
    """Three hosts have failed it: the client is told, after what it has."""
    async with a_mesh(Teller(breaks_after=[4]), Teller(breaks_after=[5]), Teller()) as (entry, mesh):
        twice = await a_story(entry, **USAGE)
    async with a_cut((FIRST, 2000), tellers=(Teller(), Teller(), Teller())) as (entry, mesh):
        mesh.faults = {node: cutting_the_text(1500) for node in (FIRST, SECOND, THIRD)}
        thrice = await a_story(entry)

    assert twice.error["code"] == "host_lost"  # two engines ended: it may be the request
    assert thrice.error["code"] == "host_lost"
    assert STORY.startswith(thrice.text)
    assert len(thrice.comments) == 2
    assert "could not be continued" not in thrice.error["message"]


def cutting_the_text(size_bytes: int) -> Any:
    """Return a fault that breaks a tunnel after so many bytes, which questions about a text do not have."""

    def fault(_: Half, far: FarHalf) -> None:
        far.cut_after = size_bytes

    return fault


async def test_a_path_that_breaks_twice_costs_no_word() -> None:
    """Two hosts are gone, their engines as well as not: the third one has the last word."""
    async with a_cut((FIRST, 3000)) as (entry, mesh):
        seen = 0

        def second(_: Half, far: FarHalf) -> None:
            nonlocal seen
            seen += 1
            far.cut_after = 1500 if seen == 3 else None

        mesh.faults[SECOND] = second
        heard = await a_story(entry, **USAGE)

    assert (heard.text, heard.is_whole, heard.usages) == (STORY, True, [WHOLE])
    assert [comment.split()[2] for comment in heard.comments] == [SECOND[:4], THIRD[:4]]
    assert mesh.asked == [FIRST, *[SECOND] * 3, *[THIRD] * 2]


@pytest.mark.parametrize("after", range(31, 36))
async def test_a_stop_sequence_is_found_across_the_seam(after: int) -> None:
    """Its beginning was told by one engine that could not know, the rest of it is not told by the other."""
    async with a_mesh(Teller(breaks_after=[after], is_hasty=True), Teller()) as (entry, _):
        heard = await a_story(entry, stop=["never", "\\n. END"], **USAGE)

    said = min(max(after - 1, 31), 33)
    assert heard.text.removesuffix("\\") == "".join(TOKENS[:said]).removesuffix("\\")
    assert heard.reasons == ["stop"]
    assert heard.usages[0][0] == PROMPT_TOKENS
    assert heard.is_whole


async def test_no_more_is_said_than_was_asked_for() -> None:
    """What the first engine said counts; one that said everything but why it ended is not asked for more."""
    for after in (3, 9, 10, 11):
        async with a_mesh(Teller(breaks_after=[after]), Teller()) as (entry, _):
            heard = await a_story(entry, max_tokens=10, **USAGE)

        assert (heard.text, heard.reasons) == ("".join(TOKENS[:10]), ["length"])
        assert heard.usages == [(PROMPT_TOKENS, 10, PROMPT_TOKENS + 10)]
        assert heard.is_whole


async def test_a_stream_that_has_said_why_it_ends_needs_nobody() -> None:
    """Only `[DONE]` was missing."""
    async with a_mesh(Teller(breaks_after=[len(TOKENS) + 2])) as (entry, mesh):
        heard = await a_story(entry)

    assert (heard.text, heard.is_whole) == (STORY, True)
    assert mesh.asked == [FIRST]


async def test_a_stream_whose_end_alone_was_lost_ends() -> None:
    """`[DONE]` was there, the last chunk was not; it is a whole answer, even of tools."""
    async with a_mesh(Teller(breaks_after=[len(TOKENS) + 3])) as (entry, mesh):
        heard = await a_story(entry, tools=[{"type": "function", "function": {"name": "f"}}])

    assert (heard.text, heard.is_whole) == (STORY, True)
    assert mesh.asked == [FIRST]


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, ()),
        ({"response_format": {"type": "json_object"}}, ()),
        ({"grammar": 'root ::= "a"'}, ()),
        ({"logprobs": True}, ()),
        ({"n": 2}, ()),
        ({"resume": False}, ()),
        ({}, ("X-Mesh-Resume: off",)),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Once"}]}, ()),
    ],
)
async def test_what_is_more_than_a_text_ends_with_one_error(fields: dict[str, Any], lines: tuple[str, ...]) -> None:
    """Nobody else can go on with it, or its client does not want that."""
    async with a_mesh(Teller(breaks_after=[6]), Teller()) as (entry, mesh):
        heard = await a_story(entry, *lines, **fields)

    assert heard.error["code"] == "host_lost"
    assert heard.text == "".join(TOKENS[:5])
    assert mesh.asked == [FIRST]


@pytest.mark.parametrize("beside", [{"reasoning_content": "hm"}, {"tool_calls": [{"index": 0}]}, {"refusal": "no"}])
async def test_what_was_said_beside_the_text_cannot_be_said_again(beside: dict[str, Any]) -> None:
    """A template has no place for it."""
    async with a_mesh(Teller(breaks_after=[6], beside=beside), Teller()) as (entry, mesh):
        heard = await a_story(entry)

    assert heard.error["code"] == "host_lost"
    assert mesh.asked == [FIRST]


async def test_whatever_was_asked_begins_anew_while_nothing_was_said() -> None:
    """The client has a role and an id; both stay, and tools do not matter."""
    async with a_mesh(Teller(breaks_after=[1]), Teller()) as (entry, mesh):
        heard = await a_story(entry, tools=[{"type": "function", "function": {"name": "f"}}], **USAGE)

    assert (heard.text, heard.is_whole, heard.usages) == (STORY, True, [WHOLE])
    assert mesh.asked == [FIRST, SECOND]


@pytest.mark.parametrize("turn", ["<think>\n", "<|start|>assistant"])
async def test_a_template_that_begins_with_thoughts_has_no_place_for_text(turn: str) -> None:
    """What comes behind such a prompt is no text: the stream ends with an error that says so."""
    async with a_mesh(Teller(breaks_after=[6]), Teller(turn=turn)) as (entry, _):
        heard = await a_story(entry)

    assert heard.error["code"] == "host_lost"
    assert "could not be continued" in heard.error["message"]
    assert heard.text == "".join(TOKENS[:5])


@pytest.mark.parametrize("path", ["/apply-template", "/tokenize", TEXT])
async def test_a_host_that_cannot_go_on_is_passed_over(path: str) -> None:
    """Whatever it fails at; only when nobody can, the client is told."""
    async with a_mesh(Teller(breaks_after=[6]), Teller(refuses={path}), Teller()) as (entry, _):
        heard = await a_story(entry, **USAGE)
    async with a_mesh(Teller(breaks_after=[6]), Teller(refuses={path})) as (entry, _):
        lost = await a_story(entry, **USAGE)

    assert lost.error["code"] == "host_lost"
    assert lost.text == "".join(TOKENS[:5])
    assert (heard.text, heard.is_whole, heard.usages) == (STORY, True, [WHOLE])


async def test_other_files_of_the_same_name_are_not_asked() -> None:
    """What another file would say is another text."""
    others = (a_replica(FIRST), a_replica(SECOND, digest="sha256:" + "1" * 64))
    async with a_mesh(Teller(breaks_after=[6]), Teller(), replicas=others[:1]) as (entry, mesh):
        client = await entry.connect()
        mesh.doors[FIRST].traffic.of("tiny")  # type: ignore[arg-type]  # any name does
        await client.send(a_post(a_chat(stream=True)))
        heard = Heard(await client.receive())

    assert heard.error["code"] == "host_lost"
    assert mesh.asked[0] == FIRST
    assert SECOND not in mesh.asked


async def test_a_stream_of_this_node_goes_on_elsewhere() -> None:
    """The engine here is gone, a replica is there."""
    async with a_mesh(Teller(), models=lambda socket: (a_served_model(socket),)) as (entry, mesh):
        entry.engine.answer = Teller(breaks_after=[6])
        heard = await a_story(entry, **USAGE)

    assert (heard.text, heard.is_whole, heard.usages) == (STORY, True, [WHOLE])
    assert set(mesh.asked) == {FIRST}


async def test_a_stream_goes_on_at_the_engine_that_is_started_again() -> None:
    """Nobody else has the model: a few seconds are worth waiting for."""
    teller = Teller(breaks_after=[6])
    async with a_house(teller, models=lambda socket: (a_served_model(socket),)) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True, **USAGE)))
        heard = Heard(await client.receive())

    assert (heard.text, heard.is_whole, heard.usages) == (STORY, True, [WHOLE])


async def test_an_engine_that_takes_a_moment_to_die_is_lost_once() -> None:
    """It breaks off what it has first, and still takes a connection: the one that is started again gets the rest."""
    teller, dying = Teller(breaks_after=[6]), asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if teller.breaks_after or request.headers["authorization"] == "Bearer second":
            await teller(request, writer)
        else:
            writer.close()
            dying.set()

    async with a_house(answer, models=lambda socket: (a_served_model(socket),)) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)))
        await asyncio.wait_for(dying.wait(), 5)
        house.views.publish(a_served_model(house.engine.socket, key="second"))
        heard = Heard(await client.receive())

    assert (heard.text, heard.is_whole) == (STORY, True)


async def test_a_client_that_leaves_while_its_stream_looks_for_a_host_is_forgotten() -> None:
    """Nothing is asked for nobody, and nothing is left behind."""
    async with a_cut((FIRST, 2000)) as (entry, mesh):
        far = mesh.houses[SECOND].engine
        held = asyncio.Event()

        async def holds(*_: Any) -> None:
            held.set()
            await asyncio.Event().wait()

        far.answer = holds
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=True)))
        await held.wait()
        await client.close()
        await until(lambda: mesh.doors[SECOND].traffic.in_flight == 0, "the far engine is left alone")
        await until(lambda: entry.door.traffic.in_flight == 0, "nothing is counted")


async def test_an_error_of_the_engine_that_goes_on_is_told_as_any_other() -> None:
    """Behind what it said; before its first word another host is asked."""
    async with a_mesh(Teller(breaks_after=[6]), Teller(fails_after=3), Teller()) as (entry, mesh):
        told = await a_story(entry)
    async with a_mesh(Teller(breaks_after=[6]), Teller(fails_after=0), Teller()) as (entry, _):
        heard = await a_story(entry)

    assert told.text == "".join(TOKENS[:8])
    assert told.error["message"] == "oh"
    assert THIRD not in mesh.asked
    assert (heard.text, heard.is_whole) == (STORY, True)


@pytest.mark.parametrize("survivors", [1, 3])
async def test_a_herd_of_streams_that_lose_their_engine_at_once_goes_on(survivors: int) -> None:
    """A hundred of them: none ends in silence, and where there is no room at once they come again."""
    tellers = [Teller() for _ in range(survivors)]
    async with a_mesh(*tellers, models=lambda socket: (a_served_model(socket, slots=128),)) as (entry, _):
        entry.engine.answer = Teller(waits_for=asyncio.Event())
        clients = [await entry.connect() for _ in range(100)]
        for client in clients:
            await client.send(a_post(a_chat(stream=True, **USAGE)))
        await asyncio.gather(*(client.until(b'" time"') for client in clients))
        await entry.engine.stop()
        heard = [Heard(Reply(200, {}, body, b"")) for body in await asyncio.gather(*map(the_rest_of, clients))]

        assert not [one.data for one in heard if one.text != STORY.removeprefix("Once upon a time")]
        assert all(one.usages == [WHOLE] for one in heard)
        assert {one.data[-1] for one in heard} == {b"[DONE]"}
        assert entry.door.traffic.in_flight == 0


async def test_a_herd_that_finds_no_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time is over each stream ends with one error."""
    monkeypatch.setattr(limits, "STREAM_RESUME_ROOM_S", 0.3)
    monkeypatch.setattr(limits, "STREAM_RESUME_WAIT_S", 0.3)
    monkeypatch.setattr(limits, "STREAM_RESUME_PAUSE_S", 0.1)
    async with a_mesh(Teller(breaks_after=[6]), Teller()) as (entry, mesh):
        mesh.refusals[SECOND] = TunnelRefusal(code="busy", message="no room")
        heard = await a_story(entry)

    assert heard.error["code"] == "host_lost"
    assert "try again soon" in heard.error["message"]
    assert mesh.asked.count(SECOND) > 1


async def test_a_stream_waits_for_a_tunnel_as_it_does_for_room() -> None:
    """This node has as many to that host as may be: that is no answer of the host, and passes as well."""
    async with a_mesh(Teller(breaks_after=[6]), Teller()) as (entry, mesh):
        mesh.crowded.add(SECOND)
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=True, **USAGE)))
        await until(lambda: mesh.asked.count(SECOND) > 1, "the host to be asked again", within_s=30)
        mesh.crowded.clear()
        heard = Heard(await client.receive())

    assert (heard.text, heard.is_whole, heard.usages) == (STORY, True, [WHOLE])
    assert len(heard.comments) == 1


async def test_a_stream_waits_longer_for_room_than_for_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is full will have room; a herd that comes at once to few hosts takes its time."""
    monkeypatch.setattr(limits, "STREAM_RESUME_WAIT_S", 0.2)
    monkeypatch.setattr(limits, "STREAM_RESUME_PAUSE_S", 0.1)
    async with a_mesh(Teller(breaks_after=[6]), Teller()) as (entry, mesh):
        mesh.refusals[SECOND] = TunnelRefusal(code="busy", message="no room")
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=True, **USAGE)))
        await until(lambda: mesh.asked.count(SECOND) > 5, "the host to be asked for longer than that", within_s=30)
        mesh.refusals.clear()
        heard = Heard(await client.receive())

    assert (heard.text, heard.is_whole, heard.usages) == (STORY, True, [WHOLE])


async def the_rest_of(client: Client) -> bytes:
    """Return the rest of a chunked answer, without its framing, from its next event on.

    Events have no line ends of that kind, and may begin anywhere in a chunk: rest, size, data, size, data, and so on.
    """
    rest, *data = (await client.until(b"0\r\n\r\n")).split(b"\r\n")[::2]
    return b"".join([rest.partition(b"\n\n")[2], *data])


@pytest.mark.parametrize("leg", range(3))
@pytest.mark.parametrize("after", [1, 100, 250])
async def test_a_host_that_is_lost_while_it_is_asked_is_passed_over(leg: int, after: int) -> None:
    """At whichever of the three questions, and however much of its answer had come."""
    async with a_mesh(Teller(breaks_after=[6]), Teller(), Teller()) as (entry, mesh):
        asked = 0

        def fault(_: Half, far: FarHalf) -> None:
            nonlocal asked
            far.cut_after = after if asked == leg else None
            asked += 1

        mesh.faults[SECOND] = fault
        heard = await a_story(entry, **USAGE)

    assert (heard.text, heard.is_whole, heard.usages) == (STORY, True, [WHOLE])
    assert mesh.asked[-1] == THIRD


@pytest.mark.parametrize("seed", range(3))
async def test_wherever_two_tunnels_are_cut_the_text_is_the_same(seed: int) -> None:
    """The second one in the words that go on."""
    rng = random.Random(100 + seed)
    for _ in range(10):
        async with a_mesh(Teller(), Teller(), Teller()) as (entry, mesh):
            cuts = iter((rng.randrange(600, 9000), None, None, rng.randrange(600, 9000)))

            def fault(_: Half, far: FarHalf, cuts: Iterator[int | None] = cuts) -> None:
                far.cut_after = next(cuts, None)

            mesh.faults = dict.fromkeys((FIRST, SECOND, THIRD), fault)
            heard = await a_story(entry, **USAGE)

        assert (heard.text, heard.usages) == (STORY, [WHOLE])
        assert heard.is_whole


async def test_a_client_without_chunks_reads_the_same_text() -> None:
    """HTTP/1.0: the end of the connection is the end of the answer."""
    request = a_post(a_chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    async with a_mesh(Teller(breaks_after=[6]), Teller()) as (entry, _):
        client = await entry.connect()
        await client.send(request)
        heard = Heard(await client.receive())

    assert (heard.text, heard.is_whole) == (STORY, True)


async def test_a_host_that_leaves_gives_its_streams_away() -> None:
    """Its patience is over before they are: another host says the rest."""
    async with a_mesh(Teller(waits_for=asyncio.Event()), Teller()) as (entry, mesh):
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=True)))
        await client.until(b'" time"')
        await mesh.doors[FIRST].close()
        rest = Heard(Reply(200, {}, await the_rest_of(client), b""))

    assert rest.text == STORY.removeprefix("Once upon a time")
    assert rest.data[-1] == b"[DONE]"
