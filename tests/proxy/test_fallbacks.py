"""Requests that another model answers than the one that was asked for."""

import pytest

from meshllm.core.ids import ModelId
from meshllm.proxy.fallbacks import Fallbacks
from meshllm.proxy.traffic import Traffic


def test_every_fallback_counts_and_each_name_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A client that asks for the same wrong name all day fills no log."""
    traffic = Traffic()
    fallbacks = Fallbacks(traffic)

    for asked in ("gone", "gone", "other"):
        fallbacks.note(asked, ModelId("tiny"))

    assert traffic.fallbacks == 3
    assert [record.fields["asked"] for record in caplog.records] == ["gone", "other"]  # type: ignore[attr-defined]
