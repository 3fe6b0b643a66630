"""The difference between a workspace's base and its files as they are now, made inside the jail.

A repository of the host's own, made for one diff and borrowing the workspace's objects, is filled from the files
themselves. So nothing that the agent did to its repository runs or hides a change: no filter or fsmonitor of its
configuration, no `assume-unchanged` of its index, no replaced object, no private exclude. Untracked files count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec.structs import replace

from kandev_host.errors import Unavailable
from kandev_host.interfaces import Result
from kandev_host.models import Workspace
from kandev_host.protocol.actions.agents import DiffReply, FileChange
from kandev_host.services.git import Git, explain

STATISTICS_LIMIT_BYTES = 4 << 20
TIMEOUT_S = 50.0

_SCRIPT = """
set -u
base=$1
place=$(mktemp -d /tmp/diff.XXXXXXXX) || exit 1
# /run is this jail's alone, or in a container /var/tmp; /tmp is the agent's too: it could write a filter into our
# configuration while we run.
own=$(mktemp -d /run/diff.XXXXXXXX 2>/dev/null) || own=$(mktemp -d /var/tmp/diff.XXXXXXXX 2>/dev/null) || own=$place
trap 'rm -rf "$place" "$own"' EXIT
export GIT_DIR="$own/git" GIT_WORK_TREE="$PWD" GIT_INDEX_FILE="$place/index"
export GIT_OBJECT_DIRECTORY="$place/objects" GIT_ALTERNATE_OBJECT_DIRECTORIES="$PWD/.git/objects"
case ${#base} in 64) format=sha256 ;; *) format=sha1 ;; esac
git init --quiet --template= --object-format=$format || exit 1
git rev-parse --verify --quiet "$base^{commit}" >/dev/null || { echo "error: the base commit is gone" >&2; exit 3; }
# git would wait for ever to read rules from a pipe that nobody writes to.
pipe=$(find . -path ./.git -prune -o -type p \\( -name .gitignore -o -name .gitattributes \\) -print -quit)
[ -z "$pipe" ] || { echo "error: $pipe is a pipe" >&2; exit 3; }
git read-tree "$base" || exit 1
git add --all --ignore-errors -- . 2>"$place/stderr" || true
set -- --cached --no-ext-diff --no-textconv --no-color --find-renames --ignore-submodules=none "$base" --
git diff-index --raw --numstat -z "$@" || exit 1
printf '\\0'
git diff-index --patch --unified=3 --src-prefix=a/ --dst-prefix=b/ "$@"
"""

_Status = Literal["added", "deleted", "modified", "renamed", "copied", "type_changed"]
_STATUSES: dict[str, _Status] = {
    "A": "added", "D": "deleted", "M": "modified", "R": "renamed", "C": "copied", "T": "type_changed"
}  # fmt: skip


async def workspace_diff(git: Git, workspace: Workspace, limit_bytes: int) -> DiffReply:
    """The diff, cut at `limit_bytes` to whole lines.

    Raises `Unavailable` when the agent ruined the repository, `TimedOut` after 50 s.
    """
    base = workspace.base_commit or ""
    # Somebody waits for it: what takes longer (gigabytes to compare) is answered with that.
    git = replace(git, timeout_s=min(git.timeout_s, TIMEOUT_S), read_only=git.runtime.confines)
    result = await git.script(_SCRIPT, base, max_output_bytes=limit_bytes + STATISTICS_LIMIT_BYTES)
    if result.exit_code != 0 and not result.truncated:
        raise Unavailable(f"The workspace's repository cannot be read: {explain(result)}", reason="git failed")
    return as_reply(workspace, result, limit_bytes)


def as_reply(workspace: Workspace, result: Result, limit_bytes: int) -> DiffReply:
    """What git said of two trees: statistics, a NUL more, and the patch."""
    statistics, patch, cut = _split(result.stdout)
    files = parse_statistics(statistics)
    text, truncated = _bounded(patch, limit_bytes, result.truncated)
    return DiffReply(
        task_id=workspace.id,
        base_branch=workspace.base_branch,
        base_commit=workspace.base_commit or "",
        branch=workspace.branch or "",
        diff=text,
        truncated=truncated or cut,
        files=files,
        files_truncated=cut,
        additions=sum(file.additions or 0 for file in files),
        deletions=sum(file.deletions or 0 for file in files),
    )


def _split(output: bytes) -> tuple[bytes, bytes, bool]:
    """Statistics, patch, and whether the statistics themselves were cut. No path is empty, so NUL NUL parts them."""
    if output.startswith(b"\0"):
        return b"", output[1:], False
    end = output.find(b"\0\0")
    if end < 0:
        return output[: output.rfind(b"\0") + 1], b"", True
    return output[: end + 1], output[end + 2 :], False


def _bounded(patch: bytes, limit_bytes: int, truncated: bool) -> tuple[str, bool]:
    if len(patch) > limit_bytes or truncated:
        patch, truncated = patch[:limit_bytes], True
        patch = patch[: patch.rfind(b"\n") + 1]
    return patch.decode("utf-8", "replace"), truncated


def parse_statistics(output: bytes) -> list[FileChange]:
    """What `git diff-index --raw --numstat -z` says (git-diff-index: raw output format), in its order."""
    fields = iter(output.decode("utf-8", "replace").split("\0"))
    statuses: dict[str, tuple[_Status, str | None]] = {}
    files: list[FileChange] = []
    for item in fields:
        if item.startswith(":"):
            letter = item.rsplit(" ", 1)[-1][:1]
            path = next(fields, "")
            renamed = letter in {"R", "C"}
            old, path = (path, next(fields, "")) if renamed else (None, path)
            statuses[path] = (_STATUSES.get(letter, "modified"), old)
        elif item:
            files.append(_counted(item, fields, statuses))
    return files


def _counted(item: str, fields: Iterator[str], statuses: dict[str, tuple[_Status, str | None]]) -> FileChange:
    added, deleted, path = (*item.split("\t", 2), "", "")[:3]
    if not path:
        next(fields, "")
        path = next(fields, "")
    status, old = statuses.get(path, ("modified", None))
    binary = added == "-"
    return FileChange(
        path=path,
        status=status,
        old_path=old,
        binary=binary,
        additions=None if binary else int(added),
        deletions=None if binary else int(deleted),
    )
