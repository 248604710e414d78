"""Servers that run elsewhere and answer as engines of this node: which of their models it serves, and how it goes.

Owns what is known of each server, when it is asked again, and the models that it adds to this node's own. Decides what
they are called here and when a server counts as gone. Doesn't know HTTP; it never starts, stops or drains a server.

Invariant: an adopted model never has the id of one on this disk, and its digest is of the server and what that calls
it: what file the server runs nobody knows, so it is never taken for a replica of one.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from meshllm.core import events as ev
from meshllm.core import limits
from meshllm.core.catalog import model_id_of
from meshllm.core.effects import Answer, DrainEngine, Level, ProbeRemote
from meshllm.core.engines import EngineEndpoint, EngineFailure, EngineFault, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Intent, Outcome, OutcomeCode
from meshllm.core.names import RESERVED_NAMES, NameIndex
from meshllm.core.remotes import ADOPTED_KIND, ListedModel, RemoteBackend, RemotePlace, RemoteState, is_key, place_of
from meshllm.core.serving.replies import Effects, notice
from meshllm.core.view import LocalModel, Reason

_LATEST = ":latest"
"""The tag that a name without one stands for at servers that have tags."""
_NOT_ASKED = EngineFailure(fault=EngineFault.UNREACHABLE, message="the server was not asked yet")


@dataclass(slots=True, kw_only=True)
class _Server:
    """What is known of one server."""

    said: RemoteBackend
    """By the configuration."""
    place: RemotePlace | None
    """None where its URL is none."""
    failure: EngineFailure | None
    """Why its models are not served; None while it answers."""
    listed: tuple[ListedModel, ...] = ()
    """As it said last."""
    has_list: bool = True
    failures: int = 0
    """Probes in a row that failed."""
    due_s: float = float("-inf")
    asked_at_s: float = float("-inf")
    is_asked: bool = False
    """A probe is under way."""
    was_up: bool = False
    """It answered once."""
    served: int = 0
    left_out: int = 0


@dataclass(slots=True, kw_only=True)
class _Adoption:
    """One model of a server, as this node calls it; outlives the server's absences."""

    server: _Server
    served_name: str
    context_tokens: int = 0
    failure: EngineFailure | None = None
    """What is wrong with it alone, while its server answers."""


@dataclass(slots=True)
class _Use:
    """What happened to a model since the daemon started."""

    requests: int = 0
    last_used_s: float | None = None
    ready_since_s: float | None = None


@dataclass(slots=True)
class _Shown:
    """What was made of the servers for one set of ids that are taken."""

    taken: tuple[ModelId, ...] = ()
    names_of: NameIndex | None = None
    names: NameIndex = field(default_factory=lambda: NameIndex(()))


