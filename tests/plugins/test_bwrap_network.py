"""The allowlist of a process of the bwrap runtime, and what its proxy tells the host."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from kandev_bwrap import BwrapSettings, open_runtime
from kandev_host import Environment, ProcessSpec, errors
from kandev_places.decisions import WAITING, Decisions
from kandev_sandbox import Decision

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bwrap(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    async with open_runtime(BwrapSettings(), Environment(str(tmp_path / "data"), "0")) as made:
        await made.prepare("w1")
        yield made


@pytest.fixture
def service() -> Iterator[int]:
    """Answers every connection with a page."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhere")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def curl(*urls: str, **fields: Any) -> ProcessSpec:
    return ProcessSpec(
        workspace_id="w1", command=("curl", "-sS", "--noproxy", "", *urls), network="allowlist", **fields
    )


async def told(runtime: Any, count: int, spec: ProcessSpec) -> tuple[Any, list[Any]]:
    """The result of a process, and the decisions about it."""
    found: list[Any] = []
    enough = anyio.Event()

    async def read() -> None:
        async for decision in runtime.decisions():
            found.append(decision)
            if len(found) == count:
                enough.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.lowlevel.checkpoint()
            result = await runtime.run(spec)
            await enough.wait()
            group.cancel_scope.cancel()
    return result, found


async def test_each_decision_is_told_with_the_labels_of_its_process(bwrap: Any, service: int) -> None:
    labels = {"task_id": "t1", "agent_id": "a1"}
    here = f"http://127.0.0.1:{service}/"
    spec = curl(here, "http://pypi.org/", allow=(f"127.0.0.1:{service}",), labels=labels)
    result, decisions = await told(bwrap, 3, spec)
    assert result.stdout.startswith(b"here")
    assert {(one.allowed, one.host, one.port, one.ended) for one in decisions} == {
        (True, "127.0.0.1", service, False),
        (True, "127.0.0.1", service, True),
        (False, "pypi.org", 80, False),
    }
    assert all(one.labels == labels for one in decisions)
    assert sum(one.received_bytes for one in decisions) > 4


async def test_a_denial_names_the_command_that_allows_it(bwrap: Any) -> None:
    result, (decision,) = await told(bwrap, 1, curl("http://pypi.org/", labels={"task_id": "t1", "agent_id": "a1"}))
    how = "kandev-host task allow t1 pypi.org"
    assert decision.how_to_allow == how
    assert how in result.stdout.decode()


@pytest.mark.parametrize(
    ("labels", "how"),
    [
        ({"shell_id": "s1"}, "open a shell with --allow pypi.org"),
        ({"task_id": "t1", "shell_id": "s1"}, "kandev-host task allow t1 pypi.org"),
        ({"task_id": "t1", "purpose": "setup"}, "add pypi.org to allow of [repositories.NAME] in the settings"),
    ],
)
async def test_a_denial_names_what_allows_it_to_this_kind_of_jail(bwrap: Any, labels: dict[str, str], how: str) -> None:
    _, (decision,) = await told(bwrap, 1, curl("http://pypi.org/", labels=labels))
    assert decision.how_to_allow == how


async def test_what_is_allowed_reaches_jails_with_these_labels_alone_also_those_on_their_way_up(bwrap: Any) -> None:
    """Nothing has the name: whoever may look it up is told 502, who may not 403."""
    asked = curl("-o", "/dev/null", "-w", "%{http_code}", "http://a.invalid/", labels={"task_id": "t1", "of": "t1"})
    bwrap.allow({"of": "t1"}, ("a.invalid",))
    assert (await bwrap.run(asked)).stdout == b"502"
    assert (await bwrap.run(replace(asked, labels={"task_id": "t1"}))).stdout == b"403"
    bwrap.allow({"of": "t1"}, ())
    assert (await bwrap.run(asked)).stdout == b"403"


async def test_an_entry_that_is_none_is_told_with_its_fix(bwrap: Any) -> None:
    with pytest.raises(errors.Unavailable, match="no preset '@pipy'") as caught:
        await bwrap.run(curl("http://pypi.org/", allow=("@pipy",)))
    assert "pypi" in str(caught.value.details)


async def test_without_a_reader_the_oldest_decisions_go() -> None:
    decisions = Decisions()
    reading = decisions.read()
    add = decisions.adder({})
    async with anyio.create_task_group() as group:
        first: list[Any] = []

        async def read_one() -> None:
            first.append(await anext(reading))

        group.start_soon(read_one)
        await anyio.lowlevel.checkpoint()
        for port in range(1, WAITING + 3):
            add(Decision(allowed=False, host="a.example", port=port, protocol="connect", reason="no"))
    assert first[0].port == 3
    await reading.aclose()  # type: ignore[attr-defined]
