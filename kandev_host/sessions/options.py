"""What can be set in a session: its config options and its modes as one list, found by id or by category. Pure.

ACP: config options supersede modes. Categories are an open set; unknown types of options are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from kandev_host.errors import NotFound, ValidationFailed
from kandev_host.models import Session
from kandev_host.protocol.acp import Json
from kandev_host.protocol.actions.sessions import Choice, Option

MODE = "mode"
SET_OPTION, SET_MODE = "session/set_config_option", "session/set_mode"
_TEXTS: Mapping[str, bool] = {"true": True, "false": False}


def options_of(session: Session | None) -> list[Option]:
    """All that can be set. An agent that has modes alone shows them as one option, of id and category `mode`."""
    if session is None:
        return []
    found = [option for raw in session.config_options or [] if (option := _option(raw)) is not None]
    if not any(MODE in (option.id, option.category) for option in found):
        modes = _of_modes(session.modes or {})
        found += [modes] if modes is not None else []
    return found


def find_option(options: Sequence[Option], name: str) -> Option | None:
    """By its id, else the first of this category."""
    by_id = [option for option in options if option.id == name]
    return next(iter(by_id or [option for option in options if option.category == name]), None)


def need_option(options: Sequence[Option], name: str) -> Option:
    """The same. Raises `NotFound` with the known ones."""
    option = find_option(options, name)
    if option is None:
        raise NotFound("option", name, known=[each.id for each in options])
    return option


def checked(option: Option, value: str | bool) -> str | bool:
    """The value as the option takes it. Raises `ValidationFailed` with what it may be."""
    if option.type == "boolean":
        taken = value if isinstance(value, bool) else _TEXTS.get(value.lower())
        if taken is None:
            raise ValidationFailed("value", f"The option {option.id!r} is either true or false")
        return taken
    known = [choice.value for choice in option.choices]
    if value not in known:
        raise ValidationFailed("value", f"The option {option.id!r} is one of {', '.join(known) or 'nothing'}")
    return value


def call_for(session: Session, option: Option, value: str | bool) -> tuple[str, Json]:
    """Method and params that set an option to a value that it takes."""
    ids = {"sessionId": session.acp_session_id}
    if not any(raw.get("id") == option.id for raw in session.config_options or []):
        return SET_MODE, {**ids, "modeId": value}
    if isinstance(value, bool):
        return SET_OPTION, {**ids, "configId": option.id, "type": "boolean", "value": value}
    return SET_OPTION, {**ids, "configId": option.id, "value": value}


def after(session: Session, option: Option, value: str | bool, told: list[Json] | None) -> Session:
    """The session's row once the option was set; `told` is the complete new list, if the agent told one."""
    if told is not None:
        return replace(session, config_options=told)
    if not any(raw.get("id") == option.id for raw in session.config_options or []):
        return replace(session, modes={**(session.modes or {}), "currentModeId": value})
    changed = [
        {**raw, "currentValue": value} if raw.get("id") == option.id else raw for raw in session.config_options or []
    ]
    return replace(session, config_options=changed)


def mode_in(config_options: Sequence[Json]) -> str | None:
    """The mode that a list of config options tells, by its category."""
    for raw in config_options:
        if raw.get("category") == MODE and isinstance(raw.get("currentValue"), str):
            return str(raw["currentValue"])
    return None


def mode_of(session: Session) -> str | None:
    """The mode as last told."""
    told = mode_in(session.config_options or [])
    current = (session.modes or {}).get("currentModeId")
    return told or (current if isinstance(current, str) else None)


def _option(raw: Json) -> Option | None:
    """None for one without an id, and of a type that the host does not know."""
    id, kind = raw.get("id"), raw.get("type", "select")
    if not isinstance(id, str) or not id or kind not in ("select", "boolean"):
        return None
    boolean = kind == "boolean"
    current = raw.get("currentValue")
    return Option(
        id=id,
        name=_text(raw.get("name")) or id,
        description=_text(raw.get("description")),
        category=_text(raw.get("category")),
        type="boolean" if boolean else "select",
        current_value=current if isinstance(current, bool if boolean else str) else None,
        choices=[] if boolean else _choices(raw.get("options")),
    )


def _of_modes(modes: Json) -> Option | None:
    current = modes.get("currentModeId")
    choices = [
        Choice(value=mode["id"], name=_text(mode.get("name")) or mode["id"], description=_text(mode.get("description")))
        for mode in _dicts(modes.get("availableModes"))
        if isinstance(mode.get("id"), str)
    ]
    if not choices:
        return None
    current = current if isinstance(current, str) else None
    return Option(id=MODE, name="Mode", category=MODE, type="select", current_value=current, choices=choices)


def _choices(options: Any) -> list[Choice]:
    """Of a select option, whose list is flat or in groups."""
    found = []
    for item in _dicts(options):
        inside = _dicts(item.get("options"))
        group = (_text(item.get("name")) or _text(item.get("group"))) if inside else None
        found += [
            Choice(
                value=each["value"],
                name=_text(each.get("name")) or each["value"],
                description=_text(each.get("description")),
                group=group,
            )
            for each in inside or [item]
            if isinstance(each.get("value"), str)
        ]
    return found


def _dicts(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
