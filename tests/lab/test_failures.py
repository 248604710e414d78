"""Real daemons whose network breaks: cables, partitions, loss, sleep, address translation.

Every node is a namespace of its own, every test a promise of the README or of the failure model behind it.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemons import BUSY_MACHINE_S, WAIT_S, Daemon, until
from tests.inventory import gguf_builder
from tests.lab.netlab import Lab, missing

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(missing()), reason=f"no network laboratory: {missing()}"),
]

FOUND_DEAD_S = 17.0
"""What a silent member takes to be found dead, at most: so long, a wrong verdict is waited for."""
SILENT_S = 20.0 + BUSY_MACHINE_S
HEAL_S = 10.0 + BUSY_MACHINE_S
KILL_S = 8.0 + BUSY_MACHINE_S
ANSWER_S = 60.0
PROMPT_AND_ANSWER_BYTES = 1000


@dataclass
class Mesh:
    """Daemons in a laboratory, each with a model named after it."""

    lab: Lab
    home: Path
    stack: ExitStack = field(default_factory=ExitStack)
    nodes: dict[str, Daemon] = field(default_factory=dict)

    def start(self, name: str, *arguments: str) -> Daemon:
        """Start a daemon at a node, with a model `m-<name>`."""
        home = self.home / name
        prefix = tuple(self.lab.inside(name, []))
        node = Daemon(home, (*arguments, "--engine", "fake", "--threads", "1", "--no-mdns"), port=9337, prefix=prefix)
        gguf_builder.write(node.models / f"m-{name}.gguf")
        self.nodes[name] = self.stack.enter_context(node)
        return node

    def grow(self, *names: str) -> None:
        """Start a mesh: the first founds it, the others join it; wait until everybody lists everything."""
        first, *others = names
        self.start(first, "--model", f"m-{first}")
        token = self.run(first, "token").strip()
        for name in others:
            self.start(name, "--model", f"m-{name}", "--join", token)
        for name in names:
            self.until_sees(name, names)

    def run(self, name: str, *arguments: str) -> str:
        """Return what a command at a node prints."""
        node = self.nodes[name]
        command = self.lab.inside(name, node.command(*arguments))
        done = subprocess.run(command, env=node.environ, capture_output=True, text=True, timeout=ANSWER_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, name: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and JSON of a request to a node, from within its namespace."""
        connection = http.client.HTTPConnection("127.0.0.1", 9337, timeout=ANSWER_S)
        connection.sock = self.lab.connect(name, 9337, ANSWER_S)
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def chat(self, name: str, model: str, text: str = "hello") -> int:
        """Return the status of a chat through a node."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4}
        return self.ask(name, "POST", "/v1/chat/completions", body)[0]

    def sees(self, name: str) -> set[str]:
        """Return the nodes whose models a node lists as ready."""
        _, listed = self.ask(name, "GET", "/v1/models?pseudo=0")
        return {entry["id"].removeprefix("m-") for entry in listed["data"] if entry["status"] == "loaded"}

    def log_lines(self, name: str) -> list[str]:
        """Return what a node has logged so far."""
        return self.nodes[name].log.splitlines()

    @contextmanager
    def capture(self, name: str) -> Iterator[Path]:
        """Write down everything that passes a node's network card meanwhile."""
        file = self.home / f"{name}.pcap"
        command = self.lab.inside(
            name, ["tcpdump", "--immediate-mode", "-Z", "root", "-i", "eth0", "-U", "-w", str(file)]
        )
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as writing:
            try:
                until(file.exists, "the capture to begin")
                yield file
            finally:
                writing.terminate()

    def until_sees(self, name: str, names: tuple[str, ...] | list[str] | set[str], within_s: float = WAIT_S) -> None:
        """Wait until a node lists exactly the models of these."""
        until(lambda: self.sees(name) == set(names), f"{name} to see {sorted(names)}", within_s)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Callable[..., Mesh]]:
    """Return a maker of meshes in laboratories; everything ends with the test."""
    with ExitStack() as stack:

        def make(*nodes: str, nats: tuple[str, ...] = ()) -> Mesh:
            lab = stack.enter_context(Lab(f"lab{os.getpid()}", nodes, nats))
            return Mesh(lab, tmp_path, stack)

        yield make


@pytest.mark.rows("HLT-8")
def test_a_killed_daemon_is_gone_within_eight_seconds(mesh: Callable[..., Mesh]) -> None:
    """Its machine lives, and says that nobody listens any more."""
    found = mesh("a", "b", "c")
    found.grow("a", "b", "c")

    found.nodes["b"].signal(signal.SIGKILL)

    found.until_sees("a", {"a", "c"}, KILL_S)
    found.until_sees("c", {"a", "c"}, KILL_S)
    deaths = [line for node in "ac" for line in found.log_lines(node) if "member is dead" in line]
    assert any("nobody listens there" in line for line in deaths), deaths


