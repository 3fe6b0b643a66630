"""`kandev-host agent launch`, `prompt`, `cancel`, `stop` and `resume`."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.ids import find, short
from kandev_host.cli.inputs import blocks_option, content_options, prompt_of, resource_options, resources_of, said
from kandev_host.cli.options import example, presets
from kandev_host.cli.output import done


@click.command(
    epilog=example(
        "kandev-host agent launch 0c9e6a41 --prompt 'Look around'\n"
        "kandev-host agent launch 0c9e6a41 --agent demo --memory 2g --preset contained"
    )
)
@click.argument("task")
@click.option("--agent", "agent_type", help="Agent type [default: the task's].")
@click.option("--prompt", metavar="TEXT", help="Its first prompt; - reads it from standard input [default: it waits].")
@blocks_option
@click.option("--runtime", help="Where it runs [default: as its type says].")
@resource_options
@click.option("--preset", type=presets, help="Who is asked for permission.")
@asking
async def launch(
    remote: Remote,
    task: str,
    agent_type: str | None,
    prompt: str | None,
    blocks: bool,
    runtime: str | None,
    cpu: str | None,
    memory: str | None,
    disk: str | None,
    preset: str | None,
) -> None:
    """Start an agent for a task. It stays after its turn, until it is stopped."""
    reply = await remote.call(
        "agent.launch",
        task_id=await find(remote, "task", task),
        agent_type=agent_type,
        prompt=None if prompt is None else prompt_of(prompt, blocks=blocks),
        runtime=runtime,
        resources=resources_of(cpu, memory, disk),
        preset=preset,
    )
    agent = reply["agent"]
    remote.show(reply, lambda: done("Launched agent", agent["id"], f"{agent['agent_type']}, {agent['status']}"))


@click.command(
    epilog=example(
        "kandev-host agent prompt 7b1d20f3 'Also update the README'\n"
        "kandev-host agent prompt 7b1d20f3 --interrupt 'Stop that, and do this'\n"
        "kandev-host agent prompt 7b1d20f3 'Make it look like this' --image sketch.png --file notes.md"
    )
)
@click.argument("agent")
@click.argument("prompt")
@click.option("--interrupt", is_flag=True, help="Cancel the running turn first, instead of waiting for its end.")
@content_options
@asking
async def prompt(remote: Remote, agent: str, prompt: str, interrupt: bool, **content: Any) -> None:
    """Say something to an agent. PROMPT - reads standard input."""
    given = said(prompt, **content)
    agent_id = await find(remote, "agent", agent)
    mode = "interrupt" if interrupt else None
    reply = await remote.call("agent.prompt", agent_id=agent_id, prompt=given, mode=mode)
    remote.show(reply, lambda: done("Turn", reply["turn_id"], ""))


@click.command(epilog=example("kandev-host agent cancel 7b1d20f3"))
@click.argument("agent")
@asking
async def cancel(remote: Remote, agent: str) -> None:
    """Cancel an agent's turn; the agent stays."""
    reply = await remote.call("agent.cancel", agent_id=await find(remote, "agent", agent))
    remote.show(reply, lambda: done("Cancelled the turn of agent", short(reply["agent"]["id"]), ""))


@click.command(epilog=example("kandev-host agent stop 7b1d20f3\nkandev-host agent stop 7b1d20f3 --force"))
@click.argument("agent")
@click.option("--force", is_flag=True, help="Kill it at once.")
@asking
async def stop(remote: Remote, agent: str, force: bool) -> None:
    """End an agent."""
    reply = await remote.call("agent.stop", agent_id=await find(remote, "agent", agent), force=force)
    remote.show(reply, lambda: done("Agent", reply["agent"]["id"], reply["agent"]["status"]))


@click.command(
    epilog=example("kandev-host agent resume 7b1d20f3\nkandev-host agent resume 7b1d20f3 'Now write the tests'")
)
@click.argument("agent")
@click.argument("prompt", required=False)
@blocks_option
@asking
async def resume(remote: Remote, agent: str, prompt: str | None, blocks: bool) -> None:
    """Go on where an agent ended, in a new run with the same session.

    An agent that cannot open its session again is told what was said in it. The prompts that waited for it are sent,
    and PROMPT behind them; - reads standard input.
    """
    agent_id = await find(remote, "agent", agent)
    first = None if prompt is None else prompt_of(prompt, blocks=blocks)
    found = (await remote.call("agent.resume", agent_id=agent_id, prompt=first))["agent"]
    told = f"{found['agent_type']}, {found['status']}, goes on with {short(agent_id)}"
    remote.show({"agent": found}, lambda: done("Resumed as agent", found["id"], told))
