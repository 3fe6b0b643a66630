"""What a workspace holds that is nowhere else: files that are not committed, commits that nobody else has.

Looked for inside the jail, with a repository of the host's own as in `diffs`, so that nothing that the agent configured
hides a change. Only what is known counts as saved: a local source is asked for its refs; of a remote one the refs that
git fetched or pushed count. Files that the repository ignores are no work.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from kandev_host.errors import Unavailable, ValidationFailed
from kandev_host.models import Task, Workspace
from kandev_host.printable import printable
from kandev_host.services.clones import find_source, with_local_source
from kandev_host.services.git import SOURCE, Git, explain
from kandev_host.services.repositories import parse_repository

TIMEOUT_S = 50.0
OUTPUT_BYTES = 1 << 20
NAMES_SHOWN = 10
COUNTED = 1000
_NO_REPOSITORY = 3

# $1: the base commit. $2: "source", "remotes" or "base": what is known to be saved beside it.
_SCRIPT = f"""
set -u
base=$1 saved=$2 top=$PWD
place=$(mktemp -d /tmp/unsaved.XXXXXXXX) || exit 1
# /run is this jail's alone, /tmp the agent's too: it could write a filter into our configuration while we run.
own=$(mktemp -d /run/unsaved.XXXXXXXX 2>/dev/null) || own=$place
trap 'rm -rf "$place" "$own"' EXIT
gone() {{ echo "error: $1" >&2; exit {_NO_REPOSITORY}; }}
in_agents() {{ git --git-dir="$top/.git" "$@"; }}
head=$(in_agents rev-parse --verify --quiet 'HEAD^{{commit}}') || head=$base
places="refs/heads refs/stash"
[ "$saved" != source ] || places="$places refs/tags"
tips=$(in_agents for-each-ref --format='%(objectname)' $places) || gone 'it has no refs'
case $saved in
  source) known=$(git --git-dir={SOURCE} for-each-ref --format='%(objectname)') || gone 'its source has no refs' ;;
  remotes) known=$(in_agents for-each-ref --format='%(objectname)' refs/remotes) || gone 'it has no refs' ;;
  *) known= ;;
esac
borrowed=$top/.git/objects
for folder in {SOURCE}/objects /source/objects-*; do [ ! -d "$folder" ] || borrowed=$borrowed:$folder; done
export GIT_DIR="$own/git" GIT_WORK_TREE="$top" GIT_INDEX_FILE="$place/index"
export GIT_OBJECT_DIRECTORY="$place/objects" GIT_ALTERNATE_OBJECT_DIRECTORIES="$borrowed"
case ${{#base}} in 64) format=sha256 ;; *) format=sha1 ;; esac
git init --quiet --template= --object-format=$format || exit 1
git rev-parse --verify --quiet "$base^{{commit}}" >/dev/null || gone 'the base commit is gone'
# git would wait for ever to read rules from a pipe that nobody writes to.
pipe=$(find . -path ./.git -prune -o -type p \\( -name .gitignore -o -name .gitattributes \\) -print -quit)
[ -z "$pipe" ] || gone "$pipe is a pipe"
{{ printf '%s\\n' "$head" $tips; printf '^%s\\n' "$base" $known; }} |
  git rev-list --count --max-count={COUNTED} --ignore-missing --stdin || exit 1
git read-tree "$head" || exit 1
git add --all --ignore-errors -- . 2>"$place/stderr" || exit 1
git diff-index --cached --no-renames --name-only -z --ignore-submodules=none "$head" -- || exit 1
"""


class Unsaved(msgspec.Struct, frozen=True):
    """So many files that differ from the last commit, and so many commits; `names` are the first of the files."""

    files: int
    commits: int
    names: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.files or self.commits)

    def __str__(self) -> str:
        told = []
        if self.files:
            named = ", ".join(self.names[:3]) + (" …" if self.files > 3 else "")
            told.append(f"{self.files} file{'' if self.files == 1 else 's'} not committed ({named})")
        if self.commits:
            many = f"{COUNTED} or more" if self.commits >= COUNTED else f"{self.commits}"
            told.append(f"{many} commit{'' if self.commits == 1 else 's'} that only this workspace has")
        return " and ".join(told)


async def find_unsaved(git: Git, workspace: Workspace) -> Unsaved:
    """Raises `Unavailable` where that cannot be known (no repository, a ruined one), `TimedOut` after 50 s."""
    git, saved = await _beside_source(replace(git, timeout_s=min(git.timeout_s, TIMEOUT_S)), workspace)
    result = await git.script(_SCRIPT, workspace.base_commit or "", saved, max_output_bytes=OUTPUT_BYTES)
    if result.exit_code != 0 and not result.truncated:
        raise Unavailable(f"The workspace's repository cannot be read: {explain(result)}", reason="git failed")
    count, _, listed = result.stdout.partition(b"\n")
    names = [name for name in listed.split(b"\0") if name]
    shown = tuple(printable(name.decode("utf-8", "replace")) for name in names[:NAMES_SHOWN])
    return Unsaved(files=len(names), commits=int(count), names=shown)


async def _beside_source(git: Git, workspace: Workspace) -> tuple[Git, str]:
    """With the local repository that the workspace was cloned from, if it is still there and may be read."""
    if workspace.repository_url is None:
        return git, "base"
    if parse_repository(workspace.repository_url).kind == "remote":
        return git, "remotes"
    try:
        url = workspace.repository_url
        source = await find_source(Task(board_id="", title="", description="", repository_url=url, created_by=""))
        if source is None or source.local is None:
            return git, "base"
        beside = with_local_source(git, source.local)
        readable = await beside.script(f"test -r {SOURCE}/HEAD && test -x {SOURCE}/objects", max_output_bytes=1000)
    except (ValidationFailed, Unavailable):
        return git, "base"
    return (beside, "source") if readable.exit_code == 0 else (git, "base")
