"""What is set in a session: options and mode, at its opening and by people; and that its agent stays in a mode in which
it asks.

ACP: session/set_mode, session/set_config_option, current_mode_update, config_option_update.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import msgspec
from msgspec import Raw

from kandev_host.errors import AgentError, Conflict, KandevError, Unavailable, ValidationFailed
from kandev_host.events import Event
from kandev_host.interfaces import Change, Put
from kandev_host.models import Session
from kandev_host.protocol import acp
from kandev_host.protocol.acp import Json
from kandev_host.protocol.actions.sessions import Option
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.protocol.notifications import StatusPayload
from kandev_host.sessions.answers import choose_mode, read, replace_mode
from kandev_host.sessions.failures import describe
from kandev_host.sessions.options import (
    MODE,
    SET_OPTION,
    after,
    call_for,
    checked,
    find_option,
    mode_of,
    need_option,
    options_of,
)
from kandev_host.sessions.peer import Answer, Peer
from kandev_host.sessions.stage import SessionState, Stage

Changed = Callable[[Session, list[Json] | None], Session]
UNASKED = (
    "The agent switched to the mode {mode!r}, which is none of those in which it asks ({asking}); {then}. Only the "
    "preset unattended allows it"
)


class Steering:
    """The options of one session, and its mode."""

    def __init__(self, stage: Stage, state: SessionState) -> None:
        self._stage = stage
        self._state = state
        self._peer: Peer | None = None
        self._asking: str | None = None  # the last mode that it may be in
        self._refused: str | None = None  # the mode that it may not be in, once that was told
        self._switches = 0  # into modes that it may not be in, since the turn began
        self._expires = stage.situation.expires_at is not None  # then its mode is looked at once more
        self._due = anyio.Event()

    # --- at the opening ---------------------------------------------------------------------------------------------

    async def begin(self, peer: Peer) -> None:
        """Options of the type, then the mode, whichever way the session was opened: agents forget both.

        An option that cannot be set is noted in the agent's log. Raises `AgentError` if the agent has not got the mode:
        it might approve its own tools.
        """
        self._peer = peer
        mode = await self._set_options()
        mode = mode or self._of_type() or self._asking_one()
        if mode is not None:
            await self._set_mode(mode, choose_mode(self._row(), mode))
        self._asking = mode or mode_of(self._row())
        self._state.mode_told = self._mode_told

    def go_on(self, peer: Peer) -> None:
        """In a session that is open: it may be in the mode that it is in, if in that it asks."""
        self._peer = peer
        mode = mode_of(self._row())
        self._asking = mode if mode is None or self._allowed(mode) else self._stage.agent_type.asking_modes[0]
        self._state.mode_told = self._mode_told

    async def _set_options(self) -> str | None:
        """The mode among them, which is for the end."""
        mode = None
        for name, wanted in self._stage.agent_type.options.items():
            option = find_option(options_of(self._row()), name)
            if option is None:
                self._stage.logs.note("warning", f"the agent has no option {name!r}, so it was not set")
                continue
            try:
                value = checked(option, wanted)
                if not _is_mode(option):
                    await self._set(option, value)
                elif isinstance(value, str) and self._allowed(value):
                    mode = value
                else:
                    self._stage.logs.note("warning", f"the mode {value!r} was not set: in it the agent would not ask")
            except (RpcError, ValidationFailed) as error:
                why = describe(error) if isinstance(error, RpcError) else error.message
                self._stage.logs.note("warning", f"the option {name!r} was not set: {why}")
        return mode

    def _of_type(self) -> str | None:
        """The mode to begin with, if it is one in which the agent asks, or may do without."""
        mode = self._stage.agent_type.mode
        if mode is None or self._allowed(mode):
            return mode
        self._stage.logs.note("warning", f"the mode {mode!r} was not set: in it the agent would not ask")
        return None

    def _asking_one(self) -> str | None:
        """For a type that names no mode to begin with: None to leave the agent as it is."""
        current = mode_of(self._row())
        if current is None or self._allowed(current):
            return None
        return self._stage.agent_type.asking_modes[0]

    # --- by people --------------------------------------------------------------------------------------------------

    @property
    def options(self) -> list[Option]:
        return options_of(self._state.row)

    async def set_option(self, name: str, value: str | bool) -> list[Option]:
        """All options after one of them, by id or category, was set.

        Raises `NotFound`, `ValidationFailed`, `Conflict` for a mode in which the agent would not ask and before the
        session is open, and `Unavailable` if the agent refuses.
        """
        if self._peer is None or self._state.row is None:
            raise Conflict("The agent's session is not open yet", state="starting")
        option = need_option(self.options, name)
        value = checked(option, value)
        if _is_mode(option) and isinstance(value, str) and not self._allowed(value):
            asking = list(self._stage.agent_type.asking_modes)
            told = f"In the mode {value!r} the agent would not ask; use one of {', '.join(asking)}"
            raise Conflict(told, state="asking_modes", asking_modes=asking, fix="launch it with the preset unattended")
        try:
            await self._set(option, value)
        except RpcError as error:
            raise Unavailable(f"The agent refused the option: {describe(error)}") from error
        if _is_mode(option) and isinstance(value, str):
            self._asking, self._refused = value, None
        mode = mode_of(self._row())  # setting one option may change another
        changes = () if mode is None else self._mode_told(mode)
        await self._stage.journal.record(Put(self._row()), self._told(), *changes)
        return self.options

    # --- the mode that is kept --------------------------------------------------------------------------------------

    def _allowed(self, mode: str) -> bool:
        asking = self._stage.agent_type.asking_modes
        return not asking or mode in asking or self._stage.situation.at(time.monotonic()).preset == "unattended"

    def _mode_told(self, mode: str) -> Sequence[Change]:
        """The agent says that it is in this mode now. Inline: what is to be done about it, `keep_mode` does."""
        if self._allowed(mode):
            self._asking, self._refused = mode, None
            return ()
        if mode == self._refused:
            return ()
        self._refused = mode
        self._switches += 1
        if self._switches > 2:  # all is said
            return ()
        again = self._switches > 1 or self._asking is None
        if not again:
            self._due.set()
        asking = ", ".join(self._stage.agent_type.asking_modes)
        then = "it stays there until its next turn" if again else f"it is set back to {self._asking!r}"
        told = UNASKED.format(mode=mode, asking=asking, then=then)
        turn_id = self._state.watch.turn.id if self._state.watch is not None else None
        return (self._state.voice.error("MODE_CHANGED", told, turn_id, self._state.acp_session_id),)

    def begin_turn(self) -> None:
        """What it was left in is set back now, and once more if it switches again."""
        self._switches = 0
        if self._refused is not None or self._overstayed():
            self._due.set()

    def _overstayed(self) -> bool:
        """Is it in a mode that only the preset `unattended` allowed, which has expired?"""
        row = self._state.row
        modes = (self._asking, None if row is None else mode_of(row))
        return any(mode is not None and not self._allowed(mode) for mode in modes)

    def _to_keep(self) -> str | None:
        """The mode to set it back to."""
        if self._asking is not None and not self._allowed(self._asking):
            agent_type = self._stage.agent_type
            begins = agent_type.mode if agent_type.mode in agent_type.asking_modes else None
            self._asking = begins or agent_type.asking_modes[0]
        return self._asking

    async def _until_due(self) -> None:
        """Until there is a mode to be set back; the end of the preset `unattended` may be the reason, once."""
        while True:
            expires_at = self._stage.situation.expires_at
            left_s = max(0.0, expires_at - time.monotonic()) if self._expires and expires_at is not None else None
            with anyio.move_on_after(left_s) as expiry:
                await self._due.wait()
                return
            if expiry.cancelled_caught:
                self._expires = False
                if self._overstayed():
                    return

    async def keep_mode(self) -> None:
        """Set it back, once a turn: an agent that insists would be at it for ever."""
        while True:
            await self._until_due()
            self._due = anyio.Event()
            row, mode = self._state.row, self._to_keep()
            if row is None or mode is None:
                continue
            try:
                # What the row says of the mode may be what it was before: some agents tell it in one of two places.
                modes = {**(row.modes or {}), "currentModeId": None}
                options = [{**raw, "currentValue": None} for raw in row.config_options or []]
                asked = msgspec.structs.replace(row, modes=modes, config_options=options)
                await self._set_mode(mode, choose_mode(asked, mode))
                self._refused = None
                await self._stage.journal.record(Put(self._row()), self._told())
            except (RpcError, KandevError) as error:
                self._stage.logs.note("warning", f"the mode {mode!r} could not be set again: {error}")

    # --- calls ------------------------------------------------------------------------------------------------------

    async def _set(self, option: Option, value: str | bool) -> None:
        call = call_for(self._row(), option, value)
        await self._send(call, lambda row, told: after(row, option, value, told))

    async def _set_mode(self, mode: str, call: tuple[str, Json] | None) -> None:
        if call is not None:
            await self._send(call, lambda row, told: replace_mode(row, mode, told))

    async def _send(self, call: tuple[str, Json], changed: Changed) -> None:
        """The row is changed as the answer is read: updates behind it are newer."""
        method, params = call

        def told(raw: Raw) -> list[Json] | None:
            return read(raw, acp.SetConfigOptionResult, method).config_options if method == SET_OPTION else None

        def on_answer(answer: Answer) -> None:
            if isinstance(answer, Exception) or self._state.row is None:
                return
            try:
                self._state.row = changed(self._state.row, told(answer))
            except AgentError:
                return  # told below

        if self._peer is None:
            raise AgentError("The session is not open")
        told(await self._peer.call(method, params, self._stage.settings.request_timeout_s, on_answer))

    def _told(self) -> Event:
        """The options as they are now, to whoever follows the session."""
        row, agent = self._row(), self._stage.current()
        update: dict[str, Any] = {"sessionUpdate": "config_option_update", "configOptions": row.config_options or []}
        if row.config_options is None:
            update = {"sessionUpdate": "current_mode_update", "currentModeId": mode_of(row)}
        turn_id = self._state.watch.turn.id if self._state.watch is not None else None
        payload = StatusPayload(
            **self._state.voice.ids(turn_id, row.acp_session_id),
            status=agent.status,
            activity=agent.activity,
            stalled_at=agent.stalled_at,
            update=Raw(msgspec.json.encode(update)),
        )
        return self._state.voice.event("acp.status", payload, by_agent=False)

    def _row(self) -> Session:
        if self._state.row is None:
            raise AgentError("The session is not open")
        return self._state.row


def _is_mode(option: Option) -> bool:
    return MODE in (option.category, option.id)
