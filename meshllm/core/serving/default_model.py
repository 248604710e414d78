"""Which model answers where a request names none.

Owns the order of those who may say so: this node's own choice, that of the mesh, the configuration, the first `--model`
of the mesh's founder, and last the first model that this node ever served. Doesn't know requests; a default is a name,
and stays one while its model is unloaded or gone: it never moves by itself.
"""

from collections.abc import Collection

from meshllm.core.ids import ModelId
from meshllm.core.names import NameIndex
from meshllm.core.serving.order_book import OrderBook


class DefaultModel:
    """The default of one node, and what its own start says about it."""

    def __init__(self, book: OrderBook, said: str, requested: tuple[str, ...], *, is_founder: bool) -> None:
        """Know what the configuration says, and which models the node was started with."""
        self._book = book
        self._said = said
        self._requested = requested
        self._is_founder = is_founder
        self._names: NameIndex | None = None
        self._found: ModelId | None = None
        self._own: ModelId | None = None
        self._looked_in: tuple[NameIndex, int] | None = None
        """Where the first model was looked for last: a search among unknown names costs milliseconds."""

    def first_asked(self, names: NameIndex, unresolved: Collection[str]) -> None:
        """Find the first `--model` that stands for something; the founder says so to the whole mesh.

        A name that is still being looked up keeps its place: the default is the same in every run.
        """
        place = (names, len(unresolved))
        if self._own is None and place != self._looked_in:
            self._looked_in = place
            self._own = self._first(names, unresolved)
        if self._own is not None and self._is_founder and self._book.default is None:
            self._book.found(self._own)

    def _first(self, names: NameIndex, unresolved: Collection[str]) -> ModelId | None:
        for name in self._requested:
            found = names.resolve(name)
            if isinstance(found, str):
                return found
            if name not in unresolved:
                return None
        return None

    def now(self, names: NameIndex, first_wanted: ModelId | None) -> ModelId | None:
        """Return the default as it is now; None where nobody has said and nothing was served."""
        choice = self._book.default
        if self._book.override is not None:
            return self._book.override
        if choice is not None and choice.version:
            return choice.model
        if (configured := self._configured(names)) is not None:
            return configured
        if choice is not None:
            return choice.model
        return self._own if self._requested else first_wanted

    def _configured(self, names: NameIndex) -> ModelId | None:
        """Return the configured model, looked up once for each set of names: a search costs milliseconds."""
        if self._said and names is not self._names:
            self._names = names
            found = names.resolve(self._said)
            self._found = found if isinstance(found, str) else None
        return self._found if self._said else None
