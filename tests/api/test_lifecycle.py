"""Loading, unloading and dropping over HTTP: bodies and codes that seed clients know."""

import pytest

from meshllm.core.engines import EngineFault
from meshllm.core.events import RemoteProbed, Woke
from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.core.limits import FIRST_LOOK_WAIT_S
from meshllm.core.remotes import ListedModel, RemoteBackend
from tests.api.node import Client, a_node
from tests.core.builders import a_member, a_spec, exited, ready

BOX = (RemoteBackend(name="box", base_url="http://localhost:1234"),)


async def post(client: Client, path: str, **body: object) -> tuple[int, dict[str, object]]:
    """Return an answer's status and document."""
    answer = await client.post(path, json=body)
    return answer.status, await answer.json()


@pytest.mark.rows("LIF-5")
async def test_unload_answers_when_the_memory_is_free() -> None:
    """LIF-1: the body is exactly this; the answer waits for the process to be gone."""
    async with a_node() as (node, client):
        answer = node.begin(post(client, "/v1/models/unload", model_id="tiny"))
        await node.asked(Verb.UNLOAD)
        is_early = answer.done()
        node.finish_unload("tiny")

        assert await answer == (200, {"model_id": "tiny", "status": "unloaded"})
        assert not is_early


@pytest.mark.rows("LIF-11")
async def test_unload_twice_is_fine() -> None:
    """LIF-11: idempotent."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("other",), is_ready=False) as (_, client):
        assert await post(client, "/v1/models/unload", model_id="tiny") == (
            200,
            {"model_id": "tiny", "status": "unloaded"},
        )


async def test_a_model_is_pinned_and_let_go_again() -> None:
    """The status document says which; a pin is of one node, never of all."""
    async with a_node() as (_, client):
        said = []
        for pinned in (True, False):
            answer = await post(client, "/v1/models/pin", model_id="tiny", pinned=pinned)
            status = await (await client.get("/api/status")).json()
            said.append((answer, status["models"][0]["pinned"]))
        nothing = await post(client, "/v1/models/pin", model_id="nothing")
        everywhere, why = await post(client, "/v1/models/pin", model_id="tiny", scope="mesh")

        assert said == [((200, {"model_id": "tiny", "pinned": is_so}), is_so) for is_so in (True, False)]
        assert (nothing[0], everywhere, why["error"]["param"]) == (404, 400, "scope")  # type: ignore[index]


async def test_unload_passes_hold_and_force_on() -> None:
    """Both change what the core does."""
    async with a_node() as (node, client):
        answer = await post(client, "/v1/models/unload", model_id="tiny", hold=True, force=True, wait=False)
        await node.asked(Verb.UNLOAD)

        assert answer == (202, {"model_id": "tiny", "status": "loaded"})
        assert (node.intents[0].hold, node.intents[0].force) == (True, True)


@pytest.mark.rows("LIF-2")
async def test_reload_answers_when_the_model_answers() -> None:
    """LIF-2: `loaded` means that a request would be answered."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("other",), is_ready=False) as (node, client):
        answer = node.begin(post(client, "/v1/models/reload", model_id="tiny"))
        await node.asked(Verb.LOAD)
        node.tell(ready("tiny"))

        assert await answer == (200, {"model_id": "tiny", "status": "loaded"})


@pytest.mark.rows("LIF-2")
async def test_reload_without_waiting_is_accepted_at_once() -> None:
    """LIF-2: 202 `reloading`; a second one is just as welcome."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("other",), is_ready=False) as (node, client):
        for _ in range(2):
            answer = await post(client, "/v1/models/reload", model_id="tiny", wait=False)
            assert answer == (202, {"model_id": "tiny", "status": "reloading"})
        await node.asked(Verb.LOAD, times=2)


@pytest.mark.rows("LIF-11")
async def test_reload_of_a_loaded_model_is_loaded() -> None:
    """LIF-11: idempotent, with or without waiting."""
    async with a_node() as (node, client):
        assert await post(client, "/v1/models/reload", model_id="tiny", wait=False) == (
            200, {"model_id": "tiny", "status": "loaded"},
        )  # fmt: skip
        assert not node.intents


@pytest.mark.rows("LIF-5", "LIF-9")
@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [(EngineFault.BAD_FILE, 500, "internal_error"), (EngineFault.MISSING_FILE, 409, "no_loader_config")],
)
async def test_failed_reload_says_why(fault: EngineFault, code: int, status: str) -> None:
    """LIF-5, LIF-9: `error` is there for states that are errors."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("other",), is_ready=False) as (node, client):
        answer = node.begin(post(client, "/v1/models/reload", model_id="tiny"))
        await node.asked(Verb.LOAD)
        node.tell(exited("tiny", fault, "it is broken"))

        assert await answer == (code, {"model_id": "tiny", "status": status, "error": "it is broken"})