@pytest.mark.rows("HLT-8")
def test_a_cut_cable_is_noticed_within_twenty_seconds_and_healed_within_ten(mesh: Callable[..., Mesh]) -> None:
    """Silence takes longer to believe than a refusal; both sides go on serving, and find each other again."""
    found = mesh("a", "b", "c")
    found.grow("a", "b", "c")

    found.lab.cut(["a"], ["b", "c"])
    found.until_sees("a", {"a"}, SILENT_S)
    found.until_sees("b", {"b", "c"}, SILENT_S)
    found.lab.heal()

    for node in ("a", "b", "c"):
        found.until_sees(node, {"a", "b", "c"}, HEAL_S)


def test_a_stopped_process_is_noticed_and_accuses_nobody_when_it_goes_on(mesh: Callable[..., Mesh]) -> None:
    """A laptop that sleeps: the others do without it, and it takes nobody for dead when it wakes."""
    found = mesh("a", "b", "c")
    found.grow("a", "b", "c")

    found.nodes["b"].signal(signal.SIGSTOP)
    found.until_sees("a", {"a", "c"}, SILENT_S)
    found.nodes["b"].signal(signal.SIGCONT)

    for node in ("a", "b", "c"):
        found.until_sees(node, {"a", "b", "c"}, HEAL_S)
    assert "member is dead" not in found.nodes["b"].log


def test_a_one_way_link_kills_nobody(mesh: Callable[..., Mesh]) -> None:
    """Others vouch for whoever this node cannot hear."""
    found = mesh("a", "b", "c")
    found.grow("a", "b", "c")

    found.lab.impair("a", "b", loss=100)
    began_s = time.monotonic()
    until(
        lambda: time.monotonic() - began_s > FOUND_DEAD_S, "a silent member to have been found dead", 2 * FOUND_DEAD_S
    )

    for node in "abc":
        assert found.sees(node) == {"a", "b", "c"}
    assert "member is dead" not in "".join(node.log for node in found.nodes.values())


@pytest.mark.parametrize("loss", [5, 20])
def test_lost_packets_cost_no_life_and_no_request(mesh: Callable[..., Mesh], loss: int) -> None:
    """Both ways, all links: requests take longer, and all of them are answered."""
    found = mesh("a", "b", "c")
    found.grow("a", "b", "c")

    found.lab.impair("*", "*", loss=loss)
    answers = [found.chat("a", "m-b") for _ in range(20)]

    assert answers == [200] * 20
    assert "member is dead" not in "".join(node.log for node in found.nodes.values())


@pytest.mark.rows("HLT-8", "T22")
def test_five_dead_at_once_are_gone_within_twenty_seconds(mesh: Callable[..., Mesh]) -> None:
    """Half of the mesh loses its power."""
    names = tuple("abcdefgh")
    found = mesh(*names)
    found.grow(*names)

    found.lab.cut(list("abc"), list("defgh"))

    for node in "abc":
        found.until_sees(node, set("abc"), SILENT_S)


@pytest.mark.skipif(shutil.which("conntrack") is None, reason="conntrack is not installed")
def test_a_router_that_forgets_breaks_no_connection(mesh: Callable[..., Mesh]) -> None:
    """A home router restarts: its client appears under another port, and goes on where it was."""
    found = mesh("a", nats=("r:sym:x",))
    found.start("a", "--model", "m-a")
    found.start("x", "--client", "--join", found.run("a", "token").strip())
    found.until_sees("x", {"a"})
    before = found.log_lines("a")

    found.lab.forget_mappings("r")
    answers = [found.chat("x", "m-a") for _ in range(5)]

    assert answers == [200] * 5
    assert not [line for line in found.log_lines("a")[len(before) :] if "joins" in line or "dead" in line]
    assert "member is dead" not in found.nodes["x"].log


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
def test_nothing_of_a_prompt_is_seen_on_the_wire(mesh: Callable[..., Mesh]) -> None:
    """What two nodes say to each other is for them alone."""
    found = mesh("a", "b")
    found.grow("a", "b")
    secret = "a-very-secret-prompt-nobody-may-read"

    with found.capture("a") as capture:
        assert found.chat("a", "m-b", secret) == 200  # over QUIC
        until(lambda: "ESTAB" in found.lab.run("a", ["ss", "-tn"]).stdout, "a line")
        assert found.chat("a", "m-b", secret) == 200  # on the line
        until(lambda: capture.stat().st_size > PROMPT_AND_ANSWER_BYTES, "the datagrams to be written down")

    seen = capture.read_bytes()
    assert secret.encode() not in seen
    assert b"chat/completions" not in seen
