"""Who is connected: counted in and out, altogether and by address."""

from typing import Any, cast

from meshllm.proxy.clients import Clients, Space


def some(count: int) -> list[Any]:
    """Return what stands for connections."""
    return [cast("Any", object()) for _ in range(count)]


def test_there_is_room_up_to_a_number_and_words_up_to_twice_that() -> None:
    """One that is told so counts until it is gone."""
    clients = Clients(2, 100)
    coming = some(5)

    found = [clients.add(one, f"192.0.2.{number}") for number, one in enumerate(coming)]
    clients.discard(coming[4], "192.0.2.4")

    assert found == [Space.ENOUGH] * 2 + [Space.NONE] * 2 + [Space.NOT_A_WORD]
    assert (len(clients), clients.accepted) == (4, 5)
    assert set(clients) == set(coming[:4])


def test_one_address_takes_no_more_than_its_part() -> None:
    """This machine's own may take all."""
    clients = Clients(100, 2)

    greedy = [clients.add(one, "192.0.2.7") for one in some(3)]
    local = [clients.add(one, address) for one in some(3) for address in ("127.0.0.1", "::1", "")]

    assert greedy == [Space.ENOUGH, Space.ENOUGH, Space.NONE]
    assert set(local) == {Space.ENOUGH}


def test_they_may_go_while_they_are_looked_at() -> None:
    """Closing one takes it out."""
    clients = Clients(5, 5)
    for one in some(3):
        clients.add(one, "")

    for one in clients:
        clients.discard(one, "")

    assert len(clients) == 0
