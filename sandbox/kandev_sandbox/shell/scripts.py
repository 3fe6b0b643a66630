"""The shell code of a session: the supervisor that waits for commands, and what surrounds each command.

The supervisor is the first process of its jail's pid namespace, so nothing inside can kill or stop it. It starts every
command in a fresh shell, with /dev/null as stdin and fifos of its own as outputs: a command can end, replace or break
only that shell. What a command may do to its own shell (aliases, functions, options, traps) is met with quoted words,
`unset -f` and `set +…` in the lines that run at its end.
"""

from __future__ import annotations

from collections.abc import Iterable

from kandev_sandbox.shell.state import State, is_name, quoted

INSIDE = "/kandev"
READY = b"ready"

# The kernel keeps all signals of its namespace from the first process but those that it handles, as shells do with
# some: they are ignored, and restored for each command. Should the supervisor itself fail (no process left to fork), it
# starts over in place: exec needs no new process. `jobs` has none to tell of, but reaps what was orphaned meanwhile.
# Each answer begins with the end of a line: a command that wrote here itself may have been killed in the middle of one.
# Where that left the pipe full, the death of an orphan interrupts the write that waits; busybox then drops the text,
# and printf fails.
_SUPERVISOR = """\
trap '' {signals}
trap 'trap - {signals}; exec /bin/sh {inside}/supervisor "$1"' EXIT
{unset}
printf '\\nready\\n'
while read -r t; do
  jobs
  (trap - {signals}; exec "$1" -c ". {inside}/$t.env" sh) </dev/null >"{inside}/$t.out" 2>"{inside}/$t.err"
  s=$?
  n=0
  until printf '\\n%s %d\\n' "$t" "$s" || [ "$((n += 1))" -ge {tries} ]; do :; done
done
"""
_TRIES = 1000
_SIGNALS = "1 2 3 4 5 6 7 8 10 11 12 13 14 15 16 24 25 26 27 29 30 31"
# Each group is silent even under `set -x`, and first undoes what would change what comes after. In its posix mode, bash
# lets no function hide `set`, `unset` and `export`.
# When the script has fallen off its end, and may have replaced our trap. Not always: should the group fail here (no
# descriptor left), it takes the exit code along, in the trap it does not.
_AFTER = """\
{{ KANDEV_STATUS=$?; {quiet}; {tell}; }} 2>/dev/null
KANDEV_TOLD=1
\\exit "$KANDEV_STATUS"
"""
_TRAP = "{{ {quiet}; case ${{KANDEV_TOLD-}} in '') {tell};; esac; }} 2>/dev/null"
_POSIX = "POSIXLY_CORRECT=; \\export -n POSIXLY_CORRECT; "
_QUIET = "\\unset -f set unset umask export printf pwd exit; \\set +efnuvx"
_TELL = (
    '{{ \\umask; \\export -p; \\printf "\\000"; \\pwd; \\printf "\\000%s\\000" "${{OLDPWD-}}"; }} '
    ">|{inside}/{token}.state"
)


def supervisor(names: Iterable[bytes]) -> bytes:
    """Started as `/bin/sh supervisor SHELL`; requests on stdin, `ready` and `TOKEN STATUS` on stdout.

    `names` are the variables of its environment: they belong to the state, so that commands can unset them.
    """
    known = [name.decode() for name in names if is_name(name)]
    unset = f"unset -v {' '.join(known)}" if known else ":"
    return _SUPERVISOR.format(inside=INSIDE, unset=unset, signals=_SIGNALS, tries=_TRIES).encode()


def surrounding(token: str, state: State, posix: bool, traps: bool) -> bytes:
    """What a command's shell runs: take the state over, run the script `token`, tell the state (`state.told`).

    `posix` says that the shell is bash, `traps` that the script may set an EXIT trap of its own.
    """
    tell = _TELL.format(inside=INSIDE, token=token)
    quiet = _POSIX + _QUIET if posix else _QUIET
    exports = b" ".join(name + b"=" + quoted(value) for name, value in state.env.items())
    cwd = quoted(state.cwd)
    lines = [
        b"umask %04o" % state.umask,
        *([b"export " + exports] if exports else []),
        # Not in some other folder of the user's: what was meant for the one that is gone would happen there.
        b"cd " + cwd + b" 2>/dev/null || { cd " + INSIDE.encode() + b" && "
        + b"printf 'kandev: %s is gone; cd elsewhere\\n' " + cwd + b" >&2; }",
        *([b"OLDPWD=" + quoted(state.previous)] if state.previous else []),
        b"trap " + quoted(_TRAP.format(quiet=quiet, tell=tell).encode()) + b" EXIT",
        f". {INSIDE}/{token}".encode(),
        _AFTER.format(quiet=quiet, tell=tell).encode() if traps else b"",
    ]  # fmt: skip
    return b"\n".join(lines)
