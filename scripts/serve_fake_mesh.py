"""The console over a simulated mesh: `scripts/fake_mesh [--port 9338] [--nodes 50] [--quiet] [--hostile]`.

Serves the real management API for the node `desk`. Standard input takes the orders of `meshllm.testing.scenario`, one
a line: `crash n07`, `restart n07`, `start late via desk with tiny`, `break tiny at n03`, `divide desk n01 | n02 n03`,
`traffic tiny 5 at desk`. Time is real time. There are no files and no engines: chat has nobody to talk to.
"""

import argparse
import asyncio
import sys
import threading
from collections.abc import Iterator

from aiohttp import web

from meshllm.api.app import make_app
from meshllm.testing.scenario import Scenario, StoryError
from scripts.fake_mesh_node import FakeMeshNode

ME = "desk"
TICK_S = 0.1
SETTLE_S = 40.0
MODELS = {"tiny-135m": 1, "chat-8b": 5, "code-14b": 9, "vision-7b": 6, "chat-70b": 42, "giant-400b": 230}
"""GiB by name. Nobody can load the last."""
LENT = (
    ("chat-8b", "ram=32 vram=12 load=4"), ("code-14b", "ram=64 vram=24 load=4"), ("tiny-135m", "ram=8 load=4"),
    ("chat-70b", "ram=128 vram=96 load=4"),
)  # fmt: skip
"""What nodes in turn are told to serve, and their machines in the words of a scenario."""
HOSTILE = "<img/src=x/onerror=alert(1)>"
TRAFFIC = f"traffic chat-8b 3 at {ME}"


def story(nodes: int, *, is_hostile: bool) -> Iterator[str]:
    """Yield the orders that make a mesh of so many nodes."""
    yield "mesh seed=7 delay=4 jitter=2"
    for name, size in MODELS.items():
        yield f"model {name} {size}"
    yield f"start {ME} with tiny-135m giant-400b ram=32 asks=tiny-135m"
    if is_hostile:
        yield f"start {HOSTILE} via {ME} with tiny-135m ram=16 asks=tiny-135m"
    for number in range(1, nodes):
        model, machine = LENT[number % len(LENT)]
        # Every eighth is a client or has nothing to do: it serves nothing.
        serves = "" if number % 8 == 0 else f" with {model} vision-7b {machine} asks={model} fills"
        yield f"start n{number:02} via {ME}{serves}"
    yield f"run {SETTLE_S}"


class NodesLoop(asyncio.SelectorEventLoop):
    """A loop whose clock is the simulated node's, since the management API counts times by it."""

    ahead_s = 0.0

    def time(self) -> float:
        """Return seconds by the node's clock."""
        return super().time() + self.ahead_s


async def live(node: FakeMeshNode) -> None:
    """Let the mesh live in real time."""
    loop = asyncio.get_running_loop()
    while True:
        node.run_until(loop.time())
        await asyncio.sleep(TICK_S)


def read_orders(node: FakeMeshNode, loop: asyncio.AbstractEventLoop) -> None:
    """Carry out what comes from standard input, until it ends."""

    def obey(line: str) -> None:
        try:
            node.obey(line)
        except StoryError as error:
            print(f"refused: {error}", flush=True)
        else:
            print(f"done: {line}", flush=True)

    for line in sys.stdin:
        if line.strip():
            loop.call_soon_threadsafe(obey, line.strip())


async def serve(node: FakeMeshNode, port: int) -> None:
    """Serve the management API until cancelled."""
    runner = web.AppRunner(make_app(node), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        threading.Thread(target=read_orders, args=(node, asyncio.get_running_loop()), daemon=True).start()
        print(f"fake mesh: http://{node.address}/", flush=True)
        await live(node)
    finally:
        await runner.cleanup()


def main() -> int:
    """Do what the arguments say. Return an exit status."""
    parser = argparse.ArgumentParser(description="Serve the console over a simulated mesh.")
    parser.add_argument("--port", type=int, default=9338, help="where to listen, on 127.0.0.1")
    parser.add_argument("--nodes", type=int, default=50, help="how many nodes")
    parser.add_argument("--quiet", action="store_true", help="without requests")
    parser.add_argument("--hostile", action="store_true", help="with a node whose name is markup")
    arguments = parser.parse_args()
    scenario = Scenario()
    for order in story(arguments.nodes, is_hostile=arguments.hostile):
        scenario.obey(order)
    node = FakeMeshNode(scenario, ME, f"127.0.0.1:{arguments.port}")
    if not arguments.quiet:
        node.obey(TRAFFIC)
    loop = NodesLoop()
    loop.ahead_s = node.clock_s - loop.time()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        try:
            runner.run(serve(node, arguments.port))
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
