"""The status document, also as files that the console's types are checked against.

`MESHLLM_REWRITE_DOCUMENTS=1` writes the files anew; review them as a diff.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from meshllm.api.deps import MeshFacts
from meshllm.api.status import PHASES, STATUSES, NodeFacts, lifecycle_status, phase_of, status_document
from meshllm.core import events as ev
from meshllm.core.announcement import LentMemory, Role, SharedModel, SharedPart
from meshllm.core.catalog import ModelProblem, ModelReference
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.ids import MeshId, ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.limits import GIB
from meshllm.core.remotes import ListedModel, RemoteBackend
from meshllm.core.resources import Resources
from meshllm.core.rights import OWN_MACHINE
from meshllm.core.routing.replicas import replicas_of
from meshllm.core.view import LoadProgress, LocalModel, Member, MeshView
from tests.core.builders import (
    A_GPU_BUILD,
    Story,
    a_failure,
    a_gpu,
    a_machine,
    a_member,
    a_spec,
    a_story,
    exited,
    ready,
)

DOCUMENTS = Path(__file__).parent / "documents"
FACTS = NodeFacts(version="0.1.0", address="127.0.0.1:9337", started_s=40.0)
DESK = a_member("desk").announcement.node
HOME = MeshFacts(id=MeshId("m" * 52), name="home", rights=OWN_MACHINE, is_founder=True)
FRESH = ModelReference(
    id=ModelId("fresh"), repository="u/r", filename="fresh.gguf", size_bytes=10**9, asked_as="u/r:Q4"
)


def empty() -> Story:
    """A node that knows its machine and has nothing to serve."""
    return a_story()


def loading() -> Story:
    """One model on its way into memory, one that waits for the first to be measured."""
    story = a_story(a_spec("tiny"), a_spec("huge", size_bytes=10**12), requested=("tiny", "huge"))
    story.tell(ev.EngineStarted(model=ModelId("tiny"), pid=100), ev.EngineProgressed(model=ModelId("tiny"), share=0.41))
    return story


def serving() -> Story:
    """A GPU, a busy model, one held and one dropped."""
    story = a_story(
        a_spec("tiny"), a_spec("held"), a_spec("gone"), requested=("tiny", "held", "gone"),
        machine=a_machine(gpus=(a_gpu(total_bytes=24 * GIB, free_bytes=20 * GIB),)), build=A_GPU_BUILD,
    )  # fmt: skip
    story.tell(ready("tiny"), ready("held"), ready("gone"), ev.TrafficMeasured(finished=((ModelId("tiny"), 12),)))
    for verb, model in ((Verb.UNLOAD, "held"), (Verb.DROP, "gone")):
        story.ask(verb, model, hold=verb is Verb.UNLOAD, force=True)
        story.tell(exited(model, EngineFault.STOPPED))
    return story


def troubled() -> Story:
    """Everything that can go wrong at once, and a download."""
    story = a_story(a_spec("bad"), a_spec("shaky"), requested=("bad", "shaky", "u/r:Q4", "nope"))
    story.tell(
        ev.InventoryChanged(
            models=(a_spec("bad"), a_spec("shaky")),
            problems=(ModelProblem(path="/models/x.gguf", code="truncated", message="ends too early"),),
        ),
        ev.ModelAsked(asked="u/r:Q4", reference=FRESH),
        ev.ModelAsked(asked="nope", reference=None, message="nobody knows it"),
        ev.DownloadProgressed(model=FRESH.id, done_bytes=410_000_000, total_bytes=10**9),
        exited("bad", EngineFault.BAD_FILE, "it is broken"),
        ready("shaky"),
        exited("shaky", EngineFault.CRASHED, "it crashed"),
    )
    return story


def no_engine() -> Story:
    """A machine on which no engine can run, whose GPU cannot be asked."""
    story = a_story(a_spec("tiny"))
    story.tell(
        ev.EngineProbed(build=None, failure=a_failure(EngineFault.ILLEGAL_INSTRUCTION, "this processor is too old")),
        ev.ResourcesMeasured(
            resources=Resources(
                cores=2, memory_total_bytes=4 * GIB, memory_free_bytes=GIB, gpu_problem="the driver does not answer"
            )
        ),
    )
    return story


def in_a_mesh() -> MeshView:
    """A founder with one member that serves, one that is in doubt and one that is gone."""
    view = serving().core.view
    desk = a_member("desk", models=("big",), gpus=(a_gpu(),), connected=True, rtt_s=0.0021, last_heard_s=99.0)
    desk = sharing(desk, view.me.node)
    others = (
        desk,
        a_member("shed", state="suspect", rtt_s=0.04, last_heard_s=88.0, why="no answer for 12 s"),
        a_member("phone", role=Role.CLIENT, vouched_by=desk.announcement.node),
        a_member("attic", state="dead", why="no answer; desk does not reach it either"),
    )
    members = {**view.members, **{member.announcement.node: member for member in others}}
    replicas = replicas_of(members.values(), view.me.node)
    return replace(view, members=MappingProxyType(members), replicas=replicas)


def sharing(host: Member, worker: NodeId) -> Member:
    """Return a host that holds its first model together with another node."""
    me = host.announcement.node
    parts = (
        SharedPart(node=worker, layers=8, memory_bytes=2 * GIB),
        SharedPart(node=me, layers=24, memory_bytes=6 * GIB),
    )
    (first, *others) = host.announcement.serving
    serving = (replace(first, shared=SharedModel(epoch=3, parts=parts)), *others)
    lends = (LentMemory(model=first.model, host=worker, epoch=1, memory_bytes=GIB),)
    return replace(host, announcement=replace(host.announcement, serving=serving, lends=lends))


STORIES: dict[str, Callable[[], Story]] = {
    "empty": empty, "loading": loading, "serving": serving, "troubled": troubled, "no_engine": no_engine,
}  # fmt: skip


def view_of(name: str) -> MeshView:
    """Return the view that a document describes."""
    return in_a_mesh() if name == "in_a_mesh" else STORIES[name]().core.view


NAMES = (*STORIES, "in_a_mesh")


def document_of(name: str) -> dict[str, object]:
    """Return a document sixty seconds after its node's start."""
    facts = replace(FACTS, mesh=HOME, lines={DESK: 2}) if name == "in_a_mesh" else FACTS
    return status_document(view_of(name), 100.0, facts, lambda model: 2 if model == "tiny" else 0)


