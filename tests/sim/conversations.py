"""Conversations that share beginnings, over hosts with bounded caches: what a strategy makes of them, by the event.

Hosts read prompts at one speed for all, keep the blocks used least lately in a bounded cache, and report what was
cached. Prompts are lists of block numbers here as in `Prompt`; no text is made.
"""

import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.prefix_index import Prompt
from meshllm.core.routing.ratings import Candidate
from meshllm.core.routing.route_memory import Ask, Report, RouteMemory
from meshllm.core.routing_config import RoutingConfig, Strategy

MODEL = ModelId("m")
BYTES_PER_TOKEN = 4
READ_TOKENS_PER_S = 2000.0
SLOTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of the hosts."""

    hosts: int
    conversations: int
    arrivals_per_s: float
    """New conversations."""
    topics: int
    """Different beginnings that conversations share."""
    topic_blocks: int = 8
    turns: int = 5
    """On average."""
    think_s: float = 5.0
    cache_blocks: int = 300
    """Of one host."""
    gossip_s: float = 1.0
    """How old announcements are at most."""


@dataclass(slots=True)
class Host:
    """One engine: slots, a queue, a cache."""

    name: NodeId
    cache_blocks: int
    cache: OrderedDict[int, None] = field(default_factory=OrderedDict)
    busy: int = 0
    queue: deque[Callable[[float], None]] = field(default_factory=deque)
    served: int = 0
    announced: int = 0

    def cached(self, blocks: tuple[int, ...]) -> int:
        """Return how many blocks of a prompt are cached."""
        count = 0
        while count < len(blocks) and blocks[count] in self.cache:
            count += 1
        return count

    def keep(self, blocks: tuple[int, ...]) -> None:
        """Cache a prompt, forgetting what was used least lately."""
        for block in reversed(blocks):
            self.cache[block] = None
            self.cache.move_to_end(block)
        while len(self.cache) > self.cache_blocks:
            self.cache.popitem(last=False)


@dataclass(slots=True)
class Conversation:
    """A prompt that grows."""

    rng: random.Random
    """Its own, so that it says the same whatever the hosts do."""
    blocks: list[int]
    turns_left: int
    is_first: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it."""

    hit_rate: float
    """Of all prompt tokens."""
    fullest: float
    """Requests of the host that had most, over the fair share."""
    requests: int
    first_byte_s: float
    """On average."""


