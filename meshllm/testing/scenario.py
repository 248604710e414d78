"""Small stories of a mesh, as text: what happens, and below it what the nodes make of that.

Owns the language and how a story is played. Decides nothing. A story is a file of blocks: some lines of
orders, a line `----`, and the expected output, which ends at an empty line. `play` returns the file as
it should be; tests compare, people rewrite the files and read the difference.

Orders: `mesh seed=1 delay=20 loss=0.1 jitter=5` (first, milliseconds), `start a`, `start b via a`,
`start c via a with tiny`, `crash b` (its machine too), `kill b` (its process alone), `restart b`,
`sleep b`, `wake b`, `leave b`, `revoke b`, `jump b 3600`, `loss 0.2`, `cut a b` (from a to b),
`link a b loss=0.1 delay=300`, `divide a b | c d`, `heal`, `run 20`, `show`, `show a`, `models`.

About serving: `model big 3` (GiB; before anybody has it), `start c via a with big ram=4 vram=8 disk=20 load=0.5
asks=big,sim/huge fills fetches` (GiB, GiB a second; models it is told to serve; it fills gaps, it downloads for that),
`request big at a`, `traffic big 5 at a` (a second; `traffic off`), `break big at c` (its engine crashes),
`hosts` (who serves what, and why).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from meshllm.core import effects as do
from meshllm.core.announcement import ServingState
from meshllm.core.effects import Effect, Level
from meshllm.core.events import Event
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB
from meshllm.core.members.times import lan, loopback, wan
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.testing.sim import SimMesh, SimNode
from meshllm.testing.sim_models import USUAL_MACHINE
from meshllm.testing.sim_network import Weather
from meshllm.testing.sim_requests import COMPLETE, Pattern, SimRequest, SimRequests

RULE = "----"
TIMES = {"wan": wan, "lan": lan, "loopback": loopback}
_MS = 1000.0
_SIZES = {"ram": "memory_bytes", "vram": "gpu_bytes", "disk": "disk_bytes", "load": "load_bytes_per_s",
          "fetch": "download_bytes_per_s", "others": "others_bytes"}  # fmt: skip
"""Words for a machine's numbers, in GiB, to fields of `Machine`."""
_FLAGS = ("fills", "fetches")


class StoryError(ValueError):
    """A story has a line that means nothing."""


