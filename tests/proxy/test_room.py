"""How many clients a process has room for."""

import resource

import pytest

from meshllm.core import limits
from meshllm.proxy.room import descriptors_for_clients, is_loopback


@pytest.mark.parametrize(("soft", "most"), [(1024, 256), (2, 1), (resource.RLIM_INFINITY, limits.CONNECTIONS_TOTAL)])
def test_clients_have_a_share_of_the_open_files(soft: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """F27: engines, peers and files need some, too; there is always room for one client."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))

    assert descriptors_for_clients() == most


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("::1", True), ("", True), ("192.0.2.1", False), ("2001:db8::1", False), ("nobody", False)],
)
def test_loopback_is_this_machine(address: str, expected: bool) -> None:
    """Its clients share one address and are many."""
    assert is_loopback(address) is expected
