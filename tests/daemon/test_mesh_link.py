"""A node's side of the mesh, with real sockets on loopback."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from meshllm.config import Config
from meshllm.core.effects import Effect, MeshEffect
from meshllm.core.events import Event
from meshllm.core.mesh import MeshCore
from meshllm.core.rights import CLIENT_ONLY, OWN_MACHINE, Rights
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.errors import AddressChoiceError, PortInUseError
from meshllm.daemon.journal import Journal
from meshllm.daemon.loop import Loop
from meshllm.daemon.mesh_files import Membership
from meshllm.daemon.mesh_link import MeshLink
from meshllm.daemon.mesh_start import MeshStart, begin, core_config
from meshllm.daemon.state_dir import StateDir
from meshllm.daemon.tasks import Tasks
from tests.transport.house import a_head
from tests.transport.net import Taker, until

LIMIT_S = 60
DAY_S = 86_400.0


@dataclass
class Clock:
    """The time of day, or some time ahead of it."""

    ahead_s: float = 0.0

    def __call__(self) -> float:
        """Return seconds since 1970."""
        return time.time() + self.ahead_s


@dataclass
class Part:
    """A node without engines and front door."""

    start: MeshStart
    link: MeshLink
    views: CurrentView
    posted: list[Event] = field(default_factory=list)

    async def until(self, condition: Callable[["Part"], bool]) -> None:
        """Wait until the node's view makes a condition true."""
        async with asyncio.timeout(LIMIT_S):
            while not condition(self):
                await self.views.changed(self.views.newest.epoch)


def a_config(folder: Path, **changes: object) -> Config:
    """Return a configuration for loopback."""
    config = Config(
        state_dir=folder / "s", runtime_dir=folder / "r", models_dirs=(folder / "m",), name=folder.name,
        bind_ip="127.0.0.1", no_mdns=True,
    )  # fmt: skip
    return replace(config, **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def a_part(config: Config, clock: Callable[[], float] = time.time) -> AsyncIterator[Part]:
    """Run a core with its peers."""
    state = StateDir(config.state_dir, config.runtime_dir)
    try:
        start = begin(config, state)
        core = MeshCore(core_config(config, start), asyncio.get_running_loop().time(), random.Random(1))
        views = CurrentView(core.view)
        loop = Loop(core, views, Journal())
        link = MeshLink(start, config, views, loop.post, unix_s=clock)
        await link.listen()

        def carry_out(effect: Effect) -> None:
            if isinstance(effect, MeshEffect):
                link.carry_out(effect)

        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group, loop.post)
            for name, work in {"loop": loop.run(carry_out), **link.work(tasks)}.items():
                tasks.start(name, work)
            yield Part(start, link, views)
            await link.close()
            tasks.cancel_all()
    finally:
        state.release(forget=config.client)


def membership_of(part: Part) -> Membership:
    """Return what a node has written down of its membership."""
    membership = part.start.files.membership()
    assert membership is not None
    return membership


def sees(other: Part) -> Callable[[Part], bool]:
    """Return the condition that a node has another one in its view."""
    return lambda part: other.start.node in part.views.newest.members


async def test_a_token_lets_a_second_node_in_and_each_sees_the_other(tmp_path: Path) -> None:
    """The one thing that all the rest is for."""
    async with a_part(a_config(tmp_path / "a")) as first:
        token = first.link.make_own_token()
        assert first.link.inviting == OWN_MACHINE

        async with a_part(a_config(tmp_path / "b", join=(token,))) as second:
            await first.until(sees(second))
            await second.until(sees(first))

            assert second.link.facts.rights == OWN_MACHINE
            assert second.link.facts.id == first.link.facts.id
            assert not second.link.facts.is_founder
            assert second.start.files.membership() is not None


async def test_lines_are_counted_at_both_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None before the first tunnel; the one that dials and the one that is dialled say the same."""
    monkeypatch.setattr("meshllm.core.line_limits.LINE_ROUND_TRIP_S", 10.0)  # a busy machine takes its time
    async with a_part(a_config(tmp_path / "a")) as first:
        config = a_config(tmp_path / "b", join=(first.link.make_own_token(),))
        async with a_part(config) as second:
            there, here = first.start.node, second.start.node
            await second.until(lambda part: sees(first)(part) and part.views.newest.members[there].connected)
            before = dict(second.link.lines_by_peer())

            with suppress(OSError):  # nobody serves it; the next one will find a line
                await second.link.open_tunnel(there, a_head(), Taker())
            await until(lambda: second.link.lines_by_peer() == {there: 1}, "a line")
            await until(lambda: first.link.lines_by_peer() == {here: 1}, "the same line at the other end")

            assert before == {}


async def test_a_client_may_use_the_mesh_and_invite_nobody(tmp_path: Path) -> None:
    """Its rights are those of its token."""
    async with a_part(a_config(tmp_path / "a")) as first:
        token = first.link.invitations.make_token(CLIENT_ONLY, 60.0, None)

        async with a_part(a_config(tmp_path / "c", join=(token,), client=True)) as client:
            await client.until(sees(first))

            assert client.link.facts.rights == Rights.INFER
            assert client.link.inviting == Rights.NONE
            assert client.start.files.membership() is None


async def test_certificates_are_renewed_in_time(tmp_path: Path) -> None:
    """The founder signs its own, a member gets one from an admin; before it is due nothing happens."""
    clock = Clock()
    async with a_part(a_config(tmp_path / "a"), clock) as first:
        token = first.link.invitations.make_token(OWN_MACHINE, 60.0, None)
        async with a_part(a_config(tmp_path / "b", join=(token,)), clock) as second:
            await second.until(sees(first))
            before = [membership_of(part) for part in (first, second)]

            first.link.renew()
            second.link.renew()
            assert [membership_of(part) for part in (first, second)] == before

            clock.ahead_s = 25 * DAY_S
            first.link.renew()
            second.link.renew()
            await second.until(lambda part: membership_of(part).certificate != before[1].certificate)

            assert membership_of(first).certificate != before[0].certificate
            assert membership_of(first).root_key == before[0].root_key
            assert second.link.facts.rights == OWN_MACHINE


def port_of(part: Part) -> int:
    """Return the port at which other nodes reach a node."""
    return part.views.newest.me.addresses[0].port


async def test_a_restart_opens_the_port_that_tokens_name(tmp_path: Path) -> None:
    """A token that nobody has used yet stays good; only when the port is taken is another one opened, and kept."""
    config = a_config(tmp_path / "a")
    ports = []
    for _ in range(2):
        async with a_part(config) as part:
            await part.until(lambda part: bool(part.views.newest.me.addresses))
            ports.append(port_of(part))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", ports[0]))
        async with a_part(config) as part:
            await part.until(lambda part: bool(part.views.newest.me.addresses))
            other = port_of(part)

            assert part.start.files.port() == other

    assert ports[0] == ports[1]
    assert other not in ports


async def test_an_address_of_another_machine_is_wrong_usage(tmp_path: Path) -> None:
    """The sentence names the flag, and no port that nobody chose."""
    with pytest.raises(AddressChoiceError, match=r"^--bind-ip 192\.0\.2\.77 is no address of this machine$") as caught:
        async with a_part(a_config(tmp_path / "a", bind_ip="192.0.2.77")):
            pass

    assert caught.value.exit_code == 2


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """Whoever reads it knows what to change."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        config = a_config(tmp_path / "a", bind_port=taken.getsockname()[1])

        with pytest.raises(PortInUseError, match="--bind-port"):
            async with a_part(config):
                pass
