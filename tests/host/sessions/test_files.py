"""fs/*: what an agent reads and writes through the host stays in its own jail. On real bubblewrap."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from kandev_host.interfaces import ProcessSpec
from kandev_host.protocol import jsonrpc
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.files import AgentFiles
from kandev_host.sessions.inside import beside, check_path
from kandev_host.settings import SessionSettings
from kandev_host.testing import scripted_agent

pytestmark = pytest.mark.anyio

SECRET = "canary-of-the-host"
SPEC = ProcessSpec(
    workspace_id="w1",
    command=("agent",),
    env={"KEY": "k"},
    network="host",
    allow=("127.0.0.1:1",),
    nested_sandbox=True,
)


def params(**fields: Any) -> Raw:
    return Raw(json.dumps({"sessionId": "s", **fields}).encode())


def files_of(jail: Any, spec: ProcessSpec = SPEC, *, may_write: bool = True) -> AgentFiles:
    return AgentFiles(jail, spec, lambda: "s", lambda: may_write)


def _unharmed(secret: Path) -> bool:
    return secret.read_text() == SECRET


async def sh(jail: Any, script: str) -> str:
    result = await jail.run(ProcessSpec(workspace_id="w1", command=("sh", "-c", script)))
    assert result.exit_code == 0, result.stderr
    return str(result.stdout.decode())


@asynccontextmanager
async def refused(*codes: int) -> AsyncIterator[None]:
    with pytest.raises(RpcError) as caught:
        yield
    assert caught.value.code in codes
    assert SECRET not in caught.value.message


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host's that every uid could read."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o644)
    return path


def test_a_place_beside_the_agent_has_no_network_and_nothing_of_its_environment() -> None:
    spec = beside(SPEC, ("true",))
    assert (spec.workspace_id, spec.network, spec.allow, spec.env, spec.nested_sandbox) == ("w1", "none", (), {}, False)


@pytest.mark.parametrize(
    "path",
    [
        "/workspace-evil/file",
        "/workspace/../etc/passwd",
        "/tmp/../root/.ssh/id",
        "notes.txt",
        "",
        "/",
        "/etc/passwd",
        "/proc/1/root/etc/passwd",
        "/proc/self/environ",
        "/directories",
        "/directories/../etc/passwd",
        "/home/other/file",
        "/workspace/a\0b",
        "/workspace/" + "x" * 5000,
    ],
)
def test_a_path_outside_the_folders_of_agents_is_invalid(path: str) -> None:
    with pytest.raises(RpcError) as caught:
        check_path(path)
    assert caught.value.code == jsonrpc.INVALID_PARAMS


async def test_what_was_written_is_read(jail: Any) -> None:
    files = files_of(jail)
    for path in ("/workspace/new/folder/a file", "/home/agent/x", "/tmp/-x"):
        await files.write(params(path=path, content="grüße\n"))
        assert await files.read(params(path=path)) == {"content": "grüße\n"}


@pytest.mark.parametrize(
    ("lines", "content"),
    [({"line": 2}, "2\n3\n"), ({"line": 2, "limit": 1}, "2\n"), ({"limit": 2}, "1\n2\n"), ({"line": 9}, "")],
)
async def test_lines_of_a_file_are_read(jail: Any, lines: Any, content: str) -> None:
    await sh(jail, "printf '1\\n2\\n3\\n' > lines")
    assert await files_of(jail).read(params(path="/workspace/lines", **lines)) == {"content": content}


async def test_a_missing_file_is_not_found(jail: Any) -> None:
    async with refused(jsonrpc.NOT_FOUND):
        await files_of(jail).read(params(path="/workspace/none"))


async def test_a_path_cannot_be_led_out(jail: Any, secret: Path) -> None:
    """By a link, a link to a folder, /proc/1/root, a pipe, a device, or a file without an end."""
    await sh(
        jail,
        f"""
        ln -s {secret} link; ln -s {secret.parent} folder; ln -s /proc/1/root{secret} root; ln -s / whole
        mkfifo pipe; ln -s /dev/zero device; ln -s /etc/passwd users; mkdir inner; printf ok > inner/file
        ln -s inner/file good; printf '\\377' > binary; truncate -s 8G endless
        """,
    )
    files = files_of(jail)
    for name in ("link", "folder/secret", "root", f"whole{secret}"):
        async with refused(jsonrpc.INVALID_PARAMS, jsonrpc.NOT_FOUND):
            await files.read(params(path=f"/workspace/{name}"))
    for name in ("pipe", "device", "users", "inner", "endless", "binary", "whole/etc/hostname"):
        async with refused(jsonrpc.INVALID_PARAMS):
            await files.read(params(path=f"/workspace/{name}"))
    for name in ("pipe", "device", "users", "inner", "whole/etc/new"):
        async with refused(jsonrpc.INVALID_PARAMS):
            await files.write(params(path=f"/workspace/{name}", content="x"))
    for name in ("link", "root"):  # to the same name in the /tmp of the jail
        await files.write(params(path=f"/workspace/{name}", content="x"))
    assert (await files.read(params(path="/workspace/good")))["content"] == "ok"
    assert _unharmed(secret)


async def test_a_link_that_is_swapped_in_a_loop_leads_nowhere(jail: Any, secret: Path) -> None:
    await sh(jail, "printf good > good")
    swap = f"echo on; while :; do ln -sfn good x; ln -sfn {secret} x; ln -sfn /proc/1/root{secret} x; done"
    files, seen = files_of(jail), set()
    async with jail.spawn(ProcessSpec(workspace_id="w1", command=("sh", "-c", swap))) as swapping:
        await swapping.receive()
        for _ in range(20):
            try:
                seen.add((await files.read(params(path="/workspace/x")))["content"])
                await files.write(params(path="/workspace/x", content="good"))
            except RpcError as error:
                seen.add(error.code)
    assert seen <= {"good", "", jsonrpc.NOT_FOUND, jsonrpc.INVALID_PARAMS, jsonrpc.INTERNAL_ERROR}
    assert _unharmed(secret)


async def test_a_file_over_the_bound_is_refused_either_way(jail: Any) -> None:
    await sh(jail, "head -c 9000000 /dev/zero > large")
    async with refused(jsonrpc.INVALID_PARAMS):
        await files_of(jail).read(params(path="/workspace/large"))
    async with refused(jsonrpc.INVALID_PARAMS):
        await files_of(jail).write(params(path="/workspace/larger", content="x" * 9_000_000))


async def test_a_run_that_may_only_read_refuses_writes(jail: Any) -> None:
    async with refused(jsonrpc.INVALID_PARAMS):
        await files_of(jail, may_write=False).write(params(path="/tmp/x", content="x"))


async def test_a_workspace_that_is_read_only_is_so_for_the_host_too(jail: Any) -> None:
    spec = ProcessSpec(workspace_id="w1", command=("agent",), read_only=True)
    async with refused(jsonrpc.INTERNAL_ERROR):
        await files_of(jail, spec).write(params(path="/workspace/x", content="x"))


@pytest.mark.parametrize(
    "wrong",
    [{}, {"path": 5}, {"path": "/workspace/x", "line": -1}, {"path": "/workspace/x", "sessionId": "another"}],
)
async def test_wrong_params_are_invalid(jail: Any, wrong: Any) -> None:
    async with refused(jsonrpc.INVALID_PARAMS):
        await files_of(jail).read(params(**wrong))


# --- in a session -----------------------------------------------------------------------------------------------------

Outside = Callable[[Any, tuple[str, ...]], Awaitable[Any]]
ASK = {"request": {"method": "fs/read_text_file", "params": {"sessionId": "scripted-session", "path": "/workspace/x"}}}


def scripted(script: dict[str, Any]) -> tuple[str, ...]:
    return (sys.executable, scripted_agent.__file__, json.dumps(script))


async def offered(world: Any, outside: Outside, tmp_path: Path, **more: Any) -> dict[str, Any]:
    """The capabilities in the host's initialize."""
    command = scripted({"log": str(tmp_path / "log")})
    await world.start(command=command, prompt=[{"text": "."}], runtime=await outside(world, command), **more)
    await world.until("acp.result")
    return dict(json.loads((tmp_path / "log").read_text().splitlines()[0])["params"]["clientCapabilities"])