class Adopted:
    """The adopted servers of this node and their models."""

    def __init__(self, servers: Collection[RemoteBackend], me: NodeId) -> None:
        """Know nothing of them yet but what the configuration of this node says."""
        self._me = me
        self._servers = {one.name: _server(one) for one in list(servers)[: limits.REMOTES]}
        self._adoptions: dict[ModelId, _Adoption] = {}
        self._uses: dict[ModelId, _Use] = {}
        self._draining: set[ModelId] = set()
        self._is_leaving = False
        self._is_changed = True
        self._shown = _Shown()
        self._own_names = NameIndex(())
        self.models: dict[ModelId, LocalModel] = {}
        """What it adds to this node's own models, by id; renewed by `settle`."""

    # -- facts ----------------------------------------------------------------------------------------

    def on_probed(self, event: ev.RemoteProbed, now_s: float) -> Effects:
        """Take what a server said of its models, or that it said nothing."""
        server = self._servers.get(event.server)
        if server is None:
            return []
        server.is_asked = False
        self._is_changed = True
        if event.failure is not None:
            return self._missed(server, event.failure, now_s)
        was_up, had = server.failure is None, len(server.listed)
        server.failure, server.failures, server.was_up = None, 0, True
        server.listed, server.has_list = event.models, event.has_list
        server.due_s = now_s + limits.REMOTE_PROBE_INTERVAL_S
        if was_up and had == len(event.models):
            return []
        return [notice(Level.INFO, "adopted server answers", name=server.said.name, models=len(event.models))]

    def _missed(self, server: _Server, failure: EngineFailure, now_s: float) -> Effects:
        """Count a probe that failed. A server that computes may be late once; one that refuses is gone."""
        server.failures += 1
        delay_s = limits.REMOTE_RETRY_FIRST_S * 2.0 ** min(server.failures - 1, 16)
        server.due_s = now_s + min(delay_s, limits.REMOTE_PROBE_INTERVAL_S)
        is_late = failure.fault is EngineFault.HUNG and server.failures < limits.REMOTE_MISSES
        if server.failure is None and is_late:
            return []
        is_news = server.failure is None or server.failure.message != failure.message
        server.failure = failure
        if not is_news:
            return []
        return [notice(Level.WARNING, "adopted server is not usable", name=server.said.name, reason=failure.message)]

    def on_doubted(self, event: ev.RemoteDoubted) -> Effects:
        """A request had no luck there: ask the server soon, and not again for each request."""
        adoption = self._adoptions.get(event.model)
        if adoption is not None and not adoption.server.is_asked:
            server = adoption.server
            server.due_s = min(server.due_s, server.asked_at_s + limits.REMOTE_RETRY_FIRST_S)
        return []

    def on_traffic(self, event: ev.TrafficMeasured, now_s: float) -> None:
        """Count requests."""
        for model, count in event.finished:
            if model in self._adoptions:
                use = self._uses.setdefault(model, _Use())
                use.requests += count
                use.last_used_s = now_s
                self._is_changed = True

    # -- the node leaves ------------------------------------------------------------------------------

    def leave(self, drain_s: float, *, force: bool) -> Effects:
        """Take nothing more; let what is under way there finish, unless it is to be cut."""
        self._is_changed = True
        if force or self._is_leaving:
            self._draining.clear()
            self._is_leaving = True
            return []
        self._is_leaving = True
        self._draining = {model.id for model in self.models.values() if model.is_ready}
        return [DrainEngine(model=model, within_s=drain_s) for model in sorted(self._draining)]

    def on_drained(self, event: ev.EngineDrained) -> None:
        """Nothing is under way there any more."""
        self._draining.discard(event.model)
        self._is_changed = True

    @property
    def is_draining(self) -> bool:
        """Tell whether a leaving node still waits for answers."""
        return bool(self._draining)

    # -- what is done and shown -----------------------------------------------------------------------

    def settle(self, now_s: float, taken: Collection[ModelId]) -> Effects:
        """Ask the servers whose time has come; renew `models`, which avoid the ids that are taken."""
        effects: Effects = []
        for server in self._servers.values():
            if server.place is None or self._is_leaving or server.due_s > now_s:
                continue
            server.is_asked, server.asked_at_s = True, now_s
            # Should its answer be lost, it is asked again all the same.
            server.due_s = now_s + limits.REMOTE_PROBE_TIMEOUT_S + limits.REMOTE_PROBE_INTERVAL_S
            effects.append(ProbeRemote(server=server.said))
        ids = tuple(taken)
        if self._is_changed or self._shown.taken != ids:
            self._is_changed, self._shown.taken = False, ids
            self._adopt(frozenset(ids))
            self.models = {model: self._snapshot(model, one, now_s) for model, one in self._adoptions.items()}
        return effects

    def next_s(self) -> float | None:
        """Return when a server is to be asked next."""
        if self._is_leaving:
            return None
        return min((server.due_s for server in self._servers.values() if server.place is not None), default=None)

    def find(self, asked: str) -> ModelId | None:
        """Return the adopted model that a name means, alone or behind its server's: `box/llama3`."""
        found = self._own_names.resolve(asked)
        return found if isinstance(found, str) else None

    @property
    def is_awaited(self) -> bool:
        """Tell whether a server has not been heard of that may have models of any name."""
        return any(_is_awaited(one) for one in self._servers.values())

    @property
    def may_return(self) -> bool:
        """Tell whether a server was never reached that may have models of any name."""
        return any(one.place is not None and not one.was_up and not one.said.models for one in self._servers.values())

    @property
    def states(self) -> tuple[RemoteState, ...]:
        """Return how it goes with each server."""
        return tuple(_state(server) for server in self._servers.values())

    def names(self, own: NameIndex) -> NameIndex:
        """Return an index of this node's own names and those of adopted models; the same object for the same names."""
        shown = self._shown
        if shown.names_of is not own:
            shown.names_of = own
            shown.names = own.including(self._adoptions, _with_servers(self._adoptions))
        return shown.names

    def refuse(self, intent: Intent, own: NameIndex) -> Effects | None:
        """Answer an intent about an adopted model: nobody here loads or unloads it. None for any other."""
        if not self._adoptions or isinstance(own.resolve(intent.model), str):
            return None
        found = self._own_names.resolve(intent.model)
        if not isinstance(found, str):
            return None
        name = self._adoptions[found].server.said.name
        message = f"{found} is at the server {name!r}, which this node uses and does not run: nothing changed"
        outcome = Outcome(code=OutcomeCode.NOT_LOADABLE, message=message, model=found)
        return [Answer(request_id=intent.request_id, outcome=outcome)]

    def _adopt(self, taken: frozenset[ModelId]) -> None:
        """Choose which models of which server are served here, and by what name."""
        found: dict[ModelId, _Adoption] = {}
        for server in self._servers.values():
            server.served = server.left_out = 0
            for adoption in _offers(server):
                model = _name_for(adoption, taken | found.keys())
                if model is None or len(found) >= limits.REMOTE_MODELS:
                    server.left_out += 1
                    continue
                found[model] = adoption
                server.served += 1
        if found.keys() != self._adoptions.keys():
            self._shown.names_of = None
            self._uses = {model: use for model, use in self._uses.items() if model in found}
        self._adoptions = found
        self._own_names = NameIndex(found, _with_servers(found))

    def _snapshot(self, model: ModelId, adoption: _Adoption, now_s: float) -> LocalModel:
        """Return an adopted model as this node shows its own."""
        server, use = adoption.server, self._uses.setdefault(model, _Use())
        failure = server.failure or adoption.failure
        state = EngineState.READY if failure is None else EngineState.FAILED
        if failure is _NOT_ASKED:
            state, failure = EngineState.STARTING, None  # it may answer: not known yet is not the same as gone
        if self._is_leaving:
            state = EngineState.DRAINING if model in self._draining else EngineState.STOPPED
        use.ready_since_s = (use.ready_since_s or now_s) if state is EngineState.READY else None
        has_endpoint = state in (EngineState.READY, EngineState.DRAINING)
        return LocalModel(
            id=model, spec=None, state=state, wanted=not self._is_leaving, failure=failure,
            endpoint=_endpoint(server, adoption.served_name) if has_endpoint else None,
            slots=limits.REMOTE_SLOTS if has_endpoint else 0,
            context_tokens=adoption.context_tokens if has_endpoint else 0,
            reason=Reason.EXPLICIT, ready_since_s=use.ready_since_s, requests=use.requests,
            last_used_s=use.last_used_s, adopted_from=server.said.name,
            adopted_digest=_digest(server, adoption.served_name, self._me),
        )  # fmt: skip


