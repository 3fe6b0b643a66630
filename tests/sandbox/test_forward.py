from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.anyio

TALK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 30) as s:
    s.sendall(b"x" * int(sys.argv[2])); s.shutdown(socket.SHUT_WR)
    total = 0
    while chunk := s.recv(65536): total += len(chunk)
print(total)
"""


def _echo_after_the_end(listener: socket.socket) -> None:
    """Answers only when the client has half-closed: what it got, twice."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            got = 0
            while chunk := connection.recv(65536):
                got += len(chunk)
            connection.sendall(b"y" * got * 2)


@pytest.fixture
def service() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_echo_after_the_end, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def talk(port: int, size: int) -> tuple[str, ...]:
    return ("/usr/bin/python3", "-c", TALK, str(port), str(size))


@pytest.mark.parametrize("size", [1, 5_000_000])
async def test_an_allowed_service_answers_at_its_own_address(sandbox: Any, service: int, size: int) -> None:
    done = await sandbox.run(*talk(service, size), allow=(f"127.0.0.1:{service}",))
    assert done.out.strip() == str(2 * size), done.err


async def test_another_port_is_refused(sandbox: Any, service: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = await sandbox.run(*talk(other.getsockname()[1], 1), allow=(f"127.0.0.1:{service}",))
    assert "ConnectionRefusedError" in done.err


async def test_without_allow_nothing_of_the_host_answers(sandbox: Any, service: int) -> None:
    assert "ConnectionRefusedError" in (await sandbox.run(*talk(service, 1))).err


async def test_a_service_that_is_down_closes_the_connection(sandbox: Any) -> None:
    with socket.socket() as silent:  # it has the port, so that nobody else listens there
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        done = await sandbox.run(*talk(port, 0), allow=(f"127.0.0.1:{port}",))
    assert done.out.strip() == "0" or "Connection" in done.err or "Transport endpoint" in done.err


async def test_an_error_of_the_caller_stays_what_it_is(sandbox: Any, service: int) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with sandbox.open("sleep", "60", allow=(f"127.0.0.1:{service}",)):
            raise KeyError("mine")