@pytest.mark.rows("LIF-18")
async def test_model_that_does_not_fit_is_no_capacity() -> None:
    """X6: 503 with the reason and when to come back."""
    huge = a_spec("huge", size_bytes=10**12)
    async with a_node(a_spec("tiny"), huge) as (_, client):
        answer = await client.post("/v1/models/reload", json={"model_id": "huge"})
        document = await answer.json()

        assert answer.status == 503
        assert answer.headers["Retry-After"]
        assert "needs" in document["error"]


@pytest.mark.rows("LIF-8")
@pytest.mark.parametrize("path", ["/v1/models/unload", "/v1/models/status"])
async def test_unknown_model_is_not_found(path: str) -> None:
    """LIF-8: 404 with the seed's body, and what is near."""
    async with a_node() as (_, client):
        status, document = await post(client, path, model_id="tin")

        assert (status, document["model_id"], document["status"]) == (404, "tin", "not_found")
        assert "did you mean tiny" in str(document["error"])


async def test_name_with_several_meanings_is_a_conflict() -> None:
    """Nobody guesses which one was meant."""
    async with a_node(a_spec("tiny"), a_spec("m-Q4"), a_spec("m-Q8")) as (_, client):
        status, document = await post(client, "/v1/models/status", model_id="m")

        assert status == 409
        assert "m-Q4, m-Q8" in str(document["error"])


@pytest.mark.rows("LIF-3", "LIF-4")
async def test_status_says_where_a_model_is() -> None:
    """LIF-3, LIF-4: the closed word, the fine one, and each node."""
    async with a_node() as (node, client):
        status, document = await post(client, "/v1/models/status", model_id="tiny")

        assert status == 200
        assert document == {
            "model_id": "tiny", "status": "loaded", "mesh_status": "loaded", "phase": "ready",
            "nodes": [{"node_id": node.views.newest.me.node, "name": "a", "status": "loaded", "phase": "ready"}],
        }  # fmt: skip


async def test_default_names_the_default_model() -> None:
    """LIF-7: it survives unloading, because it is a name."""
    async with a_node() as (node, client):
        answer = node.begin(post(client, "/v1/models/unload", model_id="tiny"))
        await node.asked(Verb.UNLOAD)
        node.finish_unload("tiny")
        await answer
        _, document = await post(client, "/v1/models/status", model_id="default")

        assert document["status"] == "unloaded"


@pytest.mark.parametrize(
    ("path", "param"), [("/v1/models/unload", "model_id"), ("/v1/models/reload", "model_id"), ("/mesh/drop", "model")]
)
async def test_order_wants_a_real_name(path: str, param: str) -> None:
    """`default` stands for another model tomorrow; whoever changes one says which."""
    async with a_node(a_spec("tiny"), requested=("tiny",)) as (node, client):
        for name in ("default", "Default", "auto"):
            status, document = await post(client, path, **{param: name})
            error = document["error"]

            assert isinstance(error, dict)
            assert (status, error["code"], error["param"]) == (400, "invalid_value", param)
            assert ("tiny" in error["message"]) == (name != "auto")
        assert not node.intents


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model_id": "tiny", "wait": "no"}, "wait"),
        ({"model_id": "tiny", "hold": 1}, "hold"),
        ({"model_id": "tiny", "scope": 1}, "scope"),
        ({"model_id": "tiny", "scope": "elsewhere"}, "scope"),
    ],
)
async def test_wrong_option_is_named(body: dict[str, object], param: str) -> None:
    """A mistyped option is not taken for absent."""
    async with a_node() as (node, client):
        status, document = await post(client, "/v1/models/unload", **body)

        assert status == 400
        assert document["error"]["param"] == param  # type: ignore[index]
        assert not node.intents


@pytest.mark.rows("LIF-15")
async def test_drop_names_what_was_dropped() -> None:
    """LIF-15: the canonical name, even when asked for by another."""
    async with a_node(a_spec("tiny-Q4_1"), is_ready=False) as (node, client):
        node.tell(ready("tiny-Q4_1"))

        answer = node.begin(post(client, "/mesh/drop", model="TINY"))
        await node.asked(Verb.DROP)
        node.finish_unload("tiny-Q4_1")

        assert await answer == (200, {"dropped": "tiny-Q4_1"})
        assert node.views.newest.leaving