class World:
    """Hosts, conversations and time."""

    def __init__(self, load: Load, seed: int, pick: "Pick") -> None:
        """Begin without requests."""
        self.load, self.rng, self.pick = load, random.Random(seed), pick
        self.hosts = [Host(NodeId(f"n{number:03}"), load.cache_blocks) for number in range(load.hosts)]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = 0
        self._blocks = 0
        self._hit = self._asked = self._requests = 0
        self._waited_s = 0.0
        self.marks = 1
        self.listeners: list[Callable[[World], None]] = []
        self._topics = [self._new_blocks(load.topic_blocks) for _ in range(load.topics)]

    def run(self) -> Outcome:
        """Run until all conversations are over."""
        at_s = 0.0
        for _ in range(self.load.conversations):
            at_s += self.rng.expovariate(self.load.arrivals_per_s)
            self._at(at_s, self._begin)
        self._at(0.0, self._gossip)
        while self._events:
            now_s, _, action = heapq.heappop(self._events)
            action(now_s)
        served = [host.served for host in self.hosts]
        return Outcome(
            hit_rate=self._hit / self._asked, fullest=max(served) * len(served) / sum(served), requests=self._requests,
            first_byte_s=self._waited_s / self._requests,
        )  # fmt: skip

    def _at(self, when_s: float, action: Callable[[float], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._events, (when_s, self._numbers, action))

    def _new_blocks(self, count: int) -> list[int]:
        self._blocks += count
        return list(range(self._blocks - count, self._blocks))

    def _gossip(self, now_s: float) -> None:
        self.marks += 1
        for host in self.hosts:
            host.announced = host.busy + len(host.queue)
        for listener in self.listeners:
            listener(self)
        if self._events:
            self._at(now_s + self.load.gossip_s, self._gossip)

    def _begin(self, now_s: float) -> None:
        topic = self._topics[min(int(self.rng.paretovariate(0.8)) - 1, len(self._topics) - 1)]
        turns = self.rng.randint(1, 2 * self.load.turns - 1)
        rng = random.Random(self.rng.random())
        self._ask(Conversation(rng, topic + self._new_blocks(rng.randint(1, 3)), turns), now_s)

    def _ask(self, conversation: Conversation, now_s: float) -> None:
        blocks = tuple(conversation.blocks)
        prompt = a_prompt(blocks)
        host, began, ended = self.pick(self, blocks, conversation.is_first, now_s)
        host.served += 1
        self._requests += 1
        conversation.is_first = False

        def start(start_s: float) -> None:
            cached = prompt.bytes_to(host.cached(blocks)) // BYTES_PER_TOKEN
            tokens = prompt.size_bytes // BYTES_PER_TOKEN
            self._hit, self._asked = self._hit + cached, self._asked + tokens
            read_s = (tokens - cached + 10) / READ_TOKENS_PER_S
            report = Report(prompt_tokens=tokens, cached_tokens=cached, read_s=read_s)
            self._waited_s += start_s + read_s - now_s
            host.busy += 1
            self._at(start_s + read_s, read)
            self._at(start_s + read_s + conversation.rng.uniform(1.0, 3.0), lambda at_s: end(at_s, report))

        def read(at_s: float) -> None:
            host.keep(blocks)
            began(at_s)

        def end(at_s: float, report: Report) -> None:
            host.busy -= 1
            ended(report, at_s)
            if host.queue:
                host.queue.popleft()(at_s)
            conversation.turns_left -= 1
            conversation.blocks += self._new_blocks(conversation.rng.randint(1, 4))
            if conversation.turns_left > 0:
                self._at(
                    at_s + conversation.rng.expovariate(1.0 / self.load.think_s),
                    lambda then_s: self._ask(conversation, then_s),
                )

        if host.busy < SLOTS:
            start(now_s)
        else:
            host.queue.append(start)


def a_prompt(blocks: tuple[int, ...]) -> Prompt:
    """Return the prompt that ends with its last block."""
    size_bytes = Prompt(blocks=blocks, size_bytes=0).bytes_to(len(blocks))
    return Prompt(blocks=blocks, size_bytes=size_bytes)


Began = Callable[[float], None]
Ended = Callable[[Report, float], None]
Pick = Callable[[World, tuple[int, ...], bool, float], tuple[Host, Began, Ended]]


def oracle(world: World, blocks: tuple[int, ...], is_first: bool, now_s: float) -> tuple[Host, Began, Ended]:
    """Pick the host that really has most of the prompt cached, of those the one that had least to do."""
    host = max(world.hosts, key=lambda host: (host.cached(blocks), -host.busy - len(host.queue), -host.served))
    return host, lambda _: None, lambda _report, _: None


def careful_oracle(world: World, blocks: tuple[int, ...], is_first: bool, now_s: float) -> tuple[Host, Began, Ended]:
    """Do the same among the hosts that have a free slot: no cache is worth a queue to it."""
    free = [host for host in world.hosts if host.busy < SLOTS and not host.queue] or world.hosts
    host = max(free, key=lambda host: (host.cached(blocks), -host.busy - len(host.queue), -host.served))
    return host, lambda _: None, lambda _report, _: None


class Routed:
    """Picks as a front door does."""

    def __init__(self, strategy: Strategy, seed: int) -> None:
        """Remember nothing yet."""
        self.memory = RouteMemory(random.Random(seed))
        self.config = RoutingConfig(strategy=strategy)
        self._candidates: list[Candidate] = []

    def _hear(self, world: World) -> None:
        self._candidates = [
            Candidate(node=host.name, model=MODEL, slots=SLOTS, busy=host.announced, mark=world.marks, rtt_s=0.001)
            for host in world.hosts
        ]
        self.memory.heard(lambda _: world.marks)

    def __call__(
        self, world: World, blocks: tuple[int, ...], is_first: bool, now_s: float
    ) -> tuple[Host, Began, Ended]:
        """Pick a host, and tell the memory what comes of it."""
        if not self._candidates:
            self._hear(world)
            world.listeners.append(self._hear)
        ask = Ask(prompt=a_prompt(blocks), is_first=is_first)
        decision = self.memory.choose(self._candidates, ask, self.config, now_s)
        reservation = self.memory.sent(decision.ratings[0], ask, self.config, now_s)
        host = world.hosts[int(decision.picked[1:])]
        return (
            host,
            lambda at_s: self.memory.begun(reservation, at_s),
            lambda report, at_s: self.memory.ended(reservation, report, at_s),
        )
