"""YAML with line numbers, and without what makes YAML dangerous: no tags that build objects, no anchors.

Owns the way from text to plain values. Decides nothing about their meaning. An anchor that is used again and again
unfolds to more than any memory holds; no configuration of models needs one.
"""

from pathlib import Path
from typing import Any

import yaml

from meshllm.config_file import ConfigError, ConfigFile, nested_too_deeply, text_of
from meshllm.config_lines import child

_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # the library has no types
    """Plain values only; an alias is an error."""

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 - the library has no types
        """Compose a node. Raises ComposerError for an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not used here", mark)
        return super().compose_node(parent, index)


def read(path: Path) -> ConfigFile:
    """Read a YAML file. Raises ConfigError."""
    text = text_of(path)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        values = {} if node is None else _value(loader, node, "", lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else None
        raise ConfigError(str(error.problem or error.context), file=path, line=line) from None
    except yaml.YAMLError as error:
        raise ConfigError(str(error).splitlines()[0], file=path) from None
    except ValueError as error:
        raise ConfigError(f"a value cannot be read: {error}", file=path) from None
    except RecursionError:
        raise nested_too_deeply(path) from None
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise ConfigError("expected keys and values at the top", file=path, line=1)
    return ConfigFile(path, values, lines)


def _value(loader: _Loader, node: Any, place: str, lines: dict[str, int]) -> object:  # noqa: ANN401
    """Return a node's value, and note the line of each place in it."""
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise yaml.constructor.ConstructorError(None, None, "tags are not used here", node.start_mark)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            mark = key_node.start_mark
            if not key or key == "<<":
                raise yaml.constructor.ConstructorError(None, None, "a key has to be a word", mark)
            if key in found:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands here twice", mark)
            below = child(place, key)
            lines[below] = mark.line + 1
            found[key] = _value(loader, value_node, below, lines)
        return found
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            below = child(place, index)
            lines[below] = item.start_mark.line + 1
            items.append(_value(loader, item, below, lines))
        return items
    return loader.construct_object(node)