def _server(said: RemoteBackend) -> _Server:
    """Return a server of which nothing is known, or which nobody can ask."""
    try:
        place = place_of(said.base_url)
        problem = "" if is_key(said.api_key) else "its key holds characters that no header can carry"
    except ValueError as error:
        place, problem = None, str(error)
    if problem:
        failure = EngineFailure(fault=EngineFault.UNREACHABLE, message=problem)
        return _Server(said=said, place=None, failure=failure)
    return _Server(said=said, place=place, failure=_NOT_ASKED)


def _with_servers(adoptions: Mapping[ModelId, _Adoption]) -> dict[str, list[ModelId]]:
    """Return the longer name of each model, behind its server's."""
    return {f"{one.server.said.name}/{one.served_name}": [model] for model, one in adoptions.items()}


def _digest(server: _Server, served_name: str, me: NodeId) -> str:
    """Return what is the same at every node that adopts the same model of the same server.

    An address of this machine is another server at every node.
    """
    if server.place is None:
        return ""
    where = me if server.place.is_loopback else ""
    return f"{ADOPTED_KIND}{sha256(chr(0).join((server.place.url, where, served_name)).encode()).hexdigest()}"


def _offers(server: _Server) -> list[_Adoption]:
    """Return the models of a server that the configuration wants: those it names, else all that are listed."""
    listed = {model.name: model for model in server.listed}
    if not server.said.models:
        return [
            _Adoption(server=server, served_name=model.name, context_tokens=model.context_tokens)
            for model in listed.values()
        ]
    offers = []
    for name in dict.fromkeys(server.said.models):
        model = listed.get(name) or listed.get(name + _LATEST)
        offer = _Adoption(server=server, served_name=name)
        if model is not None:
            offer.context_tokens = model.context_tokens
        elif server.has_list and server.failure is None:
            offer.failure = _not_listed(server, name)
        offers.append(offer)
    return offers


