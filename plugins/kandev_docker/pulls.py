"""Pulling images: one pull for all who wait for the same image, told on the way, and never without an end."""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec.structs import replace

from kandev_docker import wire
from kandev_docker.engine import Engine, EngineGone
from kandev_host import Pull, errors
from kandev_sandbox.beside import beside
from kandev_sandbox.sockets import TooLong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import APIClient

log = logging.getLogger(__name__)
TELL_EVERY_S = 0.5
TELL_AGAIN_S = 15.0
"""Also where nothing comes: whoever waits goes by what is told."""
LINE_BYTES = 64 << 10
LAYERS = 1024
WAITING = 1024
_DONE = ("Pull complete", "Already exists")

Tell = Callable[[Pull], None]
Waiter = frozenset[tuple[str, str]]


class Layers(msgspec.Struct):
    """What is known of the layers of an image, from the engine's words about each."""

    image: str
    _bytes: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    _done: set[str] = msgspec.field(default_factory=set)

    def add(self, step: Mapping[str, Any]) -> None:
        """One step of the engine; of more layers than images have, those beyond are not counted."""
        layer, status = str(step.get("id") or ""), str(step.get("status") or "")
        if not layer or status.startswith("Pulling from") or (layer not in self._bytes and len(self._bytes) >= LAYERS):
            return
        done, total = self._bytes.setdefault(layer, (0, 0))
        detail = step.get("progressDetail") or {}
        if status == "Downloading":
            done = _size(detail.get("current"), done)
            total = max(_size(detail.get("total"), total), done)
        elif status in ("Download complete", *_DONE):
            done = total
        self._bytes[layer] = done, total
        if status in _DONE:
            self._done.add(layer)

    def told(self, state: Any = "pulling", message: str = "") -> Pull:
        """Of those that are there already the engine tells no size."""
        layers = len(self._bytes)
        return Pull(
            image=self.image,
            state=state,
            layers_done=layers if state == "pulled" else len(self._done),
            layers_total=layers,
            bytes_done=sum(done for done, _ in self._bytes.values()),
            bytes_total=sum(total for _, total in self._bytes.values()),
            message=message,
        )


class _Running:
    """One pull, and who waits for it."""

    def __init__(self, image: str) -> None:
        self.layers = Layers(image)
        self.scope = anyio.CancelScope()
        self.over = anyio.Event()
        self.failed: errors.Unavailable | None = None
        self.waiters: Counter[Waiter] = Counter()
        self.tells: list[Tell] = []
        self.changed = True

    @contextmanager
    def waited_for(self, labels: Mapping[str, str], tell: Tell | None) -> Iterator[None]:
        """It ends when nobody waits for it any more."""
        waiter = frozenset(labels.items())
        self.changed = True  # for this one too
        tells = [] if tell is None else [tell]
        self.waiters[waiter] += 1
        self.tells += tells
        try:
            yield
        finally:
            self.waiters[waiter] -= 1
            self.waiters += Counter()
            for each in tells:
                self.tells.remove(each)
            if not self.waiters:
                self.scope.cancel()


