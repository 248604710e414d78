"""Requests that leave their model open (`auto`): each gets one of the models that are ready and can do it.

Owns what is remembered of a view for that: which models fit which wishes, and their hosts. Decides nothing itself:
`open_model` says which fit, the front door's memory which of them it is, and the session, or a comparison of two
models, narrows the choice before. Doesn't know what happens where none is ready; that request goes on as it came.
"""

import logging
import random
from collections.abc import Collection, Mapping
from functools import partial
from time import perf_counter

import msgspec

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import AUTO_NAME
from meshllm.core.routing.candidates import hosts_of
from meshllm.core.routing.open_model import capable, most_preferred
from meshllm.core.routing.ratings import Candidate
from meshllm.core.routing.route_memory import OPEN_MODEL, Ask
from meshllm.core.routing.routes import RouteRequest
from meshllm.core.routing.variants import Variants, compared, rolled_out
from meshllm.core.routing_config import RoutingConfig
from meshllm.core.view import MeshView
from meshllm.proxy.asks import ask_of
from meshllm.proxy.forward import Exchange
from meshllm.proxy.intake import Intake
from meshllm.proxy.peek import Peek, with_model
from meshllm.proxy.plan import Newest, Planner
from meshllm.proxy.pool import TunnelEnd
from meshllm.proxy.shadowing import Shadowing
from meshllm.proxy.traffic import Traffic

log = logging.getLogger(__name__)

_REMEMBERED = 256


