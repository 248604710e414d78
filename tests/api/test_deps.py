"""The daemon has what the management API asks of it."""

import inspect

import pytest

from meshllm.api import deps
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.journal import Entry
from meshllm.daemon.management import Management

WHO_GIVES_IT: dict[type[object], type[object]] = {
    deps.ManagementDeps: Management,
    deps.Views: CurrentView,
    deps.JournalEntry: Entry,
}


@pytest.mark.parametrize("protocol", WHO_GIVES_IT, ids=lambda protocol: protocol.__name__)
def test_daemon_has_every_member_of_the_protocol(protocol: type[object]) -> None:
    """Mypy compares the types; this finds a name that went away, also in attributes set by `__init__`."""
    giver = WHO_GIVES_IT[protocol]
    wanted = {name for name in vars(protocol) if not name.startswith("_")}
    source = inspect.getsource(giver)

    missing = [name for name in wanted if not hasattr(giver, name) and f"self.{name} = " not in source]

    assert missing == []
