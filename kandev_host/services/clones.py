"""Make a task's own clone: never a worktree, never shared objects, on a branch of its own.

A local repository's git folder is mounted read-only at a fixed place in the jail and cloned through git's own
transport, so that no object is linked or borrowed and the user's folder is never written to.
"""

from __future__ import annotations

import re

import msgspec
from anyio import to_thread
from msgspec.structs import replace

from kandev_host.errors import Unavailable, ValidationFailed
from kandev_host.interfaces import Mount, Runtime
from kandev_host.models import Task, Workspace
from kandev_host.services.forwarding.brokerage import Brokered
from kandev_host.services.git import SOURCE, Git, GitFailed, alternate_target, upload_pack
from kandev_host.services.local_repositories import LocalRepository, find_local_repository
from kandev_host.services.remotes import Remote, remote_of
from kandev_host.services.repositories import FIELD, Repository, check_branch, parse_repository

AGENT = {"user.name": "kandev agent", "user.email": "agent@localhost.invalid"}
"""Who commits in a workspace, unless the agent says otherwise."""

_COMMIT = re.compile(r"^([0-9a-f]{40}|[0-9a-f]{64})$")


class Source(msgspec.Struct, frozen=True):
    """Where a clone comes from, found and checked."""

    repository: Repository
    local: LocalRepository | None


class Base(msgspec.Struct, frozen=True):
    """What the workspace's branch starts from; `branch` is None for a detached HEAD."""

    branch: str | None
    commit: str


async def find_source(task: Task) -> Source | None:
    """The source of a task's workspace, None without repository. Raises `ValidationFailed` if it cannot be one."""
    if task.branch is not None:
        check_branch(task.branch)
    if task.repository_url is None:
        return None
    repository = parse_repository(task.repository_url)
    if repository.kind == "remote":
        return Source(repository, None)
    return Source(repository, await to_thread.run_sync(find_local_repository, repository.location, FIELD))


def branch_name(task_id: str, beside: str | None = None) -> str:
    """The branch of a task's workspace; git allows no `kandev/…` beside a branch called `kandev`."""
    short = task_id.replace("-", "")[-10:]
    return f"kandev-{short}" if beside == "kandev" else f"kandev/{short}"


async def make_workspace(
    runtime: Runtime,
    task: Task,
    source: Source | None,
    timeout_s: float,
    *,
    allow: tuple[str, ...] = (),
    brokered: Brokered | None = None,
) -> Workspace:
    """Fill the empty place of `task`. Raises `GitFailed`, `ValidationFailed` (unknown branch), `TimedOut`.

    The jail that clones a URL reaches its host and what `allow` names; with `brokered` only the host, that fetches for
    it.
    """
    git = Git(runtime, task.id, timeout_s, pin_git=False)
    if source is None:
        branch = branch_name(task.id)
        await git.text("init", "--quiet", "--template=", f"--initial-branch={branch}", ".")
        for key, value in AGENT.items():
            await git.text("config", key, value)
        base = Base(None, await _first_commit(git))
    else:
        remote = None if source.local is not None else remote_of(source.repository, allow, brokered)
        try:
            base = await _clone(git, task, source, remote)
        except GitFailed as error:
            raise GitFailed(_plain(error.message, brokered)) from error
        branch = branch_name(task.id, beside=base.branch)
        await _check_out(git, branch, base)
    return Workspace(
        id=task.id,
        runtime=runtime.name,
        repository_url=task.repository_url,
        branch=branch,
        base_branch=base.branch,
        base_commit=base.commit or await _first_commit(git),
    )


def _plain(message: str, brokered: Brokered | None) -> str:
    """With the URL that people know, for the address at which the host fetches it."""
    for base, url in ({} if brokered is None else brokered.shown).items():
        message = message.replace(base, url)
    return message


async def _first_commit(git: Git) -> str:
    """An empty commit, so that there is something to compare with."""
    await git.text("commit", "--quiet", "--allow-empty", "--no-verify", "--message=Start of the workspace")
    return await git.text("rev-parse", "--verify", "HEAD")


async def _check_out(git: Git, branch: str, base: Base) -> None:
    if base.commit:
        await git.text("checkout", "--quiet", "--no-track", "-b", branch, base.commit)
    else:
        await git.text("symbolic-ref", "HEAD", f"refs/heads/{branch}")


async def _clone(git: Git, task: Task, source: Source, remote: Remote | None) -> Base:
    options = ["--quiet", "--no-checkout", "--template=", "--no-recurse-submodules", "--no-local", "--no-hardlinks"]
    options += [f"--config={key}={value}" for key, value in AGENT.items()]
    if source.local is None:
        remote = remote or remote_of(source.repository)
        cloning = replace(git, network=remote.network, allow=remote.allow, env=remote.env)
        address = remote.url
    else:
        cloning = with_local_source(git, source.local)
        address = SOURCE
        options.append(f"--upload-pack={upload_pack(len(source.local.alternates))}")
    try:
        await cloning.text("clone", *options, "--", address, ".")
    except (GitFailed, Unavailable):
        await _check_readable(cloning, source)
        raise
    head = source.local.head if source.local is not None else None
    if task.branch is None and head is not None and _COMMIT.match(head):
        await cloning.text("fetch", "--quiet", *options[-1:], "--", "origin", head)
        return Base(None, head)
    wanted = task.branch or (head or "").removeprefix("ref: refs/heads/")
    return await (_base_of_branch(git, wanted) if wanted else _base_of_head(git))


async def _check_readable(cloning: Git, source: Source) -> None:
    """Raise `ValidationFailed` when git failed for want of permission: as root, the jail runs as another user."""
    if source.local is None:
        return
    try:
        readable = await cloning.script('test -r "$1/HEAD" && test -x "$1/objects"', SOURCE, max_output_bytes=1000)
    except Unavailable as error:  # its folder cannot even be shown to the jail
        raise _not_readable(source.local) from error
    if readable.exit_code != 0:
        raise _not_readable(source.local)


def _not_readable(source: LocalRepository) -> ValidationFailed:
    folder = source.git_dir
    return ValidationFailed(
        FIELD,
        f"The jail's user may not read {folder}: run kandev-host as the owner of the repository, "
        f"or allow it with chmod -R o+rX {folder}",
    )


def with_local_source(git: Git, source: LocalRepository) -> Git:
    """git that also sees this repository, read-only at SOURCE."""
    borrowed = (Mount(folder, alternate_target(index)) for index, folder in enumerate(source.alternates))
    return replace(git, mounts=(Mount(source.git_dir, SOURCE), *borrowed))


async def _base_of_branch(git: Git, branch: str) -> Base:
    found = await git.attempt("rev-parse", "--verify", "--quiet", f"refs/remotes/origin/{branch}^{{commit}}")
    if found.exit_code != 0:
        raise ValidationFailed("branch", f"The repository has no branch {branch!r}")
    return Base(branch, found.stdout.decode().strip())


async def _base_of_head(git: Git) -> Base:
    """The source's HEAD, as clone found it. An empty repository has no commit: "" then."""
    symbolic = await git.attempt("symbolic-ref", "--quiet", "--short", "HEAD")
    branch = symbolic.stdout.decode("utf-8", "replace").strip() if symbolic.exit_code == 0 else None
    commit = await git.attempt("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if commit.exit_code == 0:
        return Base(branch, commit.stdout.decode().strip())
    if await git.text("for-each-ref", "--count=1", "refs/remotes"):
        raise GitFailed(f"HEAD of the repository names the branch {branch!r}, which has no commit: choose a branch")
    return Base(branch, "")
