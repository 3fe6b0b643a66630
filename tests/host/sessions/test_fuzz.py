"""10,000 lines of anything: 0 unhandled (reliability: P15)."""

from __future__ import annotations

import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kandev_host.models import AgentInstance
from kandev_host.protocol import acp, jsonrpc
from kandev_host.sessions import peer as peer_module
from kandev_host.sessions.peer import Peer
from kandev_host.settings import SessionSettings

TAGS = [str(kind.__struct_config__.tag) for kind in acp.Known.__args__]
FIELDS = ["content", "toolCallId", "title", "entries", "status", "rawInput", "cost", "used", "_meta", "currentModeId"]
METHODS = ["session/update", "session/request_permission", "fs/read_text_file", "$/cancel_request", "x"]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=6,
)
update = st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4).flatmap(
    lambda fields: st.sampled_from(TAGS).map(lambda tag: {"sessionUpdate": tag, **fields})
)
params = anything | st.builds(lambda u: {"sessionId": "scripted-session", "update": u}, update | anything)
methods = st.sampled_from(METHODS)
message = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "method": st.sampled_from(METHODS),
        "id": anything,
        "params": params,
        "result": anything,
        "error": anything,
    },
)
line = st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")) | message.map(lambda m: json.dumps(m).encode())


class Canned:
    """A process that has already said all it will ever say."""

    ref = "canned"
    ending = None

    def __init__(self, said: bytes) -> None:
        self._said = said
        self._all_said = anyio.Event()
        self.heard = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        chunk, self._said = self._said[:max_bytes], self._said[max_bytes:]
        if not chunk:
            self._all_said.set()
        return chunk

    async def send(self, data: bytes) -> None:
        self.heard += data

    async def wait(self) -> int:
        """Stays until it has been answered: what is ready to run by then runs."""
        await self._all_said.wait()
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        return 0


class Silent:
    """A handler that serves nothing."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def on_notifications(self, batch: Any) -> int:
        self.seen += batch
        return 0

    async def on_request(self, method: str, _params: Any) -> Any:
        raise jsonrpc.RpcError(jsonrpc.METHOD_NOT_FOUND, method)

    async def on_stray(self, _line: bytes) -> bool:
        return False

    async def on_rest(self) -> None:
        return

    async def on_fault(self, _reason: str, _line: bytes) -> None:
        return


@settings(max_examples=100, deadline=None)
@given(st.lists(line, max_size=30))
def test_a_peer_survives_any_lines_and_answers_every_request(lines: list[bytes]) -> None:
    process, handler = Canned(b"\n".join(lines)), Silent()
    peer = Peer(process, handler, line_limit_bytes=1000, fault_limit=100)  # type: ignore[arg-type]
    anyio.run(peer.run)
    messages = [found for found in map(_decoded, lines) if found is not None]
    requests = [m for m in messages if isinstance(m.method, str) and m.id is not jsonrpc.UNSET]
    answered = [json.loads(answer)["id"] for answer in process.heard.splitlines()]
    assert sorted(map(repr, answered)) == sorted(repr(request.id) for request in requests)


class Busy(Silent):
    """A handler that has at most so many bytes of requests at once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0

    async def on_request(self, method: str, params: Any) -> Any:
        self.bytes += len(bytes(params))
        self.most = max(self.most, self.bytes)
        await anyio.lowlevel.checkpoint()
        self.bytes -= len(bytes(params))


@pytest.mark.anyio
async def test_what_is_served_at_once_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "REQUESTS_BYTES", 3000)
    said = [json.dumps({"jsonrpc": "2.0", "id": n, "method": "x", "params": "y" * 900}).encode() for n in range(20)]
    process, handler = Canned(b"\n".join([*said, b""])), Busy()
    await Peer(process, handler, line_limit_bytes=5000, fault_limit=9).run()  # type: ignore[arg-type]
    assert len(process.heard.splitlines()) == 20
    assert 900 < handler.most <= 3000


def _decoded(text: bytes) -> jsonrpc.Message | None:
    try:
        return jsonrpc.decode(text)
    except jsonrpc.BadLine:
        return None


@pytest.mark.anyio
async def test_a_session_survives_thousands_of_fuzzed_updates(open_world: Any) -> None:
    world = await open_world(SessionSettings(fault_limit_lines=1_000_000))
    lines: list[bytes] = []

    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(line, min_size=10, max_size=30))
    def collect(found: list[bytes]) -> None:
        lines.extend(found)

    collect()
    agent_id = await world.start()
    await world.until_idle()
    step = {"hex": b"".join(text + b"\n" for text in lines).hex()}
    await world.prompt(agent_id, [step, {"text": "alive"}])
    await world.until("acp.log", lambda payload: payload["message"] == "alive")
    assert len(lines) > 4000
    live: AgentInstance = world.supervisor.live(agent_id).agent
    assert live.status == "RUNNING"
