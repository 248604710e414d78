"""Patience, as presets."""

from dataclasses import fields

from meshllm.core.members.times import lan, loopback, wan


def test_presets_are_ordered_by_patience() -> None:
    """A local network never waits longer than the world, nor one machine longer than a network."""
    for field in fields(wan()):
        values = [getattr(preset, field.name) for preset in (wan(), lan(), loopback())]
        assert values == sorted(values, reverse=True)
        assert values[-1] > 0


def test_the_promised_bounds_hold_by_arithmetic() -> None:
    """Silent: 16 s anywhere, 8 s on one site. Killed, with its machine up: 8 s."""
    for preset, silent_s in ((wan(), 16.0), (lan(), 8.0)):
        rest_s = preset.probe_interval_s * 1.1
        assert rest_s + preset.probe_timeout_s + preset.confirm_s <= silent_s
        assert rest_s + preset.refused_s <= 8.0