def _not_listed(server: _Server, name: str) -> EngineFailure:
    has = ", ".join(model.name[:64] for model in server.listed[:8]) or "no models at all"
    more = ", …" if len(server.listed) > 8 else ""
    message = f"the server {server.said.name!r} does not list {name!r}; it lists {has}{more}"
    return EngineFailure(fault=EngineFault.NOT_LISTED, message=message)


def _name_for(adoption: _Adoption, taken: Collection[ModelId]) -> ModelId | None:
    """Return what a model is called here: as its server or the configuration calls it, else with the server's name.

    `@` asks for a version of a model here, so it cannot be part of an id. None for a name that nobody could ask by.
    """
    said, served_name = adoption.server.said, adoption.served_name
    name = said.aliases.get(served_name) or _own_name(served_name)
    for model in (name, f"{said.name}/{name}"):
        is_speakable = 0 < len(model) <= limits.MODEL_ID_CHARS and model.isprintable()
        if is_speakable and model.casefold() not in RESERVED_NAMES and model not in taken:
            return ModelId(model)
    return None


def _own_name(served_name: str) -> str:
    """Return what a model is called where nobody says otherwise: a file by its stem, as those on this disk are.

    Servers that were given a file list its path, and the folders are nobody's business.
    """
    is_path = served_name.startswith(("/", "~", ".")) or "\\" in served_name
    if is_path or served_name.lower().endswith(".gguf"):
        served_name = model_id_of(served_name.replace("\\", "/").rstrip("/"))
    return served_name.replace("@", "-")


def _endpoint(server: _Server, served_name: str) -> EngineEndpoint | None:
    place = server.place
    if place is None:
        return None
    return EngineEndpoint(
        address=(place.host, place.port), key=server.said.api_key, served_name=served_name, is_tls=place.is_tls,
        authority=place.authority, prefix=place.prefix,
    )  # fmt: skip


def _is_awaited(server: _Server) -> bool:
    return server.place is not None and server.failure is _NOT_ASKED


def _state(server: _Server) -> RemoteState:
    return RemoteState(
        name=server.said.name, url=server.place.url if server.place is not None else "",
        is_up=server.failure is None, models=server.served if server.failure is None else 0,
        left_out=server.left_out, message=server.failure.message if server.failure is not None else "",
        is_awaited=_is_awaited(server),
    )  # fmt: skip
