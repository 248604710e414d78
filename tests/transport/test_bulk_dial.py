"""Dialling a bulk port: the first address that answers, the right key, and reasons where there is none."""

import asyncio
import socket

import pytest

from meshllm.core.announcement import Address
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError
from meshllm.transport.bulk_dial import dial_bulk
from tests.transport.builders import Mesh, terms
from tests.transport.bulk import LOOPBACK, a_port


def a_closed_port() -> Address:
    """Return an address where nobody listens."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        return Address(LOOPBACK, int(taken.getsockname()[1]))


async def test_the_first_address_that_answers_is_taken() -> None:
    """Others may be closed."""
    mesh = Mesh()
    opened: list[BulkChannel] = []
    async with a_port(mesh.member(), {"file": lambda channel: None}) as port:
        channel = await asyncio.to_thread(
            dial_bulk, port.node.id, [a_closed_port(), port.address], "file", mesh.member().credentials(), terms(),
            opened.append,
        )  # fmt: skip

        channel.close()
    assert opened == [channel]
    assert channel.peer == port.node.id


def test_nobody_at_any_address_is_unreachable() -> None:
    """With the address in the words."""
    mesh, address = Mesh(), a_closed_port()
    with pytest.raises(BulkError) as closed:
        dial_bulk(mesh.member().id, [address], "file", mesh.member().credentials(), terms())
    with pytest.raises(BulkError) as nowhere:
        dial_bulk(mesh.member().id, [], "file", mesh.member().credentials(), terms())

    assert (closed.value.code, nowhere.value.code) == (BulkCode.UNREACHABLE, BulkCode.UNREACHABLE)
    assert str(address) in closed.value.message


async def test_a_token_is_not_shown() -> None:
    """Members come with their certificate: nobody joins here."""
    mesh = Mesh()
    node, admin = mesh.stranger(), mesh.member()
    async with a_port(mesh.member(), {"file": lambda channel: None}) as port:
        with pytest.raises(BulkError) as refused:
            await asyncio.to_thread(
                dial_bulk, port.node.id, [port.address], "file", node.credentials(admin.token()), terms()
            )

    assert refused.value.code is BulkCode.REJECTED


async def test_something_else_at_the_address_is_said() -> None:
    """A web server, for example."""
    mesh = Mesh()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, LOOPBACK, 0)
    address = Address(LOOPBACK, server.sockets[0].getsockname()[1])
    with pytest.raises(BulkError) as other:
        await asyncio.to_thread(dial_bulk, mesh.member().id, [address], "file", mesh.member().credentials(), terms())
    server.close()
    await server.wait_closed()

    assert other.value.code in {BulkCode.PROTOCOL, BulkCode.LOST}