@pytest.mark.rows("LIF-14")
async def test_drop_can_keep_the_node_running() -> None:
    """LIF-14: leaving is the habit, not a must."""
    async with a_node() as (node, client):
        answer = node.begin(post(client, "/mesh/drop", model="tiny", keep_running=True))
        await node.asked(Verb.DROP)
        node.finish_unload("tiny")
        await answer

        assert not node.views.newest.leaving


@pytest.mark.rows("LIF-15")
@pytest.mark.parametrize(("model", "code"), [("other", "not_served"), ("nope", "model_not_found")])
async def test_drop_of_what_is_not_served_is_404(model: str, code: str) -> None:
    """LIF-15: nothing was dropped, and that is said."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("tiny",)) as (_, client):
        status, document = await post(client, "/mesh/drop", model=model)

        assert status == 404
        assert document["error"]["code"] == code  # type: ignore[index]


async def test_load_and_drop_at_once_leave_one_truth() -> None:
    """The later one wins; the earlier one is told."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("other",), is_ready=False) as (node, client):
        load = node.begin(post(client, "/v1/models/reload", model_id="tiny"))
        await node.asked(Verb.LOAD)
        drop = node.begin(post(client, "/mesh/drop", model="tiny"))
        await node.asked(Verb.DROP)
        node.tell(exited("tiny", EngineFault.STOPPED))

        assert (await load)[0] == 409
        assert await drop == (200, {"dropped": "tiny"})
        assert node.views.newest.local[ModelId("tiny")].dropped


@pytest.mark.rows("REG-5")
async def test_rescan_looks_at_the_folders() -> None:
    """X26: no restart needed."""
    async with a_node() as (node, client):
        assert await post(client, "/v1/models/rescan") == (202, {"status": "rescanning"})
        assert node.rescans == 1


@pytest.mark.rows("LIF-9", "T30")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/unload", {"model_id": "qwen"}), ("/v1/models/unload", {"model_id": "qwen", "wait": False}),
        ("/v1/models/unload", {"model_id": "box/qwen", "force": True}),
        ("/v1/models/reload", {"model_id": "qwen"}), ("/v1/models/reload", {"model_id": "qwen", "wait": False}),
    ],
)  # fmt: skip
async def test_nobody_loads_or_unloads_a_model_of_an_adopted_server(path: str, body: dict[str, object]) -> None:
    """LIF-9: 409 `no_loader_config`, waiting or not; it still answers."""
    async with a_node(adopts=BOX) as (node, client):
        node.tell(RemoteProbed(server="box", models=(ListedModel(name="qwen"),)))

        status, document = await post(client, path, **body)

        assert (status, document["model_id"], document["status"]) == (409, body["model_id"], "no_loader_config")
        assert "'box'" in str(document["error"])
        assert node.story.model("qwen").is_ready


@pytest.mark.rows("LIF-9", "T30")
async def test_an_adopted_model_cannot_be_dropped() -> None:
    """The node stays, and so does the model."""
    async with a_node(adopts=BOX) as (node, client):
        node.tell(RemoteProbed(server="box", models=(ListedModel(name="qwen"),)))

        status, document = await post(client, "/mesh/drop", model="qwen")

        assert (status, document["error"]["code"]) == (409, "no_loader_config")  # type: ignore[index]
        assert node.story.model("qwen").is_ready


@pytest.mark.rows("LIF-1")
@pytest.mark.parametrize(("scope", "sent"), [(None, "mesh"), ("mesh", "mesh"), ("node", "node"), ("aaaa", "node")])
async def test_an_order_is_for_whom_it_says(scope: str | None, sent: str) -> None:
    """For the mesh, where nothing is said and this node may order that."""
    async with a_node() as (node, client):
        body = {} if scope is None else {"scope": scope}
        answer = node.begin(post(client, "/v1/models/unload", model_id="tiny", **body))
        await node.asked(Verb.UNLOAD)
        node.finish_unload("tiny")

        assert await answer == (200, {"model_id": "tiny", "status": "unloaded"})
        assert node.intents[0].scope == sent


async def test_an_order_to_another_node_is_resolved_there() -> None:
    """It may have models that this one knows nothing of."""
    async with a_node() as (node, client):
        node.meet(a_member("studio"))
        status, document = await post(client, "/v1/models/unload", model_id="far", scope="studio")

        assert (node.intents[0].model, node.intents[0].scope) == ("far", "studio".ljust(52, "2"))
        assert (status, document["status"]) == (503, "unloaded")


