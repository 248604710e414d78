"""Candidates, ratings and occasions for tests of routing: say only what matters."""

import random
from dataclasses import replace

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.loads import Loads
from meshllm.core.routing.prefix_index import NO_PROMPT, PrefixIndex, Prompt, prompt_of
from meshllm.core.routing.ratings import Candidate, Rating, rate
from meshllm.core.routing.strategies import Occasion
from meshllm.core.routing_config import DEFAULT, RoutingConfig

MODEL = ModelId("m")


def a_candidate(name: str, **said: object) -> Candidate:
    """Return an idle engine with four slots."""
    return replace(Candidate(node=NodeId(name), model=MODEL, slots=4, mark=1), **said)


def candidates(*names: str) -> list[Candidate]:
    """Return idle engines."""
    return [a_candidate(name) for name in names]


def a_rating(name: str, *, candidate: dict[str, object] | None = None, **found: object) -> Rating:
    """Return the rating of an idle engine that is like any other, or differs in what is given."""
    [plain] = rate(
        [a_candidate(name, **(candidate or {}))], NO_PROMPT, DEFAULT, loads=Loads(), index=PrefixIndex(), now_s=0.0
    )
    return plain._replace(**found)


def an_occasion(config: RoutingConfig = DEFAULT, *, seed: int = 1, **said: object) -> Occasion:
    """Return the occasion of a plain request."""
    return replace(Occasion(config=config, rng=random.Random(seed)), **said)


def a_prompt(text: str = "s", size: int = 8192) -> Prompt:
    """Return a prompt of one text, repeated."""
    return prompt_of([("system", text * (size // len(text)))])