class Pulls:
    """Of one engine. `open` it before anything is pulled: pulls run in those tasks."""

    def __init__(self, engine: Engine, timeout_s: float, stall_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._tasks: TaskGroup | None = None
        self._running: dict[str, _Running] = {}
        self._told: deque[Pull] = deque(maxlen=WAITING)
        self._news = anyio.Event()

    def open(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    async def pulled(self, name: str, labels: Mapping[str, str], tell: Tell | None = None) -> None:
        """It is here. Whoever asks for one that is on its way waits for the same pull. Raises `Unavailable`."""
        if self._tasks is None:
            raise errors.Unavailable("The runtime is not open, and pulls no images.")
        running = self._running.get(name)
        if running is None or running.scope.cancel_called:
            running = self._running[name] = _Running(name)
            self._tasks.start_soon(self._run, running, name=f"pull {name}")
        with running.waited_for(labels, tell):
            await running.over.wait()
        if running.failed is not None:
            raise running.failed

    async def read(self) -> AsyncIterator[Pull]:
        """What is told of every pull, once for each who waits for it; from now on, for one reader."""
        self._told.clear()
        while True:
            while self._told:
                yield self._told.popleft()
            self._news = anyio.Event()
            await self._news.wait()

    async def _run(self, running: _Running) -> None:
        name = running.layers.image
        log.info("pulling the image %s", name)
        running.failed = errors.Unavailable("the runtime was closed")
        try:
            with running.scope:
                running.failed = await self._ended(running)
            if running.scope.cancelled_caught:
                running.failed = errors.Unavailable("nobody waited for it any more")
                log.info("the pull of %s was given up: nobody waits for it any more", name)
            elif running.failed is None:
                self._tell(running, running.layers.told("pulled"))
            else:
                self._tell(running, running.layers.told("failed", running.failed.message))
        finally:
            if self._running.get(name) is running:
                del self._running[name]
            running.over.set()

    async def _ended(self, running: _Running) -> errors.Unavailable | None:
        try:
            with anyio.fail_after(self._timeout_s):
                async with beside() as tasks:
                    tasks.start_soon(self._tell_changes, running)
                    await self._follow(running)
        except TimeoutError:
            return errors.Unavailable(f"it took longer than {self._timeout_s:g} s ([runtime.docker] pull_timeout_s)")
        except errors.Unavailable as error:
            return error
        return None

    async def _follow(self, running: _Running) -> None:
        """To its end. Raises `Unavailable`; closing the connection ends the pull in the engine."""
        repository, tag = parts(running.layers.image)
        headers = await self._engine.call(lambda client: _login(client, repository))
        query = {"fromImage": repository, **({} if tag is None else {"tag": tag})}
        path = self._engine.path
        answer = None
        try:
            with anyio.fail_after(self._stall_s) as silence:
                # As of HTTP 1.0 the steps come as they are, without chunks around them.
                answer = await wire.ask(
                    path, "POST", "/images/create", query, headers=headers, version="1.0", timeout_s=None
                )
                while (step := await _step(answer)) is not None:
                    silence.deadline = anyio.current_time() + self._stall_s
                    if "error" in step:
                        raise errors.Unavailable(str(step["error"]))
                    running.layers.add(step)
                    running.changed = True
        except TimeoutError:
            raise errors.Unavailable(
                f"nothing came for {self._stall_s:g} s ([runtime.docker] pull_stall_s)",
                fix="see whether the engine reaches the registry, and try again",
            ) from None
        except (OSError, EOFError, TooLong, ValueError) as error:
            raise EngineGone(f"The Docker engine at {path} broke off the pull: {error}") from error
        finally:
            if answer is not None:
                answer.stream.close()

    async def _tell_changes(self, running: _Running) -> None:
        told_s = 0.0
        while True:
            if running.changed or anyio.current_time() >= told_s + TELL_AGAIN_S:
                running.changed, told_s = False, anyio.current_time()
                self._tell(running, running.layers.told())
            await anyio.sleep(TELL_EVERY_S)

    def _tell(self, running: _Running, told: Pull) -> None:
        for waiter in running.waiters:
            self._told.append(replace(told, labels=dict(waiter)))
        self._news.set()
        for tell in tuple(running.tells):
            tell(told)


async def _step(answer: wire.Answer) -> dict[str, Any] | None:
    """The engine's next word; None at the end."""
    try:
        line = await answer.stream.receive_until(b"\n", LINE_BYTES)
    except EOFError:
        return None
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("that is no step of a pull")
    return found


def _size(value: object, otherwise: int) -> int:
    return value if type(value) is int and 0 <= value < 1 << 50 else otherwise


def _login(client: APIClient, repository: str) -> dict[str, str]:
    """With what this user is logged in at the registry (`docker login`)."""
    from docker import auth

    registry, _ = auth.resolve_repository_name(repository)
    header = auth.get_config_header(client, registry)
    return {} if not header else {"X-Registry-Auth": header if isinstance(header, str) else header.decode()}


def parts(name: str) -> tuple[str, str | None]:
    """Repository, and tag or digest: a colon before the last slash is a port."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    head, slash, last = name.rpartition("/")
    base, colon, tag = last.partition(":")
    return head + slash + base, tag if colon else "latest"