@pytest.mark.parametrize(
    ("code", "status", "word"),
    [
        ("not_loadable", 409, "no_loader_config"), ("unreachable", 503, "loaded"), ("superseded", 409, "loaded"),
        ("unknown_model", 404, "not_found"), ("load_failed", 500, "internal_error"), ("no_capacity", 503, "loaded"),
    ],
)  # fmt: skip
async def test_how_an_order_ended_is_told_in_the_closed_words(code: str, status: int, word: str) -> None:
    """With the reason beside it."""
    async with a_node() as (node, client):

        async def end(_: Intent) -> Outcome:
            return Outcome(code=OutcomeCode(code), message="because", model="tiny")

        node.ask = end  # type: ignore[method-assign, assignment]
        answer = await post(client, "/v1/models/unload", model_id="tiny")

        assert answer == (status, {"model_id": "tiny", "status": word, "error": "because"})


async def test_an_order_that_is_not_allowed_is_forbidden() -> None:
    """By the node that was to obey, or by this one."""
    async with a_node() as (node, client):

        async def refuse(_: Intent) -> Outcome:
            return Outcome(code=OutcomeCode.NOT_ALLOWED, message="no")

        node.ask = refuse  # type: ignore[method-assign, assignment]
        status, document = await post(client, "/v1/models/unload", model_id="tiny", scope="mesh")

        assert (status, document["error"]["code"]) == (403, "not_allowed")  # type: ignore[index]


@pytest.mark.rows("LIF-8", "T6")
async def test_a_model_that_the_mesh_does_not_know_changes_nothing() -> None:
    """Not even the registers of orders."""
    async with a_node() as (node, client):
        for path in ("unload", "reload", "status"):
            status, document = await post(client, f"/v1/models/{path}", model_id="nonsense", scope="mesh")
            assert (status, document["status"]) == (404, "not_found")

        assert node.views.newest.orders == {}


@pytest.mark.parametrize(
    ("path", "verb"),
    [
        ("/v1/models/reload", Verb.LOAD), ("/v1/models/unload", Verb.UNLOAD), ("/v1/models/pin", Verb.PIN),
        ("/mesh/drop", Verb.DROP), ("/v1/models/default", Verb.DEFAULT),
    ],
)  # fmt: skip
async def test_an_order_that_comes_before_the_node_knows_what_it_has_waits(path: str, verb: Verb) -> None:
    """For a server that was never heard of, as for the folders before the first look; no 404 that is false soon."""
    async with a_node(adopts=BOX) as (node, client):
        key = "model" if verb is Verb.DROP else "model_id"
        order = node.begin(post(client, path, **{key: "qwen"}, scope="node"))
        await node.asked(verb)
        is_early = order.done()
        node.tell(RemoteProbed(server="box", models=()))

        status, _ = await order

        assert not is_early
        assert status == 404


async def test_an_order_that_waited_in_vain_is_to_be_given_again() -> None:
    """503 with a code, a sentence and a time."""
    async with a_node(adopts=BOX) as (node, client):
        order = node.begin(client.post("/v1/models/reload", json={"model_id": "qwen"}))
        await node.asked(Verb.LOAD)
        node.story.now_s += FIRST_LOOK_WAIT_S
        node.tell(Woke())

        answer = await order
        error = (await answer.json())["error"]

        assert (answer.status, error["code"], answer.headers["Retry-After"]) == (503, "starting", "5")
        assert "'box'" in error["message"]


async def test_where_a_model_is_that_nobody_knows_yet_is_to_be_asked_again() -> None:
    """The status is no order: it says at once that the node has just started."""
    async with a_node(adopts=BOX) as (_, client):
        answer = await client.post("/v1/models/status", json={"model_id": "qwen"})

        assert (answer.status, (await answer.json())["error"]["code"]) == (503, "starting")
        assert answer.headers["Retry-After"] == "5"


async def test_drop_everywhere_is_for_the_mesh() -> None:
    """A drop without it is for this node alone, whatever its rights."""
    async with a_node() as (node, client):
        for everywhere, scope in ((True, "mesh"), (False, "node")):
            answer = node.begin(post(client, "/mesh/drop", model="tiny", everywhere=everywhere, keep_running=True))
            await node.asked(Verb.DROP, times=len(node.intents))
            node.finish_unload("tiny")
            await answer
            assert node.intents[-1].scope == scope
