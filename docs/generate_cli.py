"""Write docs/cli.md from the commands: `python docs/generate_cli.py`. A test holds the page to them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from kandev_host.cli.app import group

PAGE = Path(__file__).parent / "cli.md"
SHARED = {"config", "data_dir", "debug", "as_json", "help"}
START = "<!-- commands: held to the code by a test -->\n"


def commands(parent: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Each command and group under `parent`, in the order of its help."""
    yield path, parent
    if isinstance(parent, click.Group):
        for name in parent.list_commands(click.Context(parent)):
            found = parent.get_command(click.Context(parent), name)
            if found is not None:
                yield from commands(found, f"{path} {name}")


def section(path: str, command: click.Command) -> str:
    """What `--help` says of a command, without the options that many share."""
    if isinstance(command, click.Group):
        return f"## {path}\n\n{_prose(command)}\n"
    context = click.Context(command, info_name=path)
    arguments = " ".join(piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]")
    level = "##" if path.count(" ") == 1 else "###"
    parts = [f"{level} {path} {arguments}".rstrip(), _prose(command)]
    own = [option for option in command.params if isinstance(option, click.Option) and option.name not in SHARED]
    if own:
        rows = [f"| `{_spelled(option, context)}` | {_explained(option)} |" for option in own]
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    examples = (command.epilog or "").partition("Examples:\n")[2]
    parts.append(f"```console\n{_prompted(examples)}\n```")
    return "\n\n".join(parts) + "\n"


def _prose(command: click.Command) -> str:
    return (inspect.cleandoc(command.help or "")).replace("*", "\\*")


def _spelled(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    return (record[0] if record else option.opts[0]).replace("|", "\\|")


def _explained(option: click.Option) -> str:
    told = (option.help or "").replace("|", "\\|")
    return f"{told.rstrip('.')}. Required." if option.required else told


def _prompted(examples: str) -> str:
    lines = [line.strip() for line in examples.splitlines()]
    return "\n".join(
        f"$ {line}" if line.startswith(("kandev-host", "KANDEV", "curl", "id=")) else line for line in lines
    )


def generated(page: str) -> str:
    """The page with its commands made anew; what stands before them stays."""
    found = [section(path, command) for path, command in commands(group, "kandev-host") if command is not group]
    return page.partition(START)[0] + START + "\n" + "\n".join(found)


def main() -> int:
    PAGE.write_text(generated(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