@pytest.mark.parametrize("name", NAMES)
def test_document_is_the_one_that_the_console_knows(name: str) -> None:
    """A change of shape has to be seen by both sides."""
    text = json.dumps(document_of(name), indent=2, ensure_ascii=False) + "\n"
    file = DOCUMENTS / f"{name}.json"

    if os.environ.get("MESHLLM_REWRITE_DOCUMENTS"):
        DOCUMENTS.mkdir(exist_ok=True)
        file.write_text(text)

    assert file.read_text() == text


def test_every_document_has_a_story() -> None:
    """A file that no test writes would go stale."""
    assert {file.stem for file in DOCUMENTS.glob("*.json")} == set(NAMES)


def test_documents_have_one_shape() -> None:
    """The same keys whatever happens: null says that there is nothing, absence never does."""
    documents = [document_of(name) for name in NAMES]
    models = [model for document in documents for model in document["models"]]  # type: ignore[attr-defined]

    assert len({tuple(document) for document in documents}) == 1
    members = [member for document in documents for member in document["members"]]  # type: ignore[attr-defined]
    assert len({tuple(model) for model in models}) == len({tuple(member) for member in members}) == 1
    assert {model["phase"] for model in models} >= {
        "loading", "queued", "ready", "held", "dropped", "downloading", "retrying", "failed",
    }  # fmt: skip


@pytest.mark.rows("LIF-4")
@pytest.mark.parametrize(
    ("model", "phase", "status"),
    [
        (LocalModel(id=ModelId("m"), spec=a_spec(), state=EngineState.STOPPED, wanted=False), "unloaded", "unloaded"),
        (LocalModel(id=ModelId("m"), spec=a_spec(), state=EngineState.STOPPED, wanted=True), "queued", "reloading"),
        (LocalModel(id=ModelId("m"), spec=a_spec(), state=EngineState.STARTING, wanted=True), "loading", "reloading"),
        (LocalModel(id=ModelId("m"), spec=a_spec(), state=EngineState.DRAINING, wanted=False), "draining", "loaded"),
        (LocalModel(id=ModelId("m"), spec=a_spec(), state=EngineState.STOPPING, wanted=False), "stopping", "loaded"),
        (
            LocalModel(id=ModelId("m"), spec=a_spec(), state=EngineState.BACKING_OFF, wanted=True),
            "retrying", "reloading",
        ),
        (LocalModel(id=ModelId("m"), spec=a_spec(), state=EngineState.FAILED, wanted=False), "failed", "unloaded"),
        (
            LocalModel(
                id=ModelId("m"), spec=None, state=EngineState.FAILED, wanted=False,
                failure=a_failure(EngineFault.MISSING_FILE),
            ),
            "failed", "no_loader_config",
        ),
        (
            LocalModel(
                id=ModelId("m"), spec=None, state=EngineState.STOPPED, wanted=False,
                failure=a_failure(EngineFault.DOWNLOAD_FAILED),
            ),
            "failed", "unloaded",
        ),
        (
            LocalModel(
                id=ModelId("m"), spec=None, state=EngineState.STOPPED, wanted=False,
                progress=LoadProgress(stage="downloading", share=0.5),
            ),
            "downloading", "reloading",
        ),
    ],
)  # fmt: skip
def test_phase_and_status_follow_from_the_model(model: LocalModel, phase: str, status: str) -> None:
    """LIF-4: `status` stays in its closed set; a draining engine still has its memory."""
    assert (phase_of(model), lifecycle_status(model)) == (phase, status)
    assert phase in PHASES
    assert status in STATUSES


def test_adopted_servers_are_shown_with_their_state_and_their_models() -> None:
    """CFG-16: and no key."""
    box = RemoteBackend(name="box", base_url="https://h:8443/api/v1", api_key="sk-secret")
    story = a_story(adopts=(box, RemoteBackend(name="gone", base_url="http://g")))
    story.tell(ev.RemoteProbed(server="box", models=(ListedModel(name="qwen"), ListedModel(name="x" * 300))))
    story.tell(ev.RemoteProbed(server="gone", failure=a_failure(message="nobody is there")))

    document = status_document(story.core.view, story.now_s, FACTS, lambda _: 0)

    assert document["servers"] == [
        {"name": "box", "url": "https://h:8443/api", "is_up": True, "models": 1, "left_out": 1, "message": ""},
        {"name": "gone", "url": "http://g", "is_up": False, "models": 0, "left_out": 0, "message": "nobody is there"},
    ]
    models = document["models"]
    assert isinstance(models, list)
    (model,) = models
    assert (model["kind"], model["server"], model["phase"], model["memory_bytes"]) == ("adopted", "box", "ready", 0)
    assert "secret" not in json.dumps(document)
