"""The host from its start to its end: signals, the settings read again, and what the service manager is told."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from kandev_host.cli.leaving import Leaving
from kandev_host.errors import StartupError
from kandev_host.service_manager import ServiceManager

if TYPE_CHECKING:
    from kandev_host.host import Host
    from kandev_host.settings.load import Loaded

log = logging.getLogger(__name__)

SWITCH_S = 0.001  # Python's own 5 ms cost a flooding agent a tenth of its events, or more
STATUS_S = 10.0
# A start takes as long as there is to recover: more time is asked for as long as the loop lives.
START_TOLD_S = 5.0
START_MORE_S = 30.0
HANG_UP_S = 0.2


async def serve(
    loaded: Loaded,
    read: Callable[[], Loaded],
    stands: Callable[[Host], Awaitable[None]],
    manager: ServiceManager,
    leaving: Leaving,
) -> None:
    """Until a signal ends it. `read` reads the settings again, `stands` is called once the host serves."""
    gc.disable()  # nothing that is imported is garbage
    from kandev_host.host import Host

    gc.enable()
    signals = _Signals(leaving, loaded.settings.server.stop_timeout_s)
    starting = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(signals.watch)
        group.start_soon(_tell_start, manager, starting)
        try:
            async with Host(loaded.settings, loaded.data_dir) as host:
                starting.cancel()
                host.services.running.settings_path = str(loaded.config_path) if loaded.config_path else None
                # What stands now stays: the collector need not go through it again each time.
                gc.freeze()
                # Beside a busy loop the store's thread waits so long for the interpreter after each step of SQLite.
                sys.setswitchinterval(SWITCH_S)
                await stands(host)
                manager.ready(_status(host))
                group.start_soon(_attend, manager, host, signals)
                group.start_soon(_reload, manager, host, signals, read)
                await signals.stop.wait()
                host.ends = signals.ended_by
                manager.stopping()
        except StartupError as error:
            leaving.begin(1, str(error))
            raise
        leaving.begin()
        group.cancel_scope.cancel()


class _Signals:
    """SIGTERM and SIGINT set `stop`, SIGHUP sets `hup`."""

    def __init__(self, leaving: Leaving, stop_timeout_s: float) -> None:
        self.stop = anyio.Event()
        self.hup = anyio.Event()
        self.ended_by = ""
        self._leaving = leaving
        self._stop_timeout_s = stop_timeout_s
        # Under nohup it is to live on.
        self._terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _has_terminal()

    async def watch(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP and not await self._hung_up():
                    self.hup.set()
                    continue
                if self.stop.is_set():
                    # Asked twice: agents die with this process, and the journal holds what was acknowledged.
                    os._exit(1)
                self.ended_by = signal.Signals(number).name
                self._leaving.deadline(self._stop_timeout_s)
                self.stop.set()

    async def _hung_up(self) -> bool:
        """Was it the terminal, that the host was started in, and that is gone?"""
        if not self._terminal:
            return False
        await anyio.sleep(HANG_UP_S)  # the signal comes before the terminal is taken away
        return not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def _tell_start(manager: ServiceManager, starting: anyio.CancelScope) -> None:
    if not manager.listens:
        return
    with starting:
        while True:
            manager.starting("starting: what the last host left is looked through", START_MORE_S)
            await anyio.sleep(START_TOLD_S)


async def _attend(manager: ServiceManager, host: Host, signals: _Signals) -> None:
    """Tell how the host is; the watchdog only while loop, journal and store answer."""
    if not manager.listens:
        return
    watchdog_s = manager.watchdog_s
    while not signals.stop.is_set():
        if watchdog_s is not None and await host.services.health.pulse(watchdog_s / 2):
            manager.alive()
        if not signals.stop.is_set():
            manager.status(_status(host))
        # Twice in its time, also when the answer took a part of it.
        await anyio.sleep(STATUS_S if watchdog_s is None else min(STATUS_S, watchdog_s / 4))


async def _reload(manager: ServiceManager, host: Host, signals: _Signals, read: Callable[[], Loaded]) -> None:
    while True:
        await signals.hup.wait()
        signals.hup = anyio.Event()
        manager.reloading()
        await host.reloads.reload(read)
        if not signals.stop.is_set():
            manager.ready(_status(host))


def _status(host: Host) -> str:
    problems = host.services.health.problems()
    agents = len(host.services.supervisor.runs)
    said = f"degraded: {problems[0].message}" if problems else "ok"
    return f"{said}; {host.url}, {agents} live agent{'' if agents == 1 else 's'}"
