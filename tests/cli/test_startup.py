"""What is said while a node starts: each thing once, in words."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.cli.startup import Startup
from meshllm.core import events as ev
from meshllm.core.engines import EngineFault
from meshllm.core.ids import ModelId
from meshllm.core.rights import GUEST, OWN_MACHINE
from tests.core.builders import Story, a_failure, a_gpu, a_machine, a_member, a_spec, a_story, exited, ready


class Screen:
    """Keeps what was said and shown."""

    def __init__(self) -> None:
        """Start empty."""
        self.lines: list[str] = []
        self.bars: dict[str, tuple[float, str]] = {}

    def show(self, key: str, label: str, share: float, detail: str = "") -> None:
        """Keep the newest of a bar."""
        del key
        self.bars[label] = (share, detail)

    def done(self, key: str) -> None:
        """Forget a bar."""
        self.bars = {label: bar for label, bar in self.bars.items() if not label.startswith(f"{key}:")}


@pytest.fixture
def screen() -> Screen:
    """Return an empty one."""
    return Screen()


@pytest.fixture
def startup(screen: Screen) -> Startup:
    """Return a start of a node that was asked for something."""
    return Startup(screen.lines.append, screen, "/models", is_empty=False)


def test_machine_is_told_once(screen: Screen, startup: Startup) -> None:
    """Free memory changes all the time."""
    story = a_story(a_spec("tiny"), machine=a_machine(gpus=(a_gpu(),)))
    startup.report(story.core.view)
    story.tell(ev.ResourcesMeasured(resources=a_machine(free_bytes=1)))
    startup.report(story.core.view)

    assert [line for line in screen.lines if line.startswith("machine:")] == [
        "machine:  17.2 GB memory, 4 cores; GPU: GPU (25.8 GB)"
    ]


def test_missing_gpu_has_its_reason(screen: Screen, startup: Startup) -> None:
    """`none` alone would make people search."""
    story = a_story()
    startup.report(story.core.view)

    assert any("GPU: none" in line for line in screen.lines)


def test_missing_engine_is_told(screen: Screen, startup: Startup) -> None:
    """Nothing will be served."""
    story = a_story()
    story.tell(ev.EngineProbed(build=None, failure=a_failure(EngineFault.ILLEGAL_INSTRUCTION, "too old a processor")))
    startup.report(story.core.view)

    assert "engine:   none can run here: too old a processor" in screen.lines


def test_load_is_a_bar_and_then_a_line(screen: Screen, startup: Startup) -> None:
    """With what the engine has, and where to go."""
    story = a_story(a_spec("tiny"), requested=("tiny",))
    startup.started("127.0.0.1:9337")
    story.tell(ev.EngineProgressed(model=ModelId("tiny"), share=0.41))
    startup.report(story.core.view)
    loading = dict(screen.bars)
    story.tell(ready("tiny"))
    startup.report(story.core.view)
    startup.report(story.core.view)

    assert loading == {"tiny: loading": (0.41, "")}
    assert screen.bars == {}
    assert screen.lines.count("tiny: ready in 1.0 s (8192 tokens of context, 4 at a time)") == 1
    assert [line.split(":")[0] for line in screen.lines[-4:]] == ["API", "console", "try", "join"]
    assert '"model":"tiny"' in screen.lines[-2]


def test_failures_are_told_with_their_reason(screen: Screen, startup: Startup) -> None:
    """Each in its own words."""
    story = a_story(
        a_spec("bad"), a_spec("shaky"), a_spec("huge", size_bytes=10**12), requested=("bad", "shaky", "huge")
    )
    story.tell(exited("bad", EngineFault.BAD_FILE, "it is broken"))
    story.tell(ready("shaky"), exited("shaky", EngineFault.CRASHED, "it crashed"))
    startup.report(story.core.view)

    assert "bad: failed: it is broken" in screen.lines
    assert "shaky: ended, starting it again: it crashed" in screen.lines
    assert any(line.startswith("huge: waits: capacity: needs") for line in screen.lines)


def test_name_that_means_nothing_is_told(screen: Screen, startup: Startup) -> None:
    """And why."""
    story = a_story(a_spec("tiny"), requested=("tiny", "nope"))
    story.tell(ev.ModelAsked(asked="nope", reference=None, message="nobody knows it"))
    startup.report(story.core.view)

    assert "nope: nobody knows it" in screen.lines


def test_disk_with_nothing_to_serve_unasked_is_told(screen: Screen, startup: Startup) -> None:
    """Small files are not served unasked; people should know that they were seen."""
    story: Story = a_story(a_spec("toy"), min_unasked_bytes=10**9)
    startup.started("127.0.0.1:9337")
    startup.report(story.core.view)

    assert any("none is loaded" in line for line in screen.lines)


def test_empty_disk_gets_three_lines_and_the_addresses(screen: Screen) -> None:
    """The node runs and says so."""
    startup = Startup(screen.lines.append, screen, "/models", is_empty=True)
    startup.started("127.0.0.1:9337")

    assert "The node runs and waits" in screen.lines[1]
    assert "/models" in screen.lines[3]
    assert "API:      http://127.0.0.1:9337/v1" in screen.lines


def test_leaving_is_told_once(screen: Screen, startup: Startup) -> None:
    """With the way to hurry it."""
    story = a_story(a_spec("tiny"))
    story.tell(ready("tiny"), ev.LeaveRequested(reason="SIGINT"))
    startup.report(story.core.view)
    startup.report(story.core.view)

    assert len([line for line in screen.lines if "Ctrl-C again" in line]) == 1


TOKEN = "meshllm1-token"


@pytest.mark.rows("CLI-9")
def test_join_command_stands_where_the_start_ends(screen: Screen, startup: Startup) -> None:
    """Copied from there to the next machine."""
    story = a_story(a_spec("tiny"))
    startup.started("127.0.0.1:9337")
    startup.joinable(OWN_MACHINE, lambda: TOKEN)
    assert not any(TOKEN in line for line in screen.lines)

    story.tell(ready("tiny"))
    startup.report(story.core.view)

    assert screen.lines[-2] == f"join:     mesh-llm --join {TOKEN}"


def test_token_that_comes_late_is_said_when_it_comes(screen: Screen, startup: Startup) -> None:
    """Also the next one, when the first has expired."""
    story = a_story(a_spec("tiny"))
    startup.started("127.0.0.1:9337")
    story.tell(ready("tiny"))
    startup.report(story.core.view)
    assert any("`mesh-llm token` prints" in line for line in screen.lines)

    startup.joinable(OWN_MACHINE, lambda: TOKEN)

    assert screen.lines[-2] == f"join:     mesh-llm --join {TOKEN}"


@pytest.mark.rows("CLI-9")
def test_token_is_neither_made_nor_shown_where_no_person_reads(screen: Screen) -> None:
    """What a service writes is kept in logs; a person who looks there learns how to get one."""
    service = Startup(screen.lines.append, screen, "/models", is_empty=False, shows_token=False)
    story = a_story(a_spec("tiny"))
    story.tell(ready("tiny"))
    made: list[str] = []

    def make_token() -> str:
        made.append(TOKEN)
        return TOKEN

    service.started("127.0.0.1:9337")
    service.joinable(OWN_MACHINE, make_token)
    service.report(story.core.view)

    assert screen.lines[-1] == "join:     `mesh-llm token` prints the command with which another machine joins"
    assert made == []


def test_node_that_may_not_admit_invites_nobody_until_it_may(screen: Screen, startup: Startup) -> None:
    """A guest's `mesh-llm token` would be refused; rights come with the certificate, after the start."""
    story = a_story(a_spec("tiny"))
    story.tell(ready("tiny"), ev.RightsGranted(rights=GUEST))
    startup.started("127.0.0.1:9337")
    startup.report(story.core.view)
    assert any(line.startswith("API:") for line in screen.lines)
    assert not any("mesh-llm token" in line for line in screen.lines)

    story.tell(ev.RightsGranted(rights=OWN_MACHINE))
    startup.report(story.core.view)
    startup.report(story.core.view)

    assert [line for line in screen.lines if "mesh-llm token" in line] == [screen.lines[-1]]


def test_client_says_where_to_go_at_once_and_whom_it_joined(screen: Screen) -> None:
    """It has no engine to wait for, and invites nobody."""
    client = Startup(screen.lines.append, screen, "/models", is_empty=True, is_client=True)
    view = a_story().core.view
    member = a_member("desk", models=("big",))

    client.started("127.0.0.1:9555")
    client.report(replace(view, members=MappingProxyType({**view.members, member.announcement.node: member})))

    assert screen.lines == [
        "listening on http://127.0.0.1:9555",
        "API:      http://127.0.0.1:9555/v1",
        "console:  http://127.0.0.1:9555/",
        "mesh:     joined, with desk; they serve big",
    ]
