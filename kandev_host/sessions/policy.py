"""The engine of permissions, one for every agent: preset, rules and plugins → a decision. Pure.

The first that applies: a deny of anybody; what always asks (protected paths, paths outside, a change of mode, a rule or
a plugin that says so); what the preset allows; what a rule of the user allows where the preset asks; else asking.
Plugins and claims of the agent only ever lower a decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from msgspec.structs import replace

from kandev_host.interfaces import Decision
from kandev_host.interfaces.agents import Network
from kandev_host.models import PermissionRequest, PermissionRule, Task
from kandev_host.sessions.commands import commands_in, simple_command
from kandev_host.sessions.presets import (
    OUTWARD,
    READS,
    Preset,
    in_workspace,
    is_protected,
    kind_of,
    paths_of,
)

# In a tool call: the host could not keep all of it, so that nobody has seen what it does.
TRUNCATED = "truncatedByHost"


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent was launched with, as far as it decides what it may do without asking. Made at the launch.

    `jailed`: the runtime confines it; `read_only`: its workspace is mounted so. `outward` is what leads out of its jail
    beside its network: a credential, a service. `note` says why the preset is less than the settings have it. After
    `expires_at` (on the monotonic clock, in seconds) the preset is `ask`.
    """

    agent_type: str
    task_id: str
    preset: Preset = "ask"
    jailed: bool = False
    network: Network = "host"
    outward: str | None = None
    read_only: bool = False
    note: str | None = None
    expires_at: float | None = None

    def at(self, clock: float) -> Situation:
        """The situation at this time."""
        if self.expires_at is None or clock < self.expires_at:
            return self
        return replace(self, preset="ask", note=f"preset {self.preset} has expired", expires_at=None)


def given_to(task: Task) -> str | None:
    """What the task gives its agent that leads out of the jail; one with hosts also gives it a network."""
    if task.credentials:
        return f"the task has the credential {task.credentials[0]}"
    if task.allow:
        return f"the task may reach {task.allow[0]}"
    return None


def decide(
    request: PermissionRequest,
    situation: Situation,
    rules: Sequence[PermissionRule] = (),
    plugins: Sequence[Decision] = (),
) -> Decision:
    """What is to be done with a request. Its reason names what decided."""
    call = request.tool_call
    mine = [rule for rule in rules if _concerns(rule, situation)]
    preset = _of_preset(call, situation)
    restricting = [*_restrictions(call, mine), *plugins]
    for decision in (preset, *restricting):
        if decision.effect == "deny":
            return decision
    for decision in (*_always_asked(call), *restricting):
        if decision.effect == "ask":
            return decision
    if preset.effect == "allow" or situation.preset == "read-only":
        return preset
    for rule in mine:
        if rule.effect == "allow" and _covers(rule, call):
            return Decision("allow", _reason(rule))
    return preset


def _of_preset(call: dict[str, Any], situation: Situation) -> Decision:
    """What the preset alone says."""
    preset, kind = situation.preset, kind_of(call)
    if preset == "read-only":
        if kind not in READS:
            return Decision("deny", "preset read-only")
        if _runs_something(call):
            return Decision("ask", f"preset read-only, but what calls itself {kind} runs a command")
        return Decision("allow" if situation.read_only else "ask", "preset read-only")
    if preset == "ask":
        return Decision("ask", situation.note or "the default is to ask")
    if not situation.jailed:
        return Decision("ask", f"preset {preset}, but no jail confines the agent")
    outward = kind in OUTWARD or _runs_something(call)
    way_out = "the agent has a network" if situation.network != "none" else situation.outward
    if way_out is not None and (preset == "unattended" or outward):
        return Decision("ask", f"preset {preset}, but {way_out}")
    return Decision("allow", f"preset {preset}")


def _always_asked(call: dict[str, Any]) -> Iterator[Decision]:
    """What asks under every preset and every rule."""
    if call.get(TRUNCATED):
        yield Decision("ask", "the call is too large to be shown in full")
    if kind_of(call) == "switch_mode":
        yield Decision("ask", "a change of mode is always asked for")
    for path in paths_of(call):
        if is_protected(path):
            yield Decision("ask", f"{path[:200]} is protected, or outside the workspace")


# --- rules ------------------------------------------------------------------------------------------------------------


def _concerns(rule: PermissionRule, situation: Situation) -> bool:
    return rule.task_id in (None, situation.task_id) and rule.agent_type in (None, situation.agent_type)


def _restrictions(call: dict[str, Any], rules: Sequence[PermissionRule]) -> Iterator[Decision]:
    """The decisions of rules that deny or ask: any one path, or any one command in it, is enough for them."""
    restricting = [rule for rule in rules if rule.effect != "allow"]
    commands = commands_in(call) if any(rule.command is not None for rule in restricting) else []
    for rule in restricting:
        if rule.kind not in (None, kind_of(call)) and not (rule.kind == "execute" and _runs_something(call)):
            continue
        if rule.path is not None and not any(_matches(path, rule.path) for path in paths_of(call)):
            continue
        if rule.command is None or (commands and any(_begins(words, rule.command) for words in commands)):
            yield Decision(rule.effect, _reason(rule))
        elif commands is None:
            yield Decision("ask", "the command is too long to be compared with the rules")


def _covers(rule: PermissionRule, call: dict[str, Any]) -> bool:
    """Does a rule that allows name the whole of this call?"""
    if rule.kind is None and rule.path is None and rule.command is None:
        return False
    if rule.kind not in (None, call.get("kind") or "other"):  # literally: a kind that is unknown is asked for
        return False
    if rule.path is not None:
        paths = paths_of(call)
        if not paths or not all(_matches(path, rule.path) for path in paths):
            return False
    if rule.command is not None:
        return simple_command(call) == rule.command
    return rule.kind == "execute" or not _runs_something(call)


def _runs_something(call: dict[str, Any]) -> bool:
    raw_input = call.get("rawInput")
    return kind_of(call) == "execute" or (isinstance(raw_input, dict) and not {"command", "cmd"}.isdisjoint(raw_input))


def _matches(path: str, pattern: str) -> bool:
    """A `*` crosses folders. Both are seen from the workspace."""
    return fnmatchcase(in_workspace(path), pattern.removeprefix("/workspace/"))


def _begins(words: Sequence[str], prefix: Sequence[str]) -> bool:
    """Does the command begin with these words? Its program may be named with its folder."""
    return (
        len(words) >= len(prefix)
        and words[0].rpartition("/")[2] == prefix[0].rpartition("/")[2]
        and tuple(words[1 : len(prefix)]) == tuple(prefix[1:])
    )


def _reason(rule: PermissionRule) -> str:
    return f"rule {rule.id}" + (f": {rule.reason}" if rule.reason else "")
