"""The formats that people bring: TOML and YAML of this schema, and the JSON of a `multi-model` server.

Owns which format a file has and what the JSON's keys mean here. Decides which of its options can be honoured; any other
is an error that names it. Doesn't know what a setting does.
"""

import json
from pathlib import Path

from meshllm.config_file import ConfigError, ConfigFile, nested_too_deeply, read, text_of
from meshllm.config_lines import child, json_lines

_TEXT_VARIANTS, _VISION_VARIANTS = ("Plain", "Text"), ("VisionPlain", "MultimodalPlain", "Multimodal")
_GGUF_VARIANT = "GGUF"
VARIANTS = (*_TEXT_VARIANTS, *_VISION_VARIANTS, _GGUF_VARIANT)
_MODEL_OPTIONS = {
    "chat_template": "chat_template", "jinja_explicit": "jinja_explicit", "num_device_layers": "num_device_layers",
    "in_situ_quant": "in_situ_quant", "alias": "aliases", "aliases": "aliases",
}  # fmt: skip
"""Options beside the variant, and what they are called here."""
_TABLES = frozenset(
    {"quotas", "routing", "routing_config", "cache", "cache_config", "per_model_quota", "model_priorities"}
)
"""Of settings, which no label is called."""
_MEANINGLESS = frozenset({"tok_model_id", "tokenizer_json", "arch", "dtype", "organization"})
"""What a GGUF file says itself."""


def read_any(path: Path) -> ConfigFile:
    """Read a configuration file in the format that its name says. Raises ConfigError."""
    suffix = path.suffix.lower()
    if suffix in {".yaml", ".yml"}:
        from meshllm import config_yaml  # noqa: PLC0415 - the parser takes longer to import than `--help` may take

        return config_yaml.read(path)
    if suffix != ".json":
        return read(path)
    file = _read_json(path)
    return _from_labels(file) if _has_labels(file) else file


def _read_json(path: Path) -> ConfigFile:
    """Read a JSON file. Raises ConfigError."""
    text = text_of(path)
    try:
        values = json.loads(text, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError as error:
        raise ConfigError(error.msg, file=path, line=error.lineno) from None
    except ValueError as error:
        raise ConfigError(str(error), file=path) from None
    except RecursionError:
        raise nested_too_deeply(path) from None
    if not isinstance(values, dict):
        raise ConfigError("expected an object at the top", file=path, line=1)
    return ConfigFile(path, values, json_lines(text))


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} stands twice in one object")
        found[key] = value
    return found


def _has_labels(file: ConfigFile) -> bool:
    """Tell whether a file is an object of labelled models, rather than one of settings."""
    entries = file.values.values()
    is_ours = isinstance(file.values.get("models"), list) or not file.values.keys().isdisjoint(_TABLES)
    return bool(file.values) and not is_ours and all(isinstance(entry, dict) for entry in entries)


def _from_labels(file: ConfigFile) -> ConfigFile:
    """Return labelled models as `[[models]]`; places keep the names that the file has for them."""
    entries: list[object] = []
    shown: dict[str, str] = {}
    for index, (label, given) in enumerate(file.values.items()):
        here = child("models", index)
        shown[here] = label
        entry: dict[str, object] = {"label": label}
        for key, (value, place) in _options(file, label, given).items():
            if value is not None:
                entry[key] = value
                shown[child(here, key)] = place
        entries.append(entry)
    return ConfigFile(file.path, {"models": entries}, file.lines, shown)


def _options(file: ConfigFile, label: str, given: object) -> dict[str, tuple[object, str]]:
    """Return what one labelled entry says, by our keys: (value, place)."""
    assert isinstance(given, dict)  # noqa: S101 - `_has_labels` looked
    variants = [key for key in given if key in VARIANTS]
    unknown = [key for key in given if key not in VARIANTS and key not in _MODEL_OPTIONS]
    if unknown:
        expected = f"expected one of {', '.join(VARIANTS)}, and {', '.join(_MODEL_OPTIONS)}"
        raise file.error(child(label, unknown[0]), f"this kind of model or option is not supported; {expected}")
    if len(variants) != 1:
        raise file.error(label, f"expected exactly one of {', '.join(VARIANTS)}")
    variant = variants[0]
    found = _spec(file, child(label, variant), variant, given[variant])
    for key, value in given.items():
        if key in _MODEL_OPTIONS and value is not None:
            if _MODEL_OPTIONS[key] in found:
                raise file.error(child(label, key), f"says the same as {found[_MODEL_OPTIONS[key]][1]}")
            found[_MODEL_OPTIONS[key]] = ([value] if key == "alias" else value, child(label, key))
    return found


def _spec(file: ConfigFile, place: str, variant: str, spec: object) -> dict[str, tuple[object, str]]:
    """Return which model a variant means."""
    if not isinstance(spec, dict):
        raise file.error(place, "expected an object")
    is_gguf = variant == _GGUF_VARIANT
    known = {"quantized_model_id", "quantized_filename"} if is_gguf else {"model_id"}
    for key, value in spec.items():
        if key not in known | _MEANINGLESS | {"max_seq_len"} and value is not None:
            raise file.error(child(place, key), f"is not supported for {variant}; its model is {' and '.join(known)}")
    missing = [key for key in sorted(known, reverse=True) if not isinstance(spec.get(key), str) or not spec[key]]
    if missing:
        raise file.error(child(place, missing[0]) if missing[0] in spec else place, f"expected a string {missing[0]}")
    if is_gguf:
        local = file.path.parent / str(spec["quantized_model_id"]) / str(spec["quantized_filename"])
        name = local if local.is_file() else f"{spec['quantized_model_id']}/{spec['quantized_filename']}"
        found: dict[str, tuple[object, str]] = {"name": (str(name), child(place, "quantized_filename"))}
        if name is not local:  # a folder is no name to ask for
            found["known_as"] = (spec["quantized_model_id"], child(place, "quantized_model_id"))
    else:
        found = {"name": (spec["model_id"], child(place, "model_id"))}
        found["kind"] = ("text" if variant in _TEXT_VARIANTS else "multimodal", place)
    if spec.get("max_seq_len") is not None:
        found["context_tokens"] = (spec["max_seq_len"], child(place, "max_seq_len"))
    return found
