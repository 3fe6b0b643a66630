"""A gateway on a free port with a real journal and bus, a store in memory, and a few actions of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import aiohttp
import anyio
import msgspec
import pytest

from kandev_host.bus import MemoryBus
from kandev_host.client import Client
from kandev_host.errors import KandevError, NotFound
from kandev_host.events import Event, event
from kandev_host.gateway.actions import subscription_actions
from kandev_host.gateway.app import Gateway
from kandev_host.gateway.tokens import LocalAuthenticator
from kandev_host.interfaces import Action, Call, Commit, Credentials, JournalState, Principal, Put, Trimmed
from kandev_host.journal import Journal
from kandev_host.models import LOCAL_USER_ID, Row, Task
from kandev_host.protocol.actions.host import HealthCheck, HealthReply
from kandev_host.retention import Retention
from kandev_host.services.agent_tokens import AgentTokens
from kandev_host.services.ownership import Ownership
from kandev_host.services.shells.audience import Audiences
from kandev_host.settings import GatewaySettings, ServerSettings

TOKEN = "right-" + "t" * 40
ME = Principal(LOCAL_USER_ID, "user", "local", frozenset({"*"}))
TASK = Task(id="t1", board_id="b1", title="A task", description="", created_by=LOCAL_USER_ID)
DEADLINE_S = 60.0


class EventStore:
    """The part of a Store that the gateway uses. `on_events` runs before each page is read.

    `refusing` is asked of each commit for the error that it fails with.
    """

    def __init__(self) -> None:
        self.kept: list[Event] = []
        self.rows: dict[tuple[type[Row], str], Row] = {}
        self.commits: list[Commit] = []
        self.looked_up = 0
        self.oldest = 1
        self.kept_from = 1  # what is older expires
        self.on_events: Callable[[], Any] | None = None
        self.refusing: Callable[[Commit], KandevError | None] = lambda _commit: None

    async def commit(self, commits: Sequence[Commit]) -> list[list[int] | KandevError]:
        await anyio.lowlevel.checkpoint()
        answers: list[list[int] | KandevError] = []
        for commit in commits:
            if (error := self.refusing(commit)) is not None:
                answers.append(error)
                continue
            self.commits.append(commit)
            seqs = []
            for change in commit.changes:
                if isinstance(change, Put):
                    self.rows[type(change.row), change.row.id] = change.row
                    continue
                assert isinstance(change, Event)
                seq = len(self.kept) + 1
                self.kept.append(msgspec.structs.replace(change, seq=seq))
                seqs.append(seq)
            answers.append(seqs)
        return answers

    async def get(self, kind: type[Any], id: str) -> Any:
        self.looked_up += 1
        await anyio.lowlevel.checkpoint()
        return TASK if kind is Task and id in {"t1", "t2"} else self.rows.get((kind, id))

    async def events(
        self, after_seq: int, *, topics: Sequence[str], limit: int = 500, limit_bytes: int = 1 << 40
    ) -> list[Event]:
        if self.on_events is not None:
            await self.on_events()
        await anyio.lowlevel.checkpoint()
        wanted = set(topics)
        found: list[Event] = []
        for kept in self.kept[max(after_seq, self.oldest - 1) :]:
            if wanted.intersection(kept.topics()):
                found.append(msgspec.structs.replace(kept))
                limit_bytes -= len(bytes(kept.payload))
                if len(found) == limit or limit_bytes <= 0:
                    break
        await anyio.lowlevel.checkpoint()
        return found

    async def expired(self, **_limits: Any) -> int:
        await anyio.lowlevel.checkpoint()
        return self.kept_from - 1 if self.kept_from > self.oldest else 0

    async def trim(self, through_seq: int, **_limits: Any) -> Trimmed:
        await anyio.lowlevel.checkpoint()
        self.oldest = max(self.oldest, through_seq + 1)
        return Trimmed(0, 0, more=False)

    async def journal_state(self) -> JournalState:
        return JournalState("journal-1", len(self.kept), self.oldest)


class Echo(msgspec.Struct, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=1 << 20)]
    numbers: list[Annotated[int, msgspec.Meta(ge=0, le=10)]] = []
    inner: dict[str, list[str]] = {}


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class House:
    """What a test sees of the host."""

    def __init__(self, token: str, store: EventStore | None = None) -> None:
        self.token = token
        self.store = store or EventStore()
        self.bus = MemoryBus()
        self.audiences = Audiences()
        self.ownership = Ownership(self.store)  # type: ignore[arg-type]
        self.agent_tokens = AgentTokens()
        self.journal: Journal
        self.gateway: Gateway
        self.gate = anyio.Event()
        self.entered = anyio.Event()
        self.finished: list[str] = []
        self.waiting = 0

    @property
    def url(self) -> str:
        return self.gateway.url

    def actions(self) -> list[Action[Any]]:
        return [
            Action("health.check", HealthCheck, self._health, "host:read"),
            Action("echo.text", Echo, lambda _call, request: {"text": request.text}, "host:read"),
            Action("echo.fail", Nothing, self._fail, "host:read"),
            Action("echo.fail_later", Nothing, self._fail_later, "host:read"),
            Action("echo.missing", Nothing, self._missing, "host:read"),
            Action("echo.unencodable", Nothing, lambda _call, _request: {"x": object()}, "host:read"),
            Action("echo.wait", Echo, self._wait, "host:read"),
            Action("echo.write", Echo, self._wait, "host:write"),
            Action("echo.big", Nothing, self._big, "host:read"),
            *subscription_actions(self.store),  # type: ignore[arg-type]
        ]

    def client(self, **options: Any) -> Client:
        return Client.connect(self.url, self.token, **options)

    async def record(self, number: int = 1, *, task_id: str = "t1", size: int = 0) -> None:
        pad = "x" * size
        for _ in range(number):
            await self.journal.post(event("acp.log", {"pad": pad}, task_id=task_id, board_id="b1"))
        await self.settled()

    async def settled(self) -> None:
        await self.journal.record(event("task.updated", {}, task_id="t-other"))

    def _health(self, _call: Call, _request: HealthCheck) -> HealthReply:
        return HealthReply(status="ok", version="0", mode="local")

    def _fail(self, _call: Call, _request: Nothing) -> None:
        raise ZeroDivisionError("secret of the host")

    async def _fail_later(self, _call: Call, _request: Nothing) -> None:
        await anyio.lowlevel.checkpoint()
        raise ZeroDivisionError("secret of the host")

    async def _missing(self, _call: Call, _request: Nothing) -> None:
        raise NotFound("task", "t9")

    async def _wait(self, _call: Call, request: Echo) -> dict[str, Any]:
        self.waiting += 1
        self.entered.set()
        await self.gate.wait()
        self.finished.append(request.text)
        return {"text": request.text}

    async def _big(self, _call: Call, _request: Nothing) -> dict[str, Any]:
        return {"text": "x" * (6 << 20)}


class People:
    """An authenticator: `known` says whose a token is, and who is `gone` has lost the right to be here."""

    remote = False

    def __init__(self, known: Callable[[str], Principal | None]) -> None:
        self.known = known
        self.gone: set[str] = set()

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        return self.known(credentials.token)

    def holds(self, principal: Principal) -> bool:
        return principal.credential not in self.gone

    async def revoke(self, principal: Principal) -> bool:
        self.gone.add(principal.credential)
        return True


@pytest.fixture
def people() -> type[People]:
    return People


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(anyio_backend: str) -> OpenHouse:
    """`async with open_house(sockets_total=2) as house`: keyword arguments are gateway settings."""

    @asynccontextmanager
    async def opened(
        authenticator: Any = None,
        routes: Sequence[Any] = (),
        port: int = 0,
        actions: Callable[[House], list[Action[Any]]] = House.actions,
        store: EventStore | None = None,
        latency: Callable[[float], None] | None = None,
        server: ServerSettings | None = None,
        certificate: Any = None,
        audit: Any = None,
        **settings: Any,
    ) -> AsyncIterator[House]:
        house = House(TOKEN, store)
        retention = Retention(interval_s=0.01)
        async with Journal(house.store, house.bus, retention=retention) as house.journal:  # type: ignore[arg-type]
            house.gateway = Gateway(
                house,  # type: ignore[arg-type]
                actions=actions(house),
                routes=routes,
                authenticator=authenticator or LocalAuthenticator(TOKEN, ME),
                server=server or ServerSettings(port=port),
                settings=GatewaySettings(**settings),
                latency=latency,
                certificate=certificate,
                audit=audit,
            )
            await house.gateway.start()
            try:
                with anyio.fail_after(DEADLINE_S):
                    yield house
            finally:
                house.gate.set()
                await house.gateway.stop()

    return opened


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


class Wire:
    """A socket without manners: sends what it is told."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, text: str | bytes) -> None:
        await self.socket.send_str(text if isinstance(text, str) else text.decode())

    async def request(self, action: str, payload: Any = None, id: str = "1") -> None:
        frame = {"id": id, "type": "request", "action": action, "payload": payload or {}}
        await self.socket.send_str(msgspec.json.encode(frame).decode())

    async def message(self) -> dict[str, Any]:
        """The next message; an AssertionError names the close code if there is none."""
        with anyio.fail_after(DEADLINE_S):
            got = await self.socket.receive()
        assert got.type is aiohttp.WSMsgType.TEXT, (got, self.socket.close_code)
        return msgspec.json.decode(got.data)  # type: ignore[no-any-return]

    async def ask(self, action: str, payload: Any = None, id: str = "1") -> dict[str, Any]:
        await self.request(action, payload, id)
        return await self.message()

    async def closed(self) -> tuple[int | None, str]:
        """Reads to the end; the close code and reason."""
        with anyio.fail_after(DEADLINE_S):
            while True:
                got = await self.socket.receive()
                if got.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}:
                    return self.socket.close_code, str(got.extra or "")


@pytest.fixture
def open_wire() -> Callable[..., AbstractAsyncContextManager[Wire]]:
    """`async with open_wire(house) as wire`: a raw socket; keyword arguments go to aiohttp's `ws_connect`."""

    @asynccontextmanager
    async def opened(house: House, token: str | None = TOKEN, **options: Any) -> AsyncIterator[Wire]:
        headers = {**options.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{house.url}/ws", headers=headers, max_msg_size=0, **options) as socket,
        ):
            yield Wire(socket)

    return opened


@pytest.fixture
async def wire(house: House, open_wire: Any) -> AsyncIterator[Wire]:
    async with open_wire(house) as opened:
        yield opened
