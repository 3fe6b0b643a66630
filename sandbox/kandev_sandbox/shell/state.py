"""What carries over from one command to the next: working directory, exported variables, umask.

The command tells it when it ends, in a text of its own shell (`export -p`), and whatever runs in the jail can forge
that text. So it is read as data and written anew: the next command starts with assignments and nothing else. A text
that cannot be read leaves the state as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

STATE_MAX_BYTES = 1 << 20
_MAX_VARIABLES = 4096
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_DECLARED = re.compile(rb"(?:export|declare -[A-Za-z]+|typeset -[A-Za-z]+) ([A-Za-z_][A-Za-z0-9_]*)(=?)")
_PLAIN = re.compile(rb"[A-Za-z0-9_./:,@%+=^~-]+")
_SINGLE = re.compile(rb"'([^']*)'")
_DOUBLE = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ANSI = re.compile(rb"\$'((?:[^'\\]|\\.)*)'", re.DOTALL)
_ANSI_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|U[0-9a-fA-F]{1,8}|c.|.)", re.DOTALL)
_ANSI_NAMED = {b"a": b"\a", b"b": b"\b", b"e": b"\x1b", b"E": b"\x1b", b"f": b"\f", b"n": b"\n", b"r": b"\r",
               b"t": b"\t", b"v": b"\v"}  # fmt: skip
# Every shell sets these by itself, and to bash some are read-only.
_OWN = {b"PWD", b"OLDPWD", b"SHLVL", b"_", b"SHELLOPTS", b"BASHOPTS", b"BASH_VERSINFO", b"UID", b"EUID", b"PPID"}


@dataclass(frozen=True, slots=True)
class State:
    """`env` are the exported variables; `previous` is where `cd -` leads (empty: nowhere)."""

    cwd: bytes
    env: Mapping[bytes, bytes] = field(default_factory=dict)
    umask: int = 0o022
    previous: bytes = b""


def told(text: bytes) -> State | None:
    """The state in the text that `scripts.tell` makes a shell write; None if it is cut off, or nothing of the kind."""
    parts = text.split(b"\0")
    if len(parts) != 4 or parts[3]:
        return None
    mask, _, declarations = parts[0].partition(b"\n")
    cwd = parts[1].removesuffix(b"\n")
    if not re.fullmatch(rb"[0-7]{1,4}", mask) or not cwd.startswith(b"/"):
        return None
    env = _exports(declarations)
    return None if env is None else State(cwd, env, int(mask, 8), parts[2])


def quoted(value: bytes) -> bytes:
    """As one word of any POSIX shell."""
    return b"'" + value.replace(b"'", b"'\\''") + b"'"


def is_name(name: bytes) -> bool:
    """Can a shell have a variable of this name?"""
    return _NAME.fullmatch(name) is not None


def _exports(text: bytes) -> dict[bytes, bytes] | None:
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        declared = _DECLARED.match(text, at)
        if declared is None or len(found) > _MAX_VARIABLES:
            return None
        at = declared.end()
        if declared[2] and text[at : at + 1] == b"(":
            at = text.find(b"\n", at)  # an array of bash: never in the environment of a program
            if at < 0:
                return None
        elif declared[2]:
            value, at = _word(text, at)
            if declared[1] not in _OWN:
                found[declared[1]] = value
        if text[at : at + 1] != b"\n":
            return None
        at += 1
    return found


def _word(text: bytes, at: int) -> tuple[bytes, int]:
    """The value that starts here, unquoted, and where it ends."""
    parts: list[bytes] = []
    while True:
        if match := _SINGLE.match(text, at) or _PLAIN.match(text, at):
            parts.append(match[match.lastindex or 0])
        elif match := _DOUBLE.match(text, at):
            parts.append(re.sub(rb'\\([$`"\\\n])', _kept, match[1]))
        elif match := _ANSI.match(text, at):
            parts.append(_ANSI_ESCAPE.sub(_ansi, match[1]))
        else:
            return b"".join(parts), at
        at = match.end()


def _kept(match: re.Match[bytes]) -> bytes:
    return b"" if match[1] == b"\n" else match[1]


def _ansi(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code in _ANSI_NAMED:
        return _ANSI_NAMED[code]
    if code[:1] in b"uU" and len(code) > 1:
        point = int(code[1:], 16)
        return chr(point).encode(errors="replace") if point < 0x110000 else b""
    if code[:1] == b"c" and len(code) > 1:
        return bytes([code[1] & 0x1F])
    if code[:1] == b"x" and len(code) > 1:
        return bytes([int(code[1:], 16)])
    return bytes([int(code, 8) & 0xFF]) if code.isdigit() else code
