"""What `mesh-llm doctor` asks: of the running node over HTTP, of this machine and its folders where none runs.

Owns which questions belong to which check, and their order. Decides nothing: `core.doctor` makes findings of the
answers. Doesn't print.
"""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlencode

from meshllm.cli import node_facts, standalone
from meshllm.cli.api_client import ApiClient, NodeLostError, NoNodeError, connect
from meshllm.cli.failures import CommandError
from meshllm.cli.rows import Document, items, number, part, text, texts
from meshllm.cli.settings import configured, has_port
from meshllm.config import Config, is_loopback
from meshllm.config_shown import shown
from meshllm.core import cache_config, quota_config, routing_config
from meshllm.core.doctor.discovery import Search, discovery
from meshllm.core.doctor.findings import Finding, Result
from meshllm.core.doctor.fitness import fitness
from meshllm.core.doctor.loading import LoadCase, loading
from meshllm.core.doctor.production import SetUp, production
from meshllm.core.doctor.tuning import Tunable, Tuning, tunables
from meshllm.core.limits import NODE_ANSWER_TIMEOUT_S, RESCAN_WAIT_S

LOG_LINES = 2000
MODELS_ASKED = 64
"""About whose quotas a node is asked."""


class Examination:
    """One look at a node, or at its configuration and folders where none runs."""

    def __init__(self, flags: Mapping[str, object]) -> None:
        """Find out whether a node answers. Raises CommandError."""
        self._config: Config = configured(flags)
        self._client: ApiClient = connect(self._config, is_port_given=has_port(flags))
        self._status: Document = {}
        self._in_force: Document = {}
        self._lost = ""
        try:
            self._status, self._in_force = self._client.get("/api/status"), self._client.get("/api/settings")
        except NoNodeError:
            pass
        except NodeLostError as error:
            self._status, self._lost = {}, error.message
        self._settings = part(self._in_force, "settings") or shown(self._config)
        folders = tuple(Path(folder) for folder in texts(self._settings, "models_dirs"))
        if self._runs and folders:
            self._config = replace(self._config, models_dirs=folders)

    @property
    def _runs(self) -> bool:
        return bool(self._status)

    # -- what can be looked at ---------------------------------------------------------------------------

    def everything(self) -> list[Finding]:
        """Return how machine, node and models are."""
        found = [one for one in standalone.checks(self._config) if not (self._runs and one.name == "port")]
        found += self._node()
        if not self._runs:
            return found
        for entry in items(self._status, "unresolved"):
            found += discovery(self._search(text(entry, "name")))
        for entry in items(self._status, "models"):
            if text(entry, "kind") != "adopted" and self._case(entry).is_stuck:
                found += self._loading(entry)
        return [*found, *self._fitness()]

    def model(self, asked: str) -> list[Finding]:
        """Return why a model is not found, or not in memory."""
        search = self._search(asked)
        entry = self._entry(search.found or asked)
        return [*discovery(search), *(self._loading(entry) if entry is not None else ())]

    def production(self) -> list[Finding]:
        """Return the list for production."""
        routing = self._client.get("/routing/config") if self._runs else self._routing_said()
        setup = SetUp(
            settings=self._settings, routing=routing, models=node_facts.in_use(self._status, self._quotas()),
            metrics_read=number(self._in_force, "metrics_read"), is_running=self._runs,
            is_loopback=is_loopback(text(self._settings, "host")), tells_users=sys.platform == "linux",
        )  # fmt: skip
        return [*self._node(), *production(setup)]

    def tunables(self) -> tuple[Tunable, ...]:
        """Return what can be tuned, with the values in force."""
        if not self._runs:
            caches = cache_config.shown(self._config.caches or cache_config.DEFAULT)
            said = {name or "every model": quota_config.shown(one) for name, one in self._config.quotas}
            quotas = node_facts.limited(said)
            return tunables(
                Tuning(routing=self._routing_said(), caches=caches, settings=self._settings, quotas=quotas)
            )  # fmt: skip
        counted = part(self._client.get("/cache/stats"), "global")
        rate = counted.get("hit_rate")
        return tunables(
            Tuning(
                routing=self._client.get("/routing/config"), caches=self._client.get("/cache/allocation"),
                settings=self._settings, evictions=number(counted, "evictions"),
                quotas=node_facts.limited(self._quotas()),
                hit_rate=float(rate) if isinstance(rate, int | float) else None,
            )
        )  # fmt: skip

    # -- the node --------------------------------------------------------------------------------------------

    def _node(self) -> list[Finding]:
        where = f"{self._client.host}:{self._client.port}"
        if self._lost:
            advice = "its log file tells why; end it and start it again"
            return [Finding(name="node", result=Result.FAIL, message=self._lost, advice=advice)]
        if not self._runs:
            return [Finding(name="node", result=Result.NOTE, message=f"none runs at {where}")]
        found = Finding(name="node", result=Result.OK, message=f"answers at {where}")
        engine = text(part(self._status, "engine_failure"), "message")
        return [found, Finding(name="node's engine", result=Result.FAIL, message=engine)] if engine else [found]

    def _routing_said(self) -> dict[str, object]:
        return routing_config.shown(self._config.routing or routing_config.DEFAULT)

    def _quotas(self) -> dict[str, Document]:
        """Return the quotas of the node's models, by model."""
        names = [text(one, "id") for one in items(self._status, "models")][:MODELS_ASKED]
        return {name: self._asked(f"/quotas/{quote(name, safe='')}") for name in names}

    def _asked(self, path: str) -> Document:
        """Return a document, an empty one where the node has none: a model may be gone by now."""
        try:
            return self._client.get(path)
        except (NoNodeError, NodeLostError):
            raise
        except CommandError:
            return {}

    def _log(self, **query: str) -> list[str]:
        """Return the newest lines of a log, none where there is none."""
        path = f"/api/logs?{urlencode({'tail': str(LOG_LINES), **query})}"
        try:
            with self._client.lines("GET", path, timeout_s=NODE_ANSWER_TIMEOUT_S) as lines:
                return list(lines)
        except (NoNodeError, NodeLostError):
            raise
        except CommandError:
            return []

    # -- a model that is missed ------------------------------------------------------------------------------

    def _search(self, asked: str) -> Search:
        """Look for a model in the folders, and ask the node to look again."""
        search = standalone.search(self._config, asked)
        if not self._runs:
            return search
        listed = self._is_listed_after_a_rescan(search)
        return replace(search, log=node_facts.complaints(self._log(), search.found or asked), listed=listed)

    def _is_listed_after_a_rescan(self, search: Search) -> bool:
        """Ask the node to look through its folders; tell whether it lists a model then, or soon if there is a file."""
        name = search.found or search.asked
        self._client.post("/v1/models/rescan", {})
        if self._entry(name) is None and search.found:
            with suppress(NodeLostError):  # nothing changed for so long
                self._wait_for(name)
        return self._entry(name) is not None

    def _wait_for(self, name: str) -> None:
        """Follow what changes at the node until it lists a model, or for long enough. Raises NodeLostError."""
        deadline_s = time.monotonic() + RESCAN_WAIT_S
        with self._client.lines("GET", "/api/events", timeout_s=RESCAN_WAIT_S) as lines:
            for line in lines:
                if line.startswith("data:"):
                    self._status = self._client.get("/api/status")
                if self._entry(name) is not None or time.monotonic() >= deadline_s:
                    return

    def _entry(self, asked: str) -> Document | None:
        """Return a model of the node's status by its id or another of its names."""
        key = asked.casefold()
        for one in items(self._status, "models"):
            if key in {name.casefold() for name in (text(one, "id"), *texts(one, "aliases"))}:
                return one
        return None

    # -- a model that does not get into memory ---------------------------------------------------------------

    def _case(self, entry: Document, *, is_whole: bool = False) -> LoadCase:
        """Return how a model's load stands; whole with its health, its engine's log and the memory arithmetic."""
        if not is_whole:
            return node_facts.load_case(entry, {}, {}, (), self._settings)
        name = text(entry, "id")
        health = self._asked(f"/v1/models/{quote(name, safe='')}/health")
        memory = part(self._asked(f"/api/models/{quote(name, safe='')}"), "memory")
        return node_facts.load_case(entry, health, memory, self._log(model=name), self._settings)

    def _loading(self, entry: Document) -> list[Finding]:
        machine, limit = part(self._status, "machine"), self._settings.get("max_vram")
        here = node_facts.memory_here(machine, limit, uses_gpu=self._uses_gpu)
        if text(entry, "kind") == "adopted":
            message = f"the server {text(entry, 'server')} has it, which nobody here loads"
            return [Finding(name="loading", result=Result.NOTE, message=message, model=text(entry, "id"))]
        return list(loading(self._case(entry, is_whole=True), here, node_facts.files(self._status)))

    @property
    def _uses_gpu(self) -> bool:
        return bool(part(self._status, "engine").get("uses_gpu"))

    # -- what is unfit ---------------------------------------------------------------------------------------

    def _fitness(self) -> tuple[Finding, ...]:
        reasons = {
            name: node_facts.reason_of(self._asked(f"/v1/models/{quote(name, safe='')}/health"))
            for one in items(self._status, "models")
            if text(one, "health_status") in {"degraded", "unhealthy"} and (name := text(one, "id"))
        }
        models = node_facts.served(self._status, self._quotas(), reasons)
        usable = node_facts.own_memory_bytes(
            part(self._status, "machine"), self._settings.get("max_vram"), uses_gpu=self._uses_gpu
        )
        return fitness(models, usable, texts(self._asked("/cache/stats"), "hints"))
