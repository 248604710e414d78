"""The table `[quotas]`: limits of this node's own, and mistakes at their lines."""

import json
from pathlib import Path

import pytest

from meshllm.config_quotas import MEANINGS, PRESETS, schema
from meshllm.config_shown import shown
from meshllm.core.ids import ModelId
from meshllm.core.quota_config import KEYS, UNLIMITED, OnLimit, QuotaRegister, Quotas, patched
from tests.config_builders import configured, refused


def test_limits_of_one_model_stand_above_those_of_all(tmp_path: Path) -> None:
    """In any format; what is not said of the one is as for all."""
    text = '[quotas.default]\nhourly_token_limit = 5\non_limit = "warn"\n[quotas."a/b"]\nmax_tokens_per_hour = 7'
    in_toml = configured(tmp_path, text)
    in_json = configured(tmp_path, json.dumps({"quotas": {"x": {"max_ram_mb": 1}}}), name="c.json")

    assert dict(in_toml.quotas) == {
        "": Quotas(hourly_token_limit=5, on_limit=OnLimit.WARN),
        "a/b": Quotas(hourly_token_limit=7, on_limit=OnLimit.WARN),
    }
    assert dict(in_json.quotas) == {"x": Quotas(max_ram_mb=1)}
    assert configured(tmp_path, "port = 9000").quotas == ()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_numbers_and_what_is_written_wins(tmp_path: Path, preset: str) -> None:
    """Wherever in the table it stands."""
    text = f'[quotas]\npreset = "{preset}"\n[quotas.default]\nmax_ram_mb = 1'

    assert dict(configured(tmp_path, text).quotas)[""] == patched(UNLIMITED, {**PRESETS[preset], "max_ram_mb": 1})


def test_hours_and_days_are_those_of_a_zone(tmp_path: Path) -> None:
    """In the table or at the top; UTC where nobody says so."""
    assert configured(tmp_path, "[quotas]\ntimezone = 'Europe/Berlin'").quota_timezone == "Europe/Berlin"
    assert configured(tmp_path, "quota_timezone = 'Asia/Tokyo'").quota_timezone == "Asia/Tokyo"
    assert configured(tmp_path, "").quota_timezone == "UTC"


def test_clients_have_keys_and_quotas_of_their_own(tmp_path: Path) -> None:
    """What is shown of them is their names; limits of all models are none of theirs."""
    text = '[keys.ann]\nkey = "secret-1"\nrequests_per_minute = 60\n[keys.ben]\nkey = "secret-2"\n'
    text += "[quotas.default]\nmax_ram_mb = 5"

    config = configured(tmp_path, text)

    assert config.client_keys == (("secret-1", "ann"), ("secret-2", "ben"))
    register = QuotaRegister(configured=config.quotas)
    assert register.of(ModelId("key:ann")) == Quotas(max_requests_per_second=1.0, burst_requests=60)
    assert register.of(ModelId("key:ben")) == UNLIMITED
    assert shown(config)["client_keys"] == ["ann", "ben"]
    assert "secret" not in json.dumps(shown(config)) + repr(config)
    both = {"requests_per_minute": 6, "tokens_per_minute": 120}
    assert patched(UNLIMITED, both) == Quotas(max_requests_per_second=0.1, burst_requests=6, max_tokens_per_second=2.0)
    assert patched(patched(UNLIMITED, both), dict.fromkeys(both)) == UNLIMITED


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("[quotas.default]\n\nhourly_tokens = 1", 3, "quotas.default.hourly_tokens", "there is no key"),
        ("[quotas.x]\nmax_ram_mb = -1", 2, "quotas.x.max_ram_mb", "a whole number from 0"),
        ("[quotas]\npreset = 'huge'", 2, "quotas.preset", "one of small, medium, large"),
        ("[quotas]\ntimezone = 'Mars/Base'", 2, "quotas.timezone", "the name of a time zone"),
        ("quota_timezone = 3", 1, "quota_timezone", "the name of a time zone"),
        ("[quotas]\nmax_ram_mb = 1", 2, "quotas.max_ram_mb", "a table of limits"),
        ("quotas = 3", 1, "quotas", "expected a table"),
        ("keys = 3", 1, "keys", "expected tables"),
        ("[keys]\nann = 'x'", 2, "keys.ann", "expected a table, [keys.ann]"),
        ("[keys.'a b']\nkey = 'x'", 1, "keys.a b", "a name of letters"),
        ("[keys.ann]\nmax_ram_mb = 1", 1, "keys.ann.key", "the key that this client shows"),
        ("[keys.ann]\nkey = 'x'\n[keys.ben]\nkey = 'x'", 4, "keys.ben.key", "another client's key"),
        ("[keys.ann]\nkey = 'x'\nmax_tokens = 1", 3, "keys.ann.max_tokens", "there is no key"),
        ("[quota]\nx = 1", 1, "quota", "did you mean quotas?"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_key(tmp_path: Path, text: str, line: int, key: str, words: str) -> None:
    """By the name that the file has for it."""
    error = refused(tmp_path, text)

    assert (error.line, error.key) == (line, key)
    assert words in error.message


def test_every_key_has_its_meaning_and_its_schema() -> None:
    """Once, for the page and for editors."""
    table: dict[str, dict[str, object]] = schema()["properties"]  # type: ignore[assignment]

    assert tuple(MEANINGS) == KEYS
    assert list(table["default"]["properties"]) == list(KEYS)  # type: ignore[call-overload]
