"""A node on the loop of another program: it begins, serves and ends there, whatever becomes of its program's task."""

import asyncio
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from meshllm.config import Config
from meshllm.daemon.embedded import EmbeddedNode, _ended
from meshllm.daemon.errors import EngineChoiceError, StateInUseError
from tests.inventory import gguf_builder

LIMIT_S = 60.0


def a_config(tmp_path: Path, **changes: object) -> Config:
    """Return the settings of a small node with the fake engine."""
    gguf_builder.write(tmp_path / "models" / "tiny.gguf")
    settings: dict[str, object] = {
        "models": ("tiny",), "models_dirs": (tmp_path / "models",), "state_dir": tmp_path / "s",
        "runtime_dir": tmp_path / "r", "port": 0, "name": "n", "engine": "fake", "threads": 1, "drain_s": 1.0,
        "offline": True, "no_mdns": True, "bind_ip": "127.0.0.1",
    }  # fmt: skip
    return Config(**(settings | changes))  # type: ignore[arg-type]


async def test_it_answers_between_start_and_close_and_leaves_nothing(tmp_path: Path) -> None:
    """A port that was free, and gone again; closing twice, or what never began, is nothing."""
    config = a_config(tmp_path)
    node, never = EmbeddedNode(config), EmbeddedNode(config)

    await node.start()
    host, _, port = node.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.close()
    await node.close()
    await node.close()
    await never.close()

    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection(host, int(port))
    assert not config.runtime_dir.exists()
    assert never.address == ""


async def test_why_it_cannot_start_is_told_and_the_folder_is_free_again(tmp_path: Path) -> None:
    """A program may try once more with other settings."""
    config = a_config(tmp_path)
    first, second = EmbeddedNode(config), EmbeddedNode(config)

    with pytest.raises(EngineChoiceError, match="does not exist"):
        await EmbeddedNode(a_config(tmp_path, engine="/nonsense")).start()
    await first.start()
    with pytest.raises(StateInUseError):
        await second.start()
    await first.close()
    await second.start()

    await second.close()


async def test_a_start_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    """Whoever waits for it may have less time than it takes."""
    config = a_config(tmp_path)
    node = EmbeddedNode(config)
    starting = asyncio.get_running_loop().create_task(node.start())
    await asyncio.sleep(0)

    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert not config.runtime_dir.exists()


# Whatever a program still runs then is cancelled at once, and asyncio's own pipes to children say that they were open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_program_that_ends_its_loop_ends_the_node(tmp_path: Path) -> None:
    """On the loop of the standard library, too: engines and sockets are gone though nobody closed it."""
    config = a_config(tmp_path)

    async def forgetful() -> None:
        await EmbeddedNode(config).start()

    asyncio.run(asyncio.wait_for(forgetful(), LIMIT_S))

    assert not config.runtime_dir.exists()


async def stubborn(is_asked: asyncio.Event, may_end: asyncio.Event) -> None:
    """Live on after having been cancelled."""
    try:
        await may_end.wait()
    except asyncio.CancelledError:
        is_asked.set()
        await may_end.wait()


@pytest.mark.parametrize("stops", [False, True])
def test_the_end_of_a_program_waits_for_its_node_only_so_long(*, stops: bool) -> None:
    """Also where something of the program's stops the loop meanwhile."""
    with closing(asyncio.new_event_loop()) as loop:
        is_asked, may_end = asyncio.Event(), asyncio.Event()
        life = loop.create_task(stubborn(is_asked, may_end))
        loop.run_until_complete(asyncio.sleep(0))
        if stops:
            loop.call_later(0.01, loop.stop)

        is_ended = _ended(loop, life, LIMIT_S if stops else 0.01)

        assert (is_ended, is_asked.is_set()) == (False, True)
        may_end.set()
        loop.run_until_complete(life)
    assert _ended(loop, life, 0.0)


def test_a_loop_in_a_thread_ends_its_node_while_it_runs() -> None:
    """The thread that ends the program waits for it."""
    with closing(asyncio.new_event_loop()) as loop:
        life = loop.create_task(asyncio.Event().wait())
        thread = Thread(target=loop.run_forever)
        thread.start()

        is_ended = _ended(loop, life, LIMIT_S)  # type: ignore[arg-type]

        assert is_ended
        assert life.cancelled()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
