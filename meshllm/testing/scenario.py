"""Small stories of a mesh, as text: what happens, and below it what the nodes make of that.

Owns the language and how a story is played. Decides nothing. A story is a file of blocks: some lines of
orders, a line `----`, and the expected output, which ends at an empty line. `play` returns the file as
it should be; tests compare, people rewrite the files and read the difference.

Orders: `mesh seed=1 delay=20 loss=0.1 jitter=5` (first, milliseconds), `start a`, `start b via a`,
`start c via a with tiny`, `crash b` (its machine too), `kill b` (its process alone), `restart b`,
`sleep b`, `wake b`, `leave b`, `revoke b`, `jump b 3600`, `loss 0.2`, `cut a b` (from a to b),
`link a b loss=0.1 delay=300`, `divide a b | c d`, `heal`, `run 20`, `show`, `show a`, `models`.
"""

from collections.abc import Callable, Iterable, Iterator

from meshllm.core import effects as do
from meshllm.core.effects import Effect, Level
from meshllm.core.events import Event
from meshllm.core.ids import NodeId
from meshllm.core.members.times import lan, loopback, wan
from meshllm.testing.sim import SimMesh, SimNode
from meshllm.testing.sim_network import Weather

RULE = "----"
TIMES = {"wan": wan, "lan": lan, "loopback": loopback}
_MS = 1000.0


class StoryError(ValueError):
    """A story has a line that means nothing."""


class Scenario:
    """One story being played."""

    def __init__(self) -> None:
        """Begin with an empty mesh of usual weather."""
        self.mesh = self._make({})
        self._lines: list[str] = []
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
        return mesh

    def _mesh(self, words: list[str]) -> None:
        self.mesh = self._make(dict(_pairs(words)))

    def _start(self, words: list[str]) -> None:
        name, *rest = words
        seeds = rest[rest.index("via") + 1 :] if "via" in rest else []
        seeds = seeds[: seeds.index("with")] if "with" in seeds else seeds
        models = rest[rest.index("with") + 1 :] if "with" in rest else []
        self.mesh.start(name, seeds, models)

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
