"""Files of the user's home that an agent may read, and so pass on: never a folder, never the host's own."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from kandev_host.errors import Conflict, ValidationFailed
from kandev_host.interfaces import AgentType, Mount

READ_BYTES = 256 << 10
WARNING = "what an agent can read it can pass on"
_IN_URL = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
# A name of one label is a whole top-level domain.
_OPEN = re.compile(r"\*(\.[^.:]+)?(:\d+)?")


def check_network(name: str, agent_type: AgentType) -> None:
    """Raise `Conflict` for an agent that could send the files of this credential anywhere."""
    reached = _open_to(agent_type)
    if reached is not None:
        raise Conflict(
            f"The credential {name!r} hands out files, and {agent_type.name} {reached}: {WARNING}. Use git = "
            f'"fetch" or "push" instead, name what it may reach, or set open_network = true in [credentials.{name}]',
            state="open_network",
        )


def check_login(path: str, agent_type: AgentType, private: Path | None) -> None:
    """Raise `Conflict` for a path of `share_login` that is there and that agents of this type must not have."""
    table, real = f"[agents.{agent_type.name}] share_login", Path(os.path.realpath(login_source(path)))
    if private is not None and real.is_relative_to(private):
        raise Conflict(f"{table} names {path}, and the host's own folder is there: take it out", state="private")
    if not real.is_file():
        raise Conflict(f"{table} names {path}, which is no file: name the files that are needed", state="no_file")
    reached = _open_to(agent_type)
    if reached is not None:
        file = f"~/{path.removeprefix('~/')}"
        raise Conflict(
            f"{table} hands out {path}, and {agent_type.name} {reached}: {WARNING}. Name what it may reach; or, if it "
            f'is meant, take it out there, and hand it out with [credentials.NAME] files = ["{file}"] and open_network '
            f'= true, and [agents.{agent_type.name}] credentials = ["NAME"]',
            state="open_network",
        )


def login_source(path: str) -> Path:
    """The file of the user's home. Raises `ValidationFailed`."""
    relative = PurePosixPath(path.removeprefix("~/"))
    if relative.is_absolute() or ".." in relative.parts or "\0" in path:
        raise ValidationFailed("share_login", f"{path!r} is not a path below the home")
    return Path.home() / relative


def _open_to(agent_type: AgentType) -> str | None:
    """Why it could send what it reads anywhere, if it could."""
    wide = next((entry for entry in agent_type.allow if _OPEN.fullmatch(entry)), None)
    if agent_type.network == "host":
        return "has the network of this host"
    return None if wide is None else f"may reach {wide}"


def mounts_of(name: str, files: Sequence[str], private: Path | None) -> tuple[list[Mount], frozenset[str]]:
    """How they are bound, and the secrets found in them. Blocks. Raises `Conflict` for one that cannot be."""
    mounts, secrets = [], set[str]()
    for path in files:
        real = Path(os.path.realpath(os.path.expanduser(path)))
        if private is not None and real.is_relative_to(private):
            raise Conflict(f"The credential {name!r} names {path}, which is in the host's own folder", state="private")
        try:
            found = real.stat()
        except OSError as error:
            raise Conflict(
                f"The credential {name!r} names {path}: {error.strerror}; make it readable for the host, "
                f"or take it out of [credentials.{name}] files",
                state="missing",
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise Conflict(f"The credential {name!r} names {path}, which is no file", state="missing")
        if os.geteuid() == 0 and not found.st_mode & stat.S_IROTH:
            raise Conflict(
                f"The credential {name!r} names {path}, which only its owner may read, and jails of a host that runs "
                'as root have users of their own: use git = "fetch" or "push" instead, or run kandev-host as yourself',
                state="unreadable",
            )
        mounts.append(Mount(str(real), path))
        secrets |= set(_secrets_in(real))
    return mounts, frozenset(secrets)


def _secrets_in(file: Path) -> Iterator[str]:
    """Passwords in URLs, as in ~/.git-credentials, and what private keys are made of."""
    with file.open("rb") as opened:
        text = opened.read(READ_BYTES).decode("utf-8", "replace")
    yield from _IN_URL.findall(text)
    if "PRIVATE KEY-----" in text:
        yield "\n".join(line for line in text.splitlines() if not line.startswith("-----"))
