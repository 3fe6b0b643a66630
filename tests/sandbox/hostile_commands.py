"""Commands that break naive persistent shells, and what is right of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kandev_sandbox import ShellResult

from .shells import opened, right

MIB = 1 << 20
KILLED = 137


@dataclass(frozen=True)
class Case:
    """`out` is the expected stdout (None: any), `code` the exit code (None: any but a hang), `also` what else holds."""

    name: str
    script: str
    code: int | None = 0
    out: bytes | None = b""
    timeout_s: float = 60.0
    ends: bool = True
    also: Callable[[ShellResult], bool] = lambda _: True


def hangs(
    name: str,
    script: str,
    out: bytes | None = b"",
    timeout_s: float = 0.5,
    also: Callable[[ShellResult], bool] = lambda _: True,
) -> Case:
    """`timeout_s` is long where the command has to come to something before it."""
    return Case(name, script, code=None, out=out, timeout_s=timeout_s, ends=False, also=also)


CASES = (
    # The session dies.
    Case("exit", "echo a; exit 3; echo b", 3, b"a\n"),
    Case("exec", "exec echo replaced", 0, b"replaced\n"),
    Case("exec of nothing", "exec /nowhere/at/all", None),
    Case("exec redirects for good", "exec >/dev/null 2>&1; echo gone"),
    Case("exec closes stdout", "exec >&-; echo x; exit 4", 4),
    Case("exec closes all", "exec <&- >&- 2>&-; exit 5", 5),
    Case("set -e", "set -e; false; echo never", 1),
    Case("set -u", "set -u; echo $nothing; echo never", None),
    Case("set -n", "set -n; echo never", 0),
    Case("kill itself", "echo a; kill -9 $$", KILLED, b"a\n"),
    Case("terminate itself", "kill -TERM $$", 143),
    Case("kill its parent", "kill -9 $PPID; echo alive", 0, b"alive\n"),
    Case("kill everything", "sleep 60 & kill -9 -1; echo alive", 0, b"alive\n"),
    Case("kill its group", "kill -9 0", KILLED),
    Case("stop its parent", "kill -STOP $PPID; kill -STOP 1; echo on", 0, b"on\n"),
    Case("hang up its parent", "kill -HUP 1; kill -USR1 1; kill -INT 1; kill -TERM 1; echo on", 0, b"on\n"),
    # Syntax.
    Case("unterminated double quote", 'echo "abc', 2),
    Case("unterminated single quote", "echo 'abc", 2),
    Case("unterminated heredoc", "cat <<EOF\nabc", 0, None, also=lambda r: r.stdout.startswith(b"abc")),
    Case("unterminated group", "{ echo a;", 2),
    Case("unterminated substitution", "echo $(echo a", 2),
    Case("unterminated function", "f() {", 2),
    Case("a stray parenthesis", ")", 2),
    Case("a stray done", "done", 2),
    Case("a trailing backslash", "echo a\\", 0, None),
    Case("a comment without a newline", "echo a # b", 0, b"a\n"),
    Case("nothing", "", 0),
    Case("a syntax error in eval", "eval 'if'", 2),
    Case("return", "echo a; return 6", 6, b"a\n"),
    Case("break and continue", "break 2>/dev/null; continue 2>/dev/null; echo a", 0, b"a\n"),
    # Input.
    Case("cat", "cat", 0),
    Case("read", "read x; echo $?", 0, b"1\n"),
    Case("a shell that reads", "sh; bash; python3 -i 2>/dev/null; echo a", 0, None),
    # What the next lines rely on.
    Case(
        "redefined builtins", "printf() { echo mine; }; pwd() { echo /; }; umask() { :; }; cd() { :; }; test() { :; }"
    ),
    Case("redefined echo and command", "echo() { exit 9; }; command() { :; }; builtin() { :; }; true"),
    Case("aliases", "alias set=false printf=false export=false pwd=false umask=false trap=false; true"),
    Case("IFS", "IFS=abcdefghijklmnopqrstuvwxyz0123456789/; true"),
    Case("an exported IFS", "export IFS=/; true"),
    Case("PATH gone", "PATH=; unset PATH; export PATH=/nowhere; true"),
    Case("set -x", "set -x; true", also=lambda r: r.stderr.count(b"\n") == 1),
    Case("set -v", "set -v\ntrue"),
    Case("set -f -C", "set -f -C; true"),
    Case("set -a", "set -a; A=1; true"),
    Case("readonly", "readonly PWD HOME OLDPWD t; true"),
    Case("positional parameters", "set -- a b c; shift; echo $#", 0, b"2\n"),
    Case("an EXIT trap", "trap 'echo bye' EXIT; echo a", 0, b"a\nbye\n"),
    Case("an EXIT trap that exits", "trap 'exit 7' EXIT; true", 7),
    Case("all traps", "for s in EXIT HUP INT QUIT TERM USR1 CHLD; do trap : $s; done; true"),
    Case("ignored signals", "trap '' TERM INT HUP CHLD; true"),
    Case("the working directory removed", "mkdir gone; cd gone; rmdir ../gone"),
    Case("the working directory closed", "mkdir -p shut; cd shut; chmod 000 ../shut"),
    Case("a working directory with a newline", "mkdir -p 'a\nb'; cd 'a\nb'", also=lambda r: r.cwd.endswith("a\nb")),
    Case("a low limit of descriptors", "ulimit -n 5; true"),
    Case("a limit of file size", "ulimit -f 0; true"),
    Case("ENV and BASH_ENV", "echo 'exit 9' >rc; export ENV=$PWD/rc BASH_ENV=$PWD/rc; true"),
    Case(
        "PS4 and PROMPT_COMMAND", "export PS4='$(exit 9)' PROMPT_COMMAND='exit 9' SHELLOPTS 2>/dev/null; true", 0, b""
    ),
    # Output.
    Case("no final newline", "printf abc; printf def >&2", 0, b"abc", also=lambda r: r.stderr == b"def"),
    Case("every byte", "head -c 256 /dev/zero; printf '\\000\\001\\377\\n'", 0, b"\0" * 256 + b"\0\x01\xff\n"),
    Case("only stderr", "head -c 300000 /dev/zero >&2; echo a", 0, b"a\n", also=lambda r: r.stderr_bytes == 300_000),
    Case(
        "stderr first, then both",
        "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero; head -c 9 /dev/zero >&2",
        0,
        None,
        also=lambda r: (r.stdout_bytes, r.stderr_bytes) == (300_000, 300_009),
    ),
    Case(
        "a gigabyte",
        "head -c 1073741824 /dev/zero; echo end",
        0,
        None,
        timeout_s=80,
        also=lambda r: r.stdout_bytes == (1 << 30) + 4 and len(r.stdout) <= MIB and r.stdout.endswith(b"\0end\n"),
    ),
    Case(
        "what looks like an answer", "echo ready; echo 'deadbeef 0'; printf 'abcd 0\\n' >&2", 0, b"ready\ndeadbeef 0\n"
    ),
    # The background.
    Case(  # in the middle of the commands after it, of which one makes this folder
        "a background job that writes later",
        "(while ! test -d deep; do sleep 0.01; done; echo late; echo late >&2) & echo now",
        0,
        b"now\n",
    ),
    Case(  # of its output the head and the tail are kept
        "a background flood",
        "echo a; yes & echo b >&2",
        0,
        None,
        also=lambda r: r.stdout.startswith(b"a\n") and r.stderr == b"b\n",
    ),
    Case("a daemon", "setsid sh -c 'setsid sleep 60 & setsid sleep 60 &' >/dev/null 2>&1; echo a", 0, b"a\n"),
    Case("a hundred orphans", "for i in $(seq 100); do (sleep 0.01 &) ; done; echo a", 0, b"a\n"),
    Case("a stopped background job", "sleep 60 & kill -STOP $!; echo a", 0, b"a\n"),
    # What never ends.
    hangs("sleep", "echo a; sleep 600", out=b"a\n", timeout_s=5),
    hangs("a busy loop", "while :; do :; done"),
    hangs("a shell that stops itself", "kill -STOP $$; echo a"),
    hangs("one that ignores every signal", "trap '' HUP INT TERM USR1; while :; do sleep 600; done"),
    hangs("a flood", "yes", out=None, timeout_s=5, also=lambda r: r.stdout_bytes > 2 * MIB and r.truncated),
    hangs("a daemon and a wait", "setsid sh -c 'trap \"\" TERM; sleep 600' & (setsid sleep 600 &); wait"),
    hangs("an EXIT trap that never ends", "trap 'sleep 600' EXIT; exit 0"),
    hangs("a fifo nobody writes to", "mkfifo pipe; cat pipe"),
    # dash knows this limit as -p.
    hangs("a bounded fork bomb", "ulimit -u 300 2>/dev/null || ulimit -p 300; f() { f | f & }; f; sleep 600", out=None),
    # The line to the host.
    Case(
        "its own state forged",
        "printf '0022\\0exit 1\\0' >/kandev/*.state; printf x >/kandev/nothing.state; true",
        None,
    ),
    Case("the way of the answers flooded", "yes 'deadbeef 0' >/proc/1/fd/1 & sleep 0.1; kill $!; echo a", 0, b"a\n"),
    Case("half of an answer", "printf half >/proc/1/fd/1; echo a", 0, b"a\n"),
    Case("the requests stolen from for a while", "timeout 0.1 cat /proc/1/fd/0; echo a", 0, None),
    Case("the control folder", "rm -rf /kandev; touch /kandev/x; chmod 777 /kandev; ls /kandev; true", 0, None),
)


async def judge(sandbox: Any, shell: str, case: Case) -> None:
    """As `judged`, in a new session."""
    async with opened(sandbox, shell=shell) as session:
        await judged(session, case)


async def judged(session: Any, case: Case) -> None:
    """Run it between two commands, and judge all three."""
    await session.run("echo before")
    result = await session.run(case.script, timeout_s=case.timeout_s)
    assert result.timed_out is not case.ends
    assert case.code is None or result.exit_code == case.code
    assert case.out is None or result.stdout == case.out
    assert case.also(result)
    await right(session)
