"""What a container reaches: nothing, the allowlist through the host's proxy, named services of the host."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from kandev_docker import containers
from kandev_host import ProcessSpec, errors

pytestmark = pytest.mark.anyio
FETCH = """
import os, sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
except Exception as error:
    print("refused", error)
"""


def fetch(url: str, **fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("python3", "-c", FETCH, url), **fields)


@pytest.fixture
def service() -> Iterator[int]:
    """The port of a service on the host's loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"served")

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


async def test_without_a_network_nothing_of_the_host_is_reached(runtime: Any, service: int) -> None:
    result = await runtime.run(fetch(f"http://127.0.0.1:{service}/"))
    assert result.stdout.startswith(b"refused")


async def test_a_named_service_of_the_host_is_reached_and_no_other(runtime: Any, service: int) -> None:
    allow = (f"127.0.0.1:{service}",)
    assert (await runtime.run(fetch(f"http://127.0.0.1:{service}/", allow=allow))).stdout == b"served\n"
    assert (await runtime.run(fetch("http://127.0.0.1:9/", allow=allow))).stdout.startswith(b"refused")


async def test_the_proxy_refuses_what_is_not_allowed_and_says_how_to_allow_it(runtime: Any) -> None:
    seen = []

    async def listen() -> None:
        async for decision in runtime.decisions():
            seen.append(decision)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.lowlevel.checkpoint()
        spec = fetch("http://other.example/", network="allowlist", allow=("some.example",), labels={"task_id": "t"})
        with anyio.fail_after(50):
            result = await runtime.run(spec)
            assert b"403" in result.stdout
            await anyio.sleep_forever()
    assert (seen[0].allowed, seen[0].host, seen[0].labels) == (False, "other.example", {"task_id": "t"})
    assert "kandev-host task allow t other.example" in seen[0].how_to_allow


async def test_what_is_allowed_later_holds_at_once(runtime: Any) -> None:
    script = 'read line; python3 -c "$1" http://other.example/'
    command = ("sh", "-c", script, "sh", FETCH)
    spec = ProcessSpec(workspace_id="w1", command=command, network="allowlist", labels={"task_id": "t"})
    async with runtime.spawn(spec) as process:
        runtime.allow({"task_id": "t"}, ["other.example"])
        await process.send(b"go\n")
        with anyio.fail_after(50):
            said = await process.receive()
    assert b"403" not in said


async def test_the_hosts_network_is_only_for_whom_it_was_set(runtime: Any, service: int) -> None:
    result = await runtime.run(fetch(f"http://127.0.0.1:{service}/", network="host"))
    assert result.stdout == b"served\n"


@pytest.mark.parametrize("fields", [{"network": "allowlist"}, {"allow": ("127.0.0.1:80",)}])
async def test_without_root_there_is_no_allowlist(
    runtime: Any, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    for name in ("geteuid", "getegid"):
        monkeypatch.setattr(containers.os, name, lambda: 1000)
    with pytest.raises(errors.Unavailable, match="no listener of the allowlist") as caught:
        await runtime.run(fetch("http://some.example", **fields))
    assert "run the host as root" in caught.value.details["fix"]


async def test_of_an_engine_elsewhere_there_is_no_allowlist(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for known_by in ("init_of", "named"):
        monkeypatch.setattr(containers.inside, known_by, lambda pid, word: None)
    with pytest.raises(errors.Unavailable, match="another machine"):
        await runtime.run(fetch("http://some.example", network="allowlist"))


async def test_abstract_sockets_and_vsock_of_the_host_are_out_of_reach(runtime: Any) -> None:
    script = "import socket\ntry: socket.socket(40, 1)\nexcept OSError as error: print(error.strerror)"
    result = await runtime.run(ProcessSpec(workspace_id="w1", command=("python3", "-c", script)))
    assert result.stdout == b"Address family not supported by protocol\n"
