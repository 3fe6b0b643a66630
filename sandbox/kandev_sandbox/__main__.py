"""`python -m kandev_sandbox run … -- COMMAND` and `python -m kandev_sandbox doctor`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

import anyio

from kandev_sandbox import amounts, doctor, programs, uids
from kandev_sandbox.bwrap import INSTALL
from kandev_sandbox.egress.denials import denials
from kandev_sandbox.errors import PolicyError, SandboxError
from kandev_sandbox.jail import Jail, open_jail
from kandev_sandbox.launch import Streams
from kandev_sandbox.policy import WORKSPACE, Bind, Policy

_EXAMPLES = """\
examples:
  kandev-sandbox run -- sh -c 'id; ls -la'                     the current folder, no network
  kandev-sandbox run --workspace ~/src/app -- npm test
  kandev-sandbox run --network allowlist --allow @pypi -- pip download flask
  kandev-sandbox run --allow 127.0.0.1:5432 -- psql -h 127.0.0.1
  kandev-sandbox run --memory 2g --pids 200 --timeout 10m -- make -j
  kandev-sandbox run --disk 500m -- pip wheel -r requirements.txt
  kandev-sandbox run --network host --env API_KEY=… --ro ~/models -- python train.py
  kandev-sandbox doctor                                         can this machine do it? if not: why, and the fix

exit status of run: the command's own; 128+n if it died of signal n, so 137 where a limit ended it; 2 for wrong usage;
125 if there was no jail, which is said on stderr with what to do
"""


class _Parser(argparse.ArgumentParser):
    """That says of options of the command what is missing before it."""

    def error(self, message: str) -> NoReturn:
        hint = ""
        if message.startswith("unrecognized arguments"):
            hint = "; write -- before the command, and the options of run before that"
        super().error(message + hint)


class _Version(argparse.Action):
    """--version: of the package that was installed. Looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        try:
            print("kandev-sandbox", version("kandev-host"))
        except PackageNotFoundError:
            print("kandev-sandbox: its version is not known, for it was copied and not installed")
        parser.exit()


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
    parser = _Parser(
        prog="kandev-sandbox",
        description="Run a command in a jail: it sees one folder, /usr, and nothing else of this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and end")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run a command in a jail",
        usage="%(prog)s [OPTION]... -- COMMAND [ARGUMENT]...",
        epilog=_EXAMPLES,
        formatter_class=parser.formatter_class,
    )
    run.add_argument("--workspace", type=Path, default=Path(), metavar="FOLDER", help="writable, at /workspace [.]")
    run.add_argument("--network", choices=("none", "allowlist", "host"), default="none", help="[none]")
    run.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="ENTRY",
        help="127.0.0.1:PORT, a service of this machine; with an allowlist also NAME, *.NAME, NAME:PORT, @PRESET",
    )
    run.add_argument(
        "--ro", action="append", default=[], type=Path, metavar="PATH", help="visible at its own path, read-only"
    )
    run.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="NAME alone copies yours, if it is set"
    )
    run.add_argument("--nested", action="store_true", help="let the command make jails of its own")
    run.add_argument("--strict", action="store_true", help="also refuse debuggers (ptrace)")
    run.add_argument(
        "--protect", action="append", default=[], metavar="PATH", help="read-only, in the workspace; it must be there"
    )
    run.add_argument("--no-pin-git", action="store_true", help="let it change git's hooks and configuration")
    amounts.add_arguments(run)
    run.add_argument(
        "--own",
        action="store_true",
        help="as root: give the folder to a uid of its own (chown -R), once all other options are found to be right",
    )
    run.add_argument("argv", nargs="+", metavar="COMMAND", help="what to run, after --")
    run.set_defaults(run=_run)
    check = commands.add_parser("doctor", help="say whether this machine can make the jail")
    check.add_argument("--json", action="store_true", help="for programs")
    check.set_defaults(run=_doctor)
    return parser


def _policy(options: argparse.Namespace, workspace: Path, program: programs.Program) -> Policy:
    """Without a uid: whose the folder is, or becomes, is asked last."""
    _check_paths(options, workspace)
    return Policy(
        workspace=workspace,
        binds=(*program.binds, *(Bind(Path(os.path.abspath(path))) for path in options.ro)),
        path=program.path_entries,
        env=dict(pair for pair in map(_variable, options.env) if pair is not None),
        protected=tuple(options.protect),
        pin_git=not options.no_pin_git,
        limits=amounts.limits_of(options),
        network=options.network,
        allow=tuple(options.allow),
        allow_hint="add --allow {entry}",
        on_decision=denials(sys.stderr),
        nested=options.nested,
        seccomp="strict" if options.strict else "default",
    )


def _check_paths(options: argparse.Namespace, workspace: Path) -> None:
    """Whoever names a path counts on it: what is not there would be left out, and could be made inside."""
    for path in options.ro:
        if not os.path.lexists(path):
            raise PolicyError(f"--ro {path} does not exist.", "correct the path, or leave it out")
    for path in options.protect:
        whole = os.path.join(workspace, path)
        if os.path.realpath(whole) != os.path.normpath(whole) or not (os.path.isfile(whole) or os.path.isdir(whole)):
            raise PolicyError(
                f"--protect {path} is no file or folder of {workspace}, or leads through a link.",
                "make it first, or leave it out",
            )


async def _run(options: argparse.Namespace) -> int:
    workspace = Path(os.path.realpath(options.workspace))  # noqa: ASYNC240 - nothing else runs yet
    program = _program(options.argv, workspace)
    policy = _policy(options, workspace, program)
    report = await doctor.examine()
    bwrap = report.chosen()
    if os.geteuid() == 0:
        policy = replace(policy, uid=uids.owner_of(workspace, options.own))
    if options.cpus is not None and report.limits != "full":
        print(f"kandev-sandbox: limits: {report.limits}: {report.limits_reason}", file=sys.stderr)
        print(f"fix: {report.limits_fix}", file=sys.stderr)
    async with open_jail(policy, program.argv, bwrap=bwrap, streams=Streams("inherit", "inherit", "inherit")) as jail:
        async with anyio.create_task_group() as group:
            group.start_soon(_pass_signals_on, jail)
            code = await jail.wait()
            group.cancel_scope.cancel()
        if jail.ending is not None:
            print(f"kandev-sandbox: {jail.ending.text}", file=sys.stderr)
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


def _variable(text: str) -> tuple[str, str] | None:
    """None for a name that the caller does not have."""
    name, equals, value = text.partition("=")
    if equals:
        return name, value
    return (name, os.environ[name]) if name in os.environ else None


async def _doctor(options: argparse.Namespace) -> int:
    report = await doctor.examine()
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
        return 0 if report.ok else 1
    if report.bwrap is not None:
        print(f"ok: {report.bwrap.path} (bubblewrap {report.bwrap.version_text}), mode: {report.mode}")
        print(f"limits: {report.limits}" + (f": {report.limits_reason}" if report.limits_reason else ""))
        if report.limits_fix:
            print(f"fix: {report.limits_fix}")
        if report.mounts_fix:
            print(f"mounts: {report.mounts}: {report.mounts_reason}", f"fix: {report.mounts_fix}", sep="\n")
    elif not report.findings:
        print("not ok: bubblewrap is not installed", f"fix: {INSTALL}", sep="\n")
    for finding in report.findings:
        if not finding.ok:
            print(f"not usable: {finding.path}: {finding.reason}", f"fix: {finding.fix or 'none known'}", sep="\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
