"""The commits of a workspace, and taking them home: a new branch in the user's own repository, on request alone.

They leave the workspace as a pack of bytes, made by git in a jail that may only read. In a second jail, which the agent
shares nothing with, git makes sure of them against the user's objects; what comes out of that is written into the
user's repository as files (`local_branches`). Nothing of the user's runs, and no commit arrives by itself.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec
from anyio import to_thread
from msgspec.structs import replace

from kandev_host.errors import Conflict, Forbidden, PayloadTooLarge, Unavailable, ValidationFailed
from kandev_host.events import event
from kandev_host.interfaces import Mount, Principal, Result, Store
from kandev_host.journal import Journal
from kandev_host.models import Task, Workspace
from kandev_host.protocol.actions.snapshots import CommitInfo, CommitsReply, Pushed, WorkspaceCommits
from kandev_host.services.git import SOURCE, Git, alternate_target, explain
from kandev_host.services.local_branches import LocalBranches
from kandev_host.services.local_repositories import LocalRepository, find_local_repository
from kandev_host.services.repositories import check_branch, parse_repository
from kandev_host.services.rows import need
from kandev_host.services.snapshot_jail import SnapshotJail
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.sessions.presets import PROTECTED
from kandev_host.settings import SnapshotSettings

FIELD = "push_to"
LISTED = 500
LIST_BYTES = 1 << 20
MESSAGE_CHARS = 8000
TIMEOUT_S = 120.0
EMPTY = 4
_READS_ONLY = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": "/dev/null"}

_HEAD = """
set -u
head=$(git rev-parse --verify --quiet "HEAD^{commit}") || { echo "error: HEAD names no commit" >&2; exit 3; }
"""
_LOG = f"""{_HEAD}
printf '%s\\0%s\\0' "$head" "$(git symbolic-ref --quiet --short HEAD)"
exec git rev-list --max-count={LISTED + 1} --encoding=UTF-8 \\
    --format='%H%x00%P%x00%an%x00%ae%x00%aI%x00%B%x00' "$head" "^$1" --
