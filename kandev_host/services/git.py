"""git on a workspace: always through `Runtime.run`, so in the jail and as the workspace's own uid, and hardened.

No hooks, no fsmonitor, no remote helpers, no user or system configuration, no prompts, `--` before arguments.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kandev_host.errors import KandevError
from kandev_host.interfaces import Mount, Network, ProcessSpec, Result, Runtime
from kandev_host.printable import printable

WORKSPACE = "/workspace"
SOURCE = "/source/git"
STDERR_SHOWN_CHARS = 1000

_SAFE = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.quotePath": "false",
    "core.askPass": "",
    "credential.helper": "",
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "protocol.http.allow": "always",
    "protocol.ssh.allow": "always",
    "protocol.git.allow": "always",
    "protocol.file.allow": "always",
    "protocol.ext.allow": "never",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
    "advice.addEmbeddedRepo": "false",
    "safe.directory": "*",
    "user.useConfigOnly": "false",
}
_IDENTITY = ("kandev-host", "kandev-host@localhost.invalid")


class GitFailed(KandevError):
    """A git command on a workspace ended with an error; the message is git's own, cleaned."""

    code = "UNAVAILABLE"


def config_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Configuration of the command scope, as environment (git-config: GIT_CONFIG_COUNT)."""
    env = {"GIT_CONFIG_COUNT": str(len(settings))}
    for index, (key, value) in enumerate(settings.items()):
        env[f"GIT_CONFIG_KEY_{index}"] = key
        env[f"GIT_CONFIG_VALUE_{index}"] = value
    return env


def hardened_settings() -> dict[str, str]:
    """The configuration of every git command, over that of the repository."""
    return dict(_SAFE)


def hardened_environment() -> dict[str, str]:
    """The environment of every git command: nothing of the user, the system or the repository may run anything."""
    name, email = _IDENTITY
    return {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new -oConnectTimeout=20",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_PAGER": "cat",
        "LC_ALL": "C.UTF-8",
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
        **config_environment(_SAFE),
    }


def upload_pack(alternates: int) -> str:
    """The command that serves a local source to clone.

    git clears GIT_CONFIG_* before it starts the other side (connect.c: local_repo_env), so they are set here, and
    with them the borrowed folders of objects, mounted by number.
    """
    settings = {"safe.directory": "*", "uploadpack.allowAnySHA1InWant": "true", "core.fsmonitor": "false"}
    env = config_environment(settings)
    if alternates:
        folders = ":".join(alternate_target(index) for index in range(alternates))
        env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = folders
    words = " ".join(f"'{key}={value}'" for key, value in env.items())
    return f"env {words} git upload-pack"


def alternate_target(index: int) -> str:
    return f"/source/objects-{index}"


class Git(msgspec.Struct, frozen=True):
    """git in one workspace of one runtime. `timeout_s` bounds every command; with `read_only` it changes nothing.

    Only who makes the repository sets `pin_git` to false: what a command reads there may make git run an agent's
    program, which must not reach in this jail what it could not reach in its own.
    """

    runtime: Runtime
    workspace_id: str
    timeout_s: float
    mounts: tuple[Mount, ...] = ()
    network: Network = "none"
    allow: tuple[str, ...] = ()
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    read_only: bool = False
    pin_git: bool = True

    async def attempt(self, *arguments: str) -> Result:
        """Run `git ARGUMENTS`, whatever comes of it. Raises `TimedOut`, and `Unavailable` without git or runtime."""
        return await self._run(("git", *arguments), 1 << 20)

    async def text(self, *arguments: str) -> str:
        """Its output, stripped. Raises `GitFailed` with what git said."""
        result = await self.attempt(*arguments)
        if result.exit_code != 0:
            raise GitFailed(explain(result))
        return result.stdout.decode("utf-8", "replace").strip()

    async def script(self, script: str, *arguments: str, max_output_bytes: int) -> Result:
        """Run a fixed shell script; what varies comes in as `$1`, `$2` …"""
        return await self._run(("sh", "-c", script, "sh", *arguments), max_output_bytes)

    async def _run(self, command: tuple[str, ...], max_output_bytes: int) -> Result:
        spec = ProcessSpec(
            workspace_id=self.workspace_id,
            command=command,
            cwd=WORKSPACE,
            env={**hardened_environment(), **self.env},
            mounts=self.mounts,
            network=self.network,
            allow=self.allow,
            pin_git=self.pin_git,
            read_only=self.read_only,
            labels={"task_id": self.workspace_id, "purpose": "git"},
        )
        return await self.runtime.run(spec, timeout_s=self.timeout_s, max_output_bytes=max_output_bytes)


def explain(result: Result) -> str:
    """The end of git's stderr as plain text (it may hold what a hostile server sent), and what else is known of it.

    That is the limit that it met, and what the proxy said, of whose answers git itself shows the number alone.
    """
    text = printable(result.stderr.decode("utf-8", "replace").replace("\r", "\n"), lines=True).strip()
    told = ("fatal:", "error:", "remote:")
    lines = [line for line in text.splitlines() if line.startswith(told)] or text.splitlines()
    said = " ".join(lines)[-STDERR_SHOWN_CHARS:] or f"git ended with status {result.exit_code}"
    if result.unreached is not None:
        said += f" (the proxy of its jail: {result.unreached})"
    return said if result.ending is None else f"{said} ({result.ending})"