async def test_files_are_offered_where_the_agent_type_says_so(world: Any, outside: Outside, tmp_path: Path) -> None:
    found = await offered(world, outside, tmp_path, offers=("files",))
    assert (found["fs"], found["terminal"]) == ({"readTextFile": True, "writeTextFile": True}, False)


async def test_nothing_is_offered_by_default(world: Any, outside: Outside, tmp_path: Path) -> None:
    found = await offered(world, outside, tmp_path)
    assert (found["fs"], found["terminal"]) == ({"readTextFile": False, "writeTextFile": False}, False)


async def test_nothing_is_offered_without_a_jail(world: Any) -> None:
    await world.start(prompt=[ASK], offers=("files", "terminal"))
    await world.until("acp.result")
    assert "-32601" in world.texts()[0]


async def test_an_agent_reads_through_the_host(world: Any, outside: Outside) -> None:
    command = scripted({"prompt": [ASK]})
    await world.start(command=command, prompt="go", runtime=await outside(world, command), offers=("files",))
    await world.until("acp.result")
    assert "-32002" in world.texts()[0]


async def test_a_read_only_run_writes_nothing_through_the_host(world: Any, outside: Outside) -> None:
    wanted = {"sessionId": "scripted-session", "path": "/tmp/x", "content": "x"}
    command = scripted({"prompt": [{"request": {"method": "fs/write_text_file", "params": wanted}}]})
    runtime = await outside(world, command)
    await world.start(command=command, prompt="go", runtime=runtime, offers=("files",), preset="read-only")
    await world.until("acp.result")
    assert "this run may read only" in world.texts()[0]


async def test_an_agent_built_on_the_sdk_uses_files_and_terminal(open_world: Any, outside: Outside) -> None:
    world = await open_world(SessionSettings())
    command = (sys.executable, str(Path(__file__).with_name("sdk_agent.py")))
    more = {
        "runtime": await outside(world, command),
        "offers": ("files", "terminal"),
        "mode": "ask",
        "authenticate": "key",
    }
    await world.start(command=command, prompt="hello", **more)
    permission = (await world.until("permission.requested"))["permission"]
    await world.broker.answer(permission["id"], principal=world.me, option_id="y")
    assert (await world.until("acp.result"))["summary"] == "hello y"