"""
_PACK = f"""{_HEAD}
[ "$(git rev-list --count "$head" "^$1" --)" != 0 ] || exit {EMPTY}
printf '%s\\n' "$head"
printf '%s\\n' "$head" "^$1" | git pack-objects --stdout --revs --thin --delta-base-offset -q
"""


class _Home(msgspec.Struct, frozen=True):
    """Where commits go: the repository of the task, and the branch."""

    repository: LocalRepository
    branches: LocalBranches
    branch: str
    tip: str | None


class CommitService:
    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        workspaces: WorkspaceService,
        settings: SnapshotSettings,
    ) -> None:
        self._store = store
        self._journal = journal
        self._workspaces = workspaces
        self._settings = settings

    async def commits(self, principal: Principal, request: WorkspaceCommits) -> CommitsReply:
        """Those since the base, and with `push_to` what became of bringing them home.

        Raises `NotFound`, `Unavailable` for a ruined repository, and, with `push_to`, `Forbidden` for all but users,
        `ValidationFailed` (no local repository, no branch name), `PayloadTooLarge`, and `Conflict`: nothing to bring,
        a branch that is there, checked out or elsewhere, protected files that nobody approved.
        """
        workspace = await self._workspaces.get(request.task_id)
        if request.push_to is None:
            return await self._log(workspace)
        if principal.kind != "user":
            raise Forbidden("agents:run")
        task = await need(self._store, Task, workspace.id)
        async with self._workspaces.hold(workspace.id):
            await self._workspaces.get(workspace.id)
            home = await self._home(workspace, request.push_to)
            told = await self._log(workspace)
            pushed = await self._push(workspace, home, request)
            reply = msgspec.structs.replace(told, pushed=pushed)
            payload = {"task_id": task.id, "pushed": pushed}
            ids = {"actor": principal.id, "task_id": task.id, "board_id": task.board_id}
            await self._journal.record(event("workspace.pushed", payload, **ids), reply=reply)
        return reply

    # --- reading ------------------------------------------------------------------------------------------------------

    def _git(self, workspace: Workspace) -> Git:
        runtime = self._workspaces.runtime(workspace.runtime)
        return Git(runtime, workspace.id, TIMEOUT_S, env=_READS_ONLY, read_only=runtime.confines)

    async def _log(self, workspace: Workspace) -> CommitsReply:
        base = workspace.base_commit or ""
        result = await self._git(workspace).script(_LOG, base, max_output_bytes=LIST_BYTES)
        if (result.exit_code != 0 and not result.truncated) or result.stdout.count(b"\0") < 2:
            raise Unavailable(f"The workspace's repository cannot be read: {explain(result)}", reason="git failed")
        head, branch, *fields = result.stdout.decode("utf-8", "replace").split("\0")
        commits = [_commit(fields[at : at + 6]) for at in range(0, len(fields) - 5, 6)]
        return CommitsReply(
            task_id=workspace.id,
            branch=branch or None,
            base_commit=base,
            head=head,
            commits=commits[:LISTED],
            truncated=result.truncated or len(commits) > LISTED,
        )

    # --- taking home --------------------------------------------------------------------------------------------------

    async def _home(self, workspace: Workspace, branch: str) -> _Home:
        """Where they are to go, if they may. Raises as `commits`."""
        check_branch(branch, FIELD)
        found = None if workspace.repository_url is None else parse_repository(workspace.repository_url)
        if found is None or found.kind != "local":
            raise ValidationFailed(
                FIELD, "Only what was cloned from a local repository can be taken home; workspace.diff has the changes"
            )
        repository = await to_thread.run_sync(find_local_repository, found.location, FIELD)
        branches = LocalBranches(repository.git_dir)
        try:
            await to_thread.run_sync(branches.check_free, branch)
            tip = await to_thread.run_sync(branches.tip, branch)
        except OSError as error:
            raise _not_usable(repository, error) from error
        return _Home(repository, branches, branch, tip)

    async def _push(self, workspace: Workspace, home: _Home, request: WorkspaceCommits) -> Pushed:
        head, pack = await self._packed(workspace)
        if home.tip not in (None, head) and not request.force:
            raise Conflict(
                f"There is a branch {home.branch!r} already: name another",
                state="branch",
                force="moves it, if that is forward",
            )
        told, whole, index = await self._made_sure(workspace, home, head, pack)
        if not told["forward"]:
            raise Conflict(f"The branch {home.branch!r} has commits that these do not follow", state="not_forward")
        if told["protected"] and not request.approve_protected:
            raise Conflict(
                "The commits change files that configure git, agents, editors or CI: look at them first",
                state="protected",
                paths=told["protected"],
                fix="Approve them (approve_protected: true; at the command line --approve-protected)",
            )
        if home.tip != head:
            await to_thread.run_sync(_put, home, head, told["name"], whole, index)
        return Pushed(
            branch=home.branch,
            commit=head,
            repository=home.repository.git_dir,
            previous=home.tip,
            commits=told["commits"],
            protected=told["protected"],
        )

    async def _packed(self, workspace: Workspace) -> tuple[str, bytes]:
        """The last commit, and a pack of all since the base."""
        limit = self._settings.push_limit_bytes
        git = replace(self._git(workspace), timeout_s=TIMEOUT_S)
        result = await git.script(_PACK, workspace.base_commit or "", max_output_bytes=limit + 100)
        if result.truncated:
            raise PayloadTooLarge(f"The commits take more than {limit} bytes", limit, FIELD)
        if result.exit_code == EMPTY:
            raise Conflict(
                "There are no commits to take home: nothing was committed since the base. "
                "What was changed is in the diff of the workspace; commit it there first",
                state="empty",
                fix=f"kandev-host exec --task {workspace.id} -- sh -c 'git add -A && git commit -m \"What was done\"'",
            )
        if result.exit_code != 0:
            raise Unavailable(f"The workspace's repository cannot be read: {explain(result)}", reason="git failed")
        head, _, pack = result.stdout.partition(b"\n")
        name = head.decode("ascii", "replace")
        if len(name) not in (40, 64) or not set(name) <= set("0123456789abcdef"):
            raise Unavailable("The workspace's repository cannot be read: HEAD names no commit", reason="git failed")
        return name, pack

    async def _made_sure(
        self, workspace: Workspace, home: _Home, head: str, pack: bytes
    ) -> tuple[dict[str, Any], bytes, bytes]:
        """What the commits are, the pack made whole, and its index. Raises `SnapshotFailed` for what is not sound."""
        repository = home.repository
        folders = {folder: alternate_target(number) for number, folder in enumerate(repository.alternates)}
        mounts = (Mount(repository.git_dir, SOURCE), *(Mount(folder, target) for folder, target in folders.items()))
        limit = self._settings.push_limit_bytes
        arguments = {
            "head": head,
            "base": workspace.base_commit,
            "tip": home.tip,
            "borrowed": [f"{SOURCE}/objects", *folders.values()],
            "protected": sorted(PROTECTED),
            "limit_bytes": limit,
        }
        jail = SnapshotJail(self._workspaces.runtime(workspace.runtime), workspace.id, TIMEOUT_S)
        result = await jail.raw("bring", "bring", arguments, limit_bytes=4 * limit, stdin=pack, mounts=mounts)
        if result.truncated:
            raise PayloadTooLarge(f"The commits take more than {limit} bytes", limit, FIELD)
        return _parted(result)


def _commit(fields: list[str]) -> CommitInfo:
    """From what rev-list writes: a line `commit NAME` before each."""
    name, parents, author, email, at, message = fields
    try:
        authored_at = datetime.fromisoformat(at)
    except ValueError:
        authored_at = None
    return CommitInfo(
        commit=name.rpartition("\n")[2],
        parents=parents.split(),
        author_name=author,
        author_email=email,
        authored_at=authored_at,
        message=message[:MESSAGE_CHARS].rstrip("\n"),
    )


def _parted(result: Result) -> tuple[dict[str, Any], bytes, bytes]:
    line, _, rest = result.stdout.partition(b"\n")
    told: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    length = told["sizes"][0]
    pack, index = rest[:length], rest[length:]
    kind = hashlib.sha256 if len(told["name"]) > len("pack-") + 40 else hashlib.sha1
    size = kind(usedforsecurity=False).digest_size
    digest = kind(pack[:-size], usedforsecurity=False).digest()
    # The name is a file's in the user's repository: it is what git calls this very pack, and never a path.
    sound = digest == pack[-size:] and told["name"] == f"pack-{digest.hex()}"
    if not sound or len(index) != told["sizes"][1]:
        raise Unavailable("The commits arrived broken", reason="a checksum is wrong")
    return told, pack, index


def _put(home: _Home, head: str, name: str, pack: bytes, index: bytes) -> None:
    try:
        home.branches.check_free(home.branch)
        home.branches.add_pack(name, pack, index)
        home.branches.move(home.branch, head, home.tip)
    except OSError as error:
        raise _not_usable(home.repository, error) from error


def _not_usable(repository: LocalRepository, error: OSError) -> Unavailable:
    reason = f"{repository.git_dir} cannot be used: {error.strerror or error}"
    return Unavailable(reason, fix="run kandev-host as the owner of the repository")