class Scenario:
    """One story being played."""

    def __init__(self) -> None:
        """Begin with an empty mesh of usual weather."""
        self._lines: list[str] = []
        self._ends: Counter[str] = Counter()
        self.requests: SimRequests
        self.mesh = self._make({})
        self._orders: dict[str, Callable[[list[str]], None]] = {
            "mesh": self._mesh, "start": self._start, "run": self._run, "show": self._show, "models": self._models,
            "crash": self._crash, "kill": self._kill, "divide": self._divide, "cut": self._cut, "link": self._link,
            "restart": lambda names: self._each(self.mesh.restart, names),
            "sleep": lambda names: self._each(self.mesh.suspend, names),
            "wake": lambda names: self._each(self.mesh.wake, names),
            "leave": lambda names: self._each(self.mesh.leave, names),
            "revoke": lambda names: self._each(self.mesh.revoke, names),
            "heal": lambda _: self.mesh.network.heal(),
            "jump": lambda words: self.mesh.jump_clock(words[0], float(words[1])),
            "loss": lambda words: self.mesh.network.set_all(loss=float(words[0])),
            "model": lambda words: self._model(words[0], float(words[1])), "request": self._request,
            "traffic": self._traffic, "break": self._break, "hosts": lambda _: self._hosts(),
        }  # fmt: skip

    def obey(self, line: str) -> list[str]:
        """Carry out one line; return what is to be read about it. Raises StoryError."""
        word, *words = line.split()
        order = self._orders.get(word)
        if order is None:
            raise StoryError(f"there is no order {word!r}")
        try:
            order(words)
        except (IndexError, KeyError, ValueError) as error:
            raise StoryError(f"{line!r}: {error}") from error
        said, self._lines = self._lines, []
        return said

    # -- orders ----------------------------------------------------------------------------------------

    def _make(self, settings: dict[str, str]) -> SimMesh:
        times = settings.get("times")
        weather = Weather(
            delay_s=float(settings.get("delay", "10")) / _MS, jitter_s=float(settings.get("jitter", "0")) / _MS,
            loss=float(settings.get("loss", "0")),
        )  # fmt: skip
        mesh = SimMesh(int(settings.get("seed", "1")), weather, TIMES[times]() if times else None)
        mesh.observers.append(self._listen)
        self.requests = SimRequests(mesh, int(settings.get("seed", "1")))
        self.requests.observers.append(self._ended)
        return mesh

    def _mesh(self, words: list[str]) -> None:
        self.mesh = self._make(dict(_pairs(words)))

    def _start(self, words: list[str]) -> None:
        name, *rest = words
        said = dict(_pairs([word for word in rest if word.partition("=")[0] in (*_SIZES, "asks")]))
        flags = {word for word in rest if word in _FLAGS}
        rest = [word for word in rest if word not in flags and word.partition("=")[0] not in said]
        seeds = rest[rest.index("via") + 1 :] if "via" in rest else []
        seeds = seeds[: seeds.index("with")] if "with" in seeds else seeds
        models = rest[rest.index("with") + 1 :] if "with" in rest else []
        asks = said.pop("asks", "")
        sizes = {_SIZES[key]: int(float(value) * GIB) for key, value in said.items()}
        serving = ServingPolicy(
            requested=tuple(asks.split(",")) if asks else (), fills_gaps="fills" in flags, downloads="fetches" in flags
        )
        is_equipped = bool(sizes or flags or asks)
        machine = replace(USUAL_MACHINE, **sizes) if is_equipped else None  # type: ignore[arg-type]
        self.mesh.start(name, seeds, models, machine=machine, serving=serving)

    def _model(self, name: str, size_gib: float) -> None:
        self.mesh.library.add(name, int(size_gib * GIB))

    def _request(self, words: list[str]) -> None:
        model, _, entry = words
        self.requests.ask(model, entry)

    def _traffic(self, words: list[str]) -> None:
        if words == ["off"]:
            self.requests.follow(None)
            ends = ", ".join(f"{count} {end}" for end, count in sorted(self._ends.items()))
            self._lines.append(f"{self.mesh.now_s:8.2f} requests until now: {ends}")
            self._ends.clear()
            return
        model, rate, _, *entries = words
        self.requests.follow(Pattern(per_s=float(rate), models=(model,), entries=tuple(entries)))

    def _break(self, words: list[str]) -> None:
        model, _, name = words
        rig = self.mesh.nodes[NodeId(name)].rig
        if rig is None or not rig.crash_engine(ModelId(model)):
            raise ValueError(f"no engine of {model} runs at {name}")

    def _run(self, words: list[str]) -> None:
        self.mesh.run(float(words[0]))

    def _crash(self, names: list[str]) -> None:
        self._each(self.mesh.crash, names)

    def _kill(self, names: list[str]) -> None:
        for name in names:
            self.mesh.crash(name, is_machine_up=True)

    def _divide(self, words: list[str]) -> None:
        sides: list[list[NodeId]] = [[]]
        for word in words:
            if word == "|":
                sides.append([])
            else:
                sides[-1].append(NodeId(word))
        self.mesh.network.divide(*sides)

    def _cut(self, words: list[str]) -> None:
        self.mesh.network.set_link(NodeId(words[0]), NodeId(words[1]), loss=1.0)

    def _link(self, words: list[str]) -> None:
        found = dict(_pairs(words[2:]))
        changes = {f"{key}_s": float(found[key]) / _MS for key in ("delay", "jitter") if key in found}
        changes |= {key: float(found[key]) for key in ("loss", "reorder", "duplicate") if key in found}
        self.mesh.network.set_link(NodeId(words[0]), NodeId(words[1]), **changes)

    @staticmethod
    def _each(what: Callable[[str], object], names: Iterable[str]) -> None:
        for name in names:
            what(name)

    # -- what is to be read ----------------------------------------------------------------------------

    def _show(self, names: list[str]) -> None:
        for node in self.mesh.running():
            if not names or node.node in names:
                self._lines.append(f"{node.node}: {', '.join(_thoughts(node)) or 'alone'}")

    def _models(self, names: list[str]) -> None:
        for node in self.mesh.running():
            if not names or node.node in names:
                groups = node.core.view.groups.values()
                said = [f"{group.model} at {' '.join(group.members)}, host {group.host}" for group in groups]
                self._lines.append(f"{node.node}: {'; '.join(said) or 'no models'}")

    def _hosts(self) -> None:
        """Say who serves what and why, by the nodes' own words."""
        found: dict[str, list[str]] = {}
        for node in self.mesh.running():
            for one in node.core.view.me.serving:
                local = node.core.view.local.get(one.model)
                reason = f"{local.reason}" if local is not None and local.reason is not None else "no reason"
                state = "" if one.state is ServingState.READY else f"{one.state}, "
                found.setdefault(one.model, []).append(f"{node.node} ({state}{reason})")
        self._lines += [f"{model}: {', '.join(nodes)}" for model, nodes in sorted(found.items())] or ["no hosts"]

    def _ended(self, request: SimRequest) -> None:
        """Say how a request ended; many are counted."""
        if self.requests.is_following:
            self._ends[request.end] += 1
            return
        where = f" at {request.hosts[-1]}" if request.end == COMPLETE else ""
        took_s = (request.begun_s or self.mesh.now_s) - request.asked_s
        self._lines.append(
            f"{self.mesh.now_s:8.2f} {request.entry}: request for {request.model}: {request.end}{where}, "
            f"after {took_s:.2f} s"
        )

    def _listen(self, node: SimNode, event: Event, effects: tuple[Effect, ...]) -> None:
        del event
        for effect in effects:
            if isinstance(effect, do.Notify) and effect.level is not Level.DEBUG:
                fields = dict(effect.fields)
                whom = fields.pop("node", "")
                rest = " ".join(f"{name}={value}" for name, value in fields.items())
                about = f" {whom}" if whom and whom != node.node else ""
                self._lines.append(f"{self.mesh.now_s:8.2f} {node.node}: {effect.message}{about} {rest}".rstrip())
            elif isinstance(effect, do.Leave):
                self._lines.append(f"{self.mesh.now_s:8.2f} {node.node}: ends, exit code {effect.exit_code}")


