"""The models that the mesh knows and nobody serves, as everybody else sees them.

Owns the newest map of them. Decides nothing: why nobody could load one is handed in. Doesn't know who
will.
"""

from collections.abc import Mapping
from types import MappingProxyType

from meshllm.core.ids import ModelId
from meshllm.core.serving.stock import Newest, Stock
from meshllm.core.view import ColdModel


class ColdModels:
    """Cold models by name; the same objects while nothing changes."""

    def __init__(self, stock: Stock) -> None:
        """Show the cold ones of a stock."""
        self._stock = stock
        self._lacks: Mapping[ModelId, str] = {}
        self.newest: Mapping[ModelId, ColdModel] = MappingProxyType({})

    def renew(self, newest: Newest) -> None:
        """Look again at the models that members spoke of since the last time."""
        touched = self._stock.touched
        if not touched:
            return
        news = {model: cold for model in touched if (cold := self._cold(model, newest)) != self.newest.get(model)}
        if news:
            found = {model: cold for model, cold in ({**self.newest, **news}).items() if cold is not None}
            self.newest = MappingProxyType(dict(sorted(found.items())))
        touched.clear()

    def explain(self, lacks: Mapping[ModelId, str], newest: Newest) -> None:
        """Take why nobody could load each; look again at those of which that changed."""
        changed = {model for model in lacks.keys() | self._lacks.keys() if lacks.get(model) != self._lacks.get(model)}
        self._lacks = lacks
        self._stock.touched |= changed
        self.renew(newest)

    def _cold(self, model: ModelId, newest: Newest) -> ColdModel | None:
        if self._stock.has_host(model):
            return None
        entry = self._stock.entries.get(model)
        if entry is None or not (entry.files or entry.wishes):
            return None
        digest = next(iter(entry.digests)) if len(entry.digests) == 1 else ""
        return ColdModel(
            model=model, nodes=tuple(sorted(entry.files)), digest=digest, size_bytes=entry.size_bytes,
            order=newest(model), lack=self._lacks.get(model, ""),
        )  # fmt: skip
