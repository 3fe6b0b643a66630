"""`python -m kandev_sandbox run … -- COMMAND` and `python -m kandev_sandbox doctor`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from kandev_sandbox import doctor, programs, uids
from kandev_sandbox.bwrap import INSTALL
from kandev_sandbox.errors import PolicyError, SandboxError
from kandev_sandbox.jail import Jail, open_jail
from kandev_sandbox.launch import Streams
from kandev_sandbox.policy import WORKSPACE, Bind, Policy

STATE = Path("/var/lib/kandev-sandbox/uids")
_EXAMPLES = """\
examples:
  kandev-sandbox run -- sh -c 'id; ls -la'                     the current folder, no network
  kandev-sandbox run --workspace ~/src/app -- npm test
  kandev-sandbox run --allow 127.0.0.1:5432 -- psql -h 127.0.0.1
  kandev-sandbox run --network host --env API_KEY=… --ro ~/models -- python train.py
  kandev-sandbox doctor                                         can this machine do it? if not: why, and the fix
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: the command's own; 128+n if it died of signal n; 125 if there was no jail."""
    options = _parser().parse_args(arguments)
    try:
        code: int = anyio.run(options.run, options)
        return code
    except SandboxError as error:
        print(
            f"kandev-sandbox: {error.reason}", *([f"fix: {error.fix}"] if error.fix else []), sep="\n", file=sys.stderr
        )
        return 125


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kandev-sandbox",
        description="Run a command in a jail: it sees one folder, /usr, and nothing else of this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="run a command in a jail", epilog=_EXAMPLES, formatter_class=parser.formatter_class
    )
    run.add_argument("--workspace", type=Path, default=Path(), metavar="FOLDER", help="writable, at /workspace [.]")
    run.add_argument("--network", choices=("none", "host"), default="none", help="[none]")
    run.add_argument("--allow", action="append", default=[], metavar="127.0.0.1:PORT", help="a service of this machine")
    run.add_argument("--ro", action="append", default=[], type=Path, metavar="PATH", help="visible, read-only")
    run.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="NAME alone copies your value")
    run.add_argument("--nested", action="store_true", help="let the command make jails of its own")
    run.add_argument("--own", action="store_true", help="as root: give the folder to a uid of its own (chown -R)")
    run.add_argument("argv", nargs="+", metavar="-- COMMAND", help="what to run")
    run.set_defaults(run=_run)
    check = commands.add_parser("doctor", help="say whether this machine can make the jail")
    check.add_argument("--json", action="store_true", help="for programs")
    check.set_defaults(run=_doctor)
    return parser


def _policy(options: argparse.Namespace, workspace: Path, program: programs.Program) -> Policy:
    return Policy(
        workspace=workspace,
        binds=(*program.binds, *(Bind(Path(os.path.abspath(path))) for path in options.ro)),
        path=program.path_entries,
        env=dict(_variable(text) for text in options.env),
        network=options.network,
        allow=tuple(options.allow),
        nested=options.nested,
        uid=_uid(workspace, options.own) if os.geteuid() == 0 else None,
    )


async def _run(options: argparse.Namespace) -> int:
    workspace = Path(os.path.realpath(options.workspace))  # noqa: ASYNC240 - nothing else runs yet
    program = _program(options.argv, workspace)
    policy = _policy(options, workspace, program)
    bwrap = (await doctor.examine()).chosen()
    async with open_jail(policy, program.argv, bwrap=bwrap, streams=Streams("inherit", "inherit", "inherit")) as jail:
        async with anyio.create_task_group() as group:
            group.start_soon(_pass_signals_on, jail)
            code = await jail.wait()
            group.cancel_scope.cancel()
        return code if code >= 0 else 128 - code


async def _pass_signals_on(jail: Jail) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as received:
        async for number in received:
            await jail.signal(number)


def _program(argv: Sequence[str], workspace: Path) -> programs.Program:
    """A path in the workspace is run as it is seen inside; anything else is found as the user has it."""
    path = Path(os.path.abspath(argv[0]))
    if os.sep in argv[0] and path.is_relative_to(workspace):
        return programs.Program((f"{WORKSPACE}/{path.relative_to(workspace)}", *argv[1:]), (), ())
    return programs.resolve(argv[0], *argv[1:])


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    return name, value if equals else os.environ.get(name, "")


def _uid(workspace: Path, own: bool) -> int:
    """Whom root's jail runs as: the folder's owner. Root's own folder changes hands only when told to (--own)."""
    owner = workspace.stat().st_uid
    if owner != 0:
        return owner
    if not own:
        raise PolicyError(
            f"{workspace} belongs to root, and a jail never runs as root.",
            f"run as an ordinary user, chown the folder to one, or add --own (chown -R of {workspace} to a new uid)",
        )
    uid = uids.Uids(STATE).of(workspace)
    uids.give(workspace, uid)
    return uid


async def _doctor(options: argparse.Namespace) -> int:
    report = await doctor.examine()
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
        return 0 if report.ok else 1
    if report.bwrap is not None:
        print(f"ok: {report.bwrap.path} (bubblewrap {report.bwrap.version_text}), mode: {report.mode}")
        print("limits: partial (per process; no cgroups, so a tree of processes is not bounded)")
    elif not report.findings:
        print("not ok: bubblewrap is not installed", f"fix: {INSTALL}", sep="\n")
    for finding in report.findings:
        if not finding.ok:
            print(f"not usable: {finding.path}: {finding.reason}", f"fix: {finding.fix or 'none known'}", sep="\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
