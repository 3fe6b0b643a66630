"""Where a shell is to be, as options say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    from kandev_host.cli.asking import Remote

F = TypeVar("F", bound=Callable[..., Any])
HOST_NETWORK = "This shell has the network of the host: what runs in it reaches all that this machine does."


def where_options(command: F) -> F:
    """--task, --workspace, --runtime, --network and --allow; the command takes them by name, for `Choices`."""
    task = click.option("--task", help="In the workspace of this task [default: a scratch workspace].")
    workspace = click.option("--workspace", metavar="ID", help="In the workspace of an open shell.")
    runtime = click.option("--runtime", help="Where it runs [default: as the settings say].")
    network = click.option(
        "--network",
        type=click.Choice(["none", "allowlist", "host"]),
        help="What it reaches [default: as the settings say].",
    )
    allow = click.option(
        "--allow", metavar="NAME", multiple=True, help="Let it reach NAME or 127.0.0.1:PORT; repeatable."
    )
    return task(workspace(runtime(network(allow(command)))))


class Choices(msgspec.Struct, frozen=True):
    """What of it was given."""

    task: str | None
    workspace: str | None
    runtime: str | None
    network: str | None
    allow: tuple[str, ...]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Choices:
        """Of the arguments that `where_options` brings."""
        return cls(**{name: options[name] for name in cls.__struct_fields__})

    async def open(self, remote: Remote, **more: Any) -> dict[str, Any]:
        """The shell, opened; the pull of its image is shown, and waited for."""
        from kandev_host.cli.ids import find_given
        from kandev_host.cli.pulls import Bar
        from kandev_host.cli.shell.opening import call_through

        payload = {
            "task_id": await find_given(remote, "task", self.task),
            "workspace_id": self.workspace,
            "runtime": self.runtime,
            "network": self.network,
            "allow": list(self.allow) or None,
            **more,
        }
        asked = {name: value for name, value in payload.items() if value is not None}
        reply = await call_through(remote.client, "shell.open", asked, Bar(as_json=remote.as_json))
        shell: dict[str, Any] = reply["shell"]
        if shell["network"] == "host":
            click.echo(f"Warning: {HOST_NETWORK}", err=True)
        return shell