def _thoughts(node: SimNode) -> Iterator[str]:
    """Yield what a node thinks of the others."""
    for other, member in sorted(node.core.view.members.items()):
        if other != node.node:
            notes = [member.why] if member.why else []
            if member.vouched_by is not None:
                notes.append(f"vouched for by {member.vouched_by}")
            yield f"{other} {member.state}" + (f" ({'; '.join(notes)})" if notes else "")


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


def play(text: str) -> str:
    """Return a story with the output that it has. Lines that begin with `#` are for readers. Raises StoryError."""
    scenario = Scenario()
    played: list[str] = []
    orders: list[str] = []
    is_output = False
    for number, line in enumerate(text.splitlines(), 1):
        if is_output:
            if not line:
                is_output = False
                played.append("")
            continue
        if line == RULE:
            played += [RULE, *_obeyed(scenario, orders, number)]
            orders, is_output = [], True
            continue
        played.append(line)
        if line and not line.startswith("#"):
            orders.append(line)
    return "\n".join(played).rstrip("\n") + "\n"


def _obeyed(scenario: Scenario, orders: list[str], number: int) -> list[str]:
    said: list[str] = []
    for order in orders:
        try:
            said += scenario.obey(order)
        except StoryError as error:
            raise StoryError(f"before line {number}: {error}") from error
    return said
