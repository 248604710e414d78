"""Requests for a name that nothing has, and that another model answers.

Owns the names of which the log was told. Decides that it is told of each once. Doesn't know why a model stands in.
"""

import logging

from meshllm.core.ids import ModelId
from meshllm.proxy.traffic import Traffic

log = logging.getLogger(__name__)

_NAMES_REMEMBERED = 1024


class Fallbacks:
    """Counts them, and says so."""

    def __init__(self, traffic: Traffic) -> None:
        """Count into `traffic`."""
        self._traffic = traffic
        self._names: set[str | None] = set()

    def note(self, asked: str | None, model: ModelId) -> None:
        """Count a request that another model answers than the one that was asked for; log each name once."""
        self._traffic.fallbacks += 1
        if asked not in self._names and len(self._names) < _NAMES_REMEMBERED:
            self._names.add(asked)
            log.warning("unknown model falls back", extra={"fields": {"asked": asked, "model": model}})