class OpenRequests:
    """Names the models of open requests."""

    def __init__(
        self, planner: Planner, views: Newest, traffic: Traffic, rng: random.Random, shadowing: Shadowing
    ) -> None:  # fmt: skip
        """Choose by the memory of `planner`; `traffic` knows what is at each engine from here."""
        self._planner = planner
        self.shadowing = shadowing
        self._views = views
        self._traffic = traffic
        self._variants = Variants(rng)
        self._view: MeshView | None = None
        self._fitting: dict[RouteRequest, Mapping[ModelId, int]] = {}
        self._hosts: dict[ModelId, tuple[Candidate, ...]] = {}

    def named(self, seen: Peek, intake: Intake, request_id: bytes, out: Collection[NodeId] = ()) -> Peek:
        """Return an open request as one for the model that it gets, without the hosts `out`; as it is without any."""
        door = intake.inference
        if door is None:
            return seen
        planner = self._planner
        planner.hear()
        config, now_s = planner.config, planner.clock()
        ask = ask_of(intake, seen.body, request_id, config, seen.session_id)
        began_s = perf_counter()
        fitting = self._ready(RouteRequest(model=AUTO_NAME, needs=door.needs, wishes=seen.wishes), out)
        if not fitting:
            return seen
        among, is_compared = self._narrowed(fitting, ask, config, now_s)
        hosts = self._engines(among, out)
        decision = planner.memory.choose_model(hosts, ask, config, now_s)
        planner.wrote(decision, perf_counter() - began_s, config, now_s)
        model = ModelId(decision.picked)
        if not model:
            return seen
        planner.memory.chose_model(model, ask, config, now_s)
        body = with_model(seen.body, seen.model, model)
        return msgspec.structs.replace(seen, model=model, body=body, is_open=True, is_compared=is_compared)

    def compare(self, exchange: Exchange) -> None:
        """Have what comes of a request counted, where its model is compared or copied, though it has one host only."""
        target, seen = exchange.target, exchange.seen
        if not (seen.is_compared or target.is_shadowed):
            return
        targets = (target, *target.others)
        plan = self._planner.plan(exchange.intake, exchange.body, exchange.request_id, targets, seen.session_id)
        plan.is_compared, exchange.plan = seen.is_compared, plan
        if target.is_shadowed:
            plan.then = partial(self.shadowing.copy, exchange)
        if not target.others:
            exchange.go(target)

    def turn(self, exchange: Exchange) -> None:
        """Give an open request another model, where it was at every host of the one that it had."""
        been = exchange.trip.trail.setbacks if exchange.trip is not None else {}
        model = ModelId(exchange.asked_model or "")
        if not been or self._engines([model], been)[model]:
            return
        seen = self.named(exchange.seen, exchange.intake, exchange.request_id, been)
        if seen.model != exchange.asked_model:
            exchange.leave()
            if exchange.plan is not None:
                exchange.plan.settled("", is_ok=False)
            exchange.seen, exchange.asked_model, exchange.body, exchange.plan = seen, seen.model, seen.body, None

    def _ready(self, request: RouteRequest, out: Collection[NodeId]) -> Mapping[ModelId, int]:
        """Return the models that fit and have a host, with how many preferences each meets."""
        view = self._views.newest
        if view is not self._view:
            self._view = view
            self._fitting.clear()
            self._hosts.clear()
        found = self._fitting.get(request)
        if found is None:
            if len(self._fitting) >= _REMEMBERED:
                self._fitting.clear()
            found = self._fitting[request] = capable(view, request)
        if not out:
            return found
        return {model: met for model, met in found.items() if any(one.node not in out for one in self._resting(model))}

    def _narrowed(
        self, fitting: Mapping[ModelId, int], ask: Ask, config: RoutingConfig, now_s: float
    ) -> tuple[Collection[ModelId], bool]:
        """Return the models to choose among: the session's own, else a variant, else those that are preferred.

        With it goes whether these are compared.
        """
        bound = self._planner.memory.affinity.where(ask.session, OPEN_MODEL, now_s) if ask.session else None
        weights = self._weights(config, now_s)
        if bound is not None and bound in fitting:
            of_bound = [weight for name, weight in weights if self._resolved(name) == bound]
            if any(of_bound) or not of_bound or config.rollout is None:
                return (ModelId(bound),), bool(of_bound)
        if weights and (variant := self._variant(fitting, ask, weights)) is not None:
            return (variant,), True
        return most_preferred(fitting), False

    def _weights(self, config: RoutingConfig, now_s: float) -> tuple[tuple[str, float], ...]:
        """Return the models that share the open requests, and by which weights; none where they are not shared."""
        stats, plan = self._planner.memory.stats, config.rollout
        if plan is None:
            stats.rollouts.end()
            return compared(config) if config.ab_test_enabled else ()
        models = (self._resolved(plan.of), self._resolved(plan.to))
        share = stats.rollouts.share(plan, models, stats.trials, now_s)
        for one in stats.rollouts.taken_news():
            log.log(logging.getLevelName(one.level.upper()), one.message, extra={"fields": dict(one.fields)})
        return rolled_out(plan, share)

    def _variant(
        self, fitting: Mapping[ModelId, int], ask: Ask, weights: tuple[tuple[str, float], ...]
    ) -> ModelId | None:  # fmt: skip
        """Return which of the compared models a request gets: another one where its own is not to be had."""
        places = [name for name, _ in weights]
        for number, name in enumerate(self._variants.order(weights, ask.session)):
            model = self._resolved(name)
            if model in fitting:
                self._planner.memory.stats.compared(places.index(name), is_spilled=number > 0)
                return model
        return None

    def _resolved(self, name: str | None) -> ModelId:
        """Return the model of a name; the name itself where it is none, which then is no model that fits."""
        found = self._views.newest.names.resolve(name or "")
        return ModelId(found) if isinstance(found, str) else ModelId(name or "")

    def _resting(self, model: ModelId) -> tuple[Candidate, ...]:
        """Return the hosts of a model as the view knows them."""
        known = self._hosts.get(model)
        if known is None:
            known = self._hosts[model] = hosts_of(self._views.newest, model)
        return known

    def _engines(
        self, models: Collection[ModelId], out: Collection[NodeId]
    ) -> dict[ModelId, tuple[Candidate, ...]]:  # fmt: skip
        """Return the hosts of models, as busy as they are known to be at this moment."""
        traffic, me = self._traffic, self._views.newest.me.node
        found = {model: self._resting(model) for model in models}
        busy = {(me, one.model): one.in_flight for one in traffic.models.values() if one.in_flight}
        for end, one in traffic.tunnels.items():
            if one.in_flight and isinstance(end, TunnelEnd):
                busy[end.node, end.model] = one.in_flight
        for model in {model for _, model in busy} & found.keys():
            found[model] = tuple(one.as_busy_as(max(one.busy, busy.get(one.key, 0))) for one in found[model])
        quotas = self._planner.quotas
        if quotas is not None and self._views.newest.quotas.is_limiting:
            found = {model: tuple(quotas.told(hosts)) for model, hosts in found.items()}
        if out:
            found = {model: tuple(one for one in hosts if one.node not in out) for model, hosts in found.items()}
        return found
