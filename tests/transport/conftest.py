"""Which loops tests of the transport run on: the daemon's, and where it says so asyncio's own too."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]] | None:
    """Run the async tests of a module that sets `ON_BOTH_LOOPS` on both: sockets and timers differ between them."""
    if getattr(getattr(item, "module", None), "ON_BOTH_LOOPS", False):
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    return None
