"""`kandev-host task start`, `stop`, `prompt`, `complete` and `trigger`: what the orchestrator does with one task."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.ids import find, short
from kandev_host.cli.inputs import blocks_option, prompt_of
from kandev_host.cli.options import example, presets
from kandev_host.cli.output import done

_agent = click.option("--agent", "agent_type", help="Agent type [default: the task's].")
_preset = click.option("--preset", type=presets, help="Who is asked for permission.")


def _told(remote: Remote, reply: dict[str, Any]) -> None:
    """The task, and the agent if there is one."""
    task, agent = reply["task"], reply["agent"]
    waiting_for = (reply.get("entry") or {}).get("waiting_for") or {}
    told = [task["state"]]
    told += [f"agent {short(agent['id'])} {agent['status']}"] if agent else []
    told += [f"waits: {waiting_for['reason']}"] if waiting_for else []
    remote.show(reply, lambda: done("Task", task["id"], ", ".join(told)))


@click.command(epilog=example("kandev-host task start 0c9e6a41\nkandev-host task start 0c9e6a41 --agent demo"))
@click.argument("task")
@_agent
@_preset
@asking
async def start(remote: Remote, task: str, **options: Any) -> None:
    """Run a task to its end, starting now. (trigger queues it instead.)"""
    _told(remote, await remote.call("orchestrator.start", task_id=await find(remote, "task", task), **options))


@click.command(epilog=example("kandev-host task stop 0c9e6a41 --reason 'On the wrong track'"))
@click.argument("task")
@click.option("--reason", help="Why, for other people.")
@asking
async def stop(remote: Remote, task: str, reason: str | None) -> None:
    """Cancel a task's run and stop its agent."""
    _told(remote, await remote.call("orchestrator.stop", task_id=await find(remote, "task", task), reason=reason))


@click.command(epilog=example("kandev-host task prompt 0c9e6a41 'Also update the README'"))
@click.argument("task")
@click.argument("prompt")
@blocks_option
@asking
async def prompt(remote: Remote, task: str, prompt: str, blocks: bool) -> None:
    """Say something to a task's agent. PROMPT - reads standard input."""
    said = prompt_of(prompt, blocks=blocks)
    reply = await remote.call("orchestrator.prompt", task_id=await find(remote, "task", task), prompt=said)
    remote.show(reply, lambda: done("Turn", reply["turn_id"], ""))


@click.command(epilog=example("kandev-host task complete 0c9e6a41"))
@click.argument("task")
@asking
async def complete(remote: Remote, task: str) -> None:
    """Call a task done; its agent is stopped."""
    _told(remote, await remote.call("orchestrator.complete", task_id=await find(remote, "task", task)))


@click.command(epilog=example("kandev-host task trigger 0c9e6a41\nkandev-host queue trigger 0c9e6a41 --agent demo"))
@click.argument("task")
@_agent
@_preset
@asking
async def trigger(remote: Remote, task: str, **options: Any) -> None:
    """Queue a task now, also a finished one; it starts when there is room."""
    _told(remote, await remote.call("orchestrator.trigger", task_id=await find(remote, "task", task), **options))
