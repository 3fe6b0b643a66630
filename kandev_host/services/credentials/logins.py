"""What the user's own git knows to log in with: asked on the host's side, outside of any repository."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from kandev_host.secrets import register

ANSWER_S = 20.0
_KEPT = frozenset({"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"})
# Asked for a password: nobody is there to answer.
_SILENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GCM_INTERACTIVE": "never",
}
_VALUE = re.compile(r"[^\x00-\x1f\x7f]{1,8192}")


@dataclass(frozen=True, slots=True)
class Login:
    username: str
    password: str = field(repr=False)


def host_environment() -> dict[str, str]:
    """This host's own environment for a git of the user's that asks nobody."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT} | _SILENT


async def login_at(https_host: str, path: str = "") -> Login | None:
    """What the user's credential helpers, as the user has configured them, answer for this host; None without."""
    asked = f"protocol=https\nhost={https_host}\n" + (f"path={path.strip('/')}\n" if path else "") + "\n"
    code, output = await _ask("credential", "fill", given=asked)
    told: Mapping[str, str] = dict(line.partition("=")[::2] for line in output.splitlines())
    username, password = told.get("username", ""), told.get("password", "")
    if code != 0 or not _VALUE.fullmatch(username) or not _VALUE.fullmatch(password):
        return None
    register(password, f"git's log-in at {https_host}")
    return Login(username, password)


async def authorities_for(url: str) -> str | None:
    """The file of certificate authorities that the user's git trusts for this URL (http.sslCAInfo), if it has one."""
    code, output = await _ask("config", "--type=path", "--get-urlmatch", "http.sslCAInfo", url)
    return output.strip() or None if code == 0 else None


async def _ask(*arguments: str, given: str = "") -> tuple[int, str]:
    """Exit code and output of the user's git; it is not there, or too slow: as one that failed."""
    try:
        with anyio.fail_after(ANSWER_S):
            done = await anyio.run_process(
                ["git", *arguments], input=given.encode(), env=host_environment(), cwd="/", check=False
            )
    except (TimeoutError, OSError):
        return 1, ""
    return done.returncode, done.stdout.decode("utf-8", "replace")
