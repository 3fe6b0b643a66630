"""Making sure of a pack of commits that comes out of a workspace, before any of it reaches a user's repository.

A repository of its own, made for this, borrows the objects of the user's, which is mounted read-only; nothing but its
objects is read. The pack is hostile until `git index-pack --strict` and a walk over all that it must hold are through.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from kandev_host.services.jailed import store

PLACE = store.FOLDER / "incoming"
NAMED = 100


def bring(
    *, head: str, base: str, tip: str | None, borrowed: list[str], protected: list[str], limit_bytes: int
) -> None:
    """The pack from stdin; to stdout a line of JSON on the commits `base`..`head`, the pack made whole, its index.

    `borrowed` are folders of objects. Raises `GitError` for what is no sound history.
    """
    shutil.rmtree(PLACE, ignore_errors=True)
    try:
        told, pack = _made_sure(head, base, tip, borrowed, protected, limit_bytes)
        out = sys.stdout.buffer
        files = [pack, pack.with_suffix(".idx")]
        told |= {"name": pack.stem, "sizes": [file.stat().st_size for file in files]}
        out.write(json.dumps(told).encode() + b"\n")
        for file in files:
            with file.open("rb") as stream:
                shutil.copyfileobj(stream, out)
        out.flush()
    finally:
        shutil.rmtree(PLACE, ignore_errors=True)


def _made_sure(
    head: str, base: str, tip: str | None, borrowed: list[str], protected: list[str], limit_bytes: int
) -> tuple[dict[str, Any], Path]:
    kind = "sha256" if len(head) == 64 else "sha1"
    env = {"GIT_DIR": str(PLACE), "GIT_ALTERNATE_OBJECT_DIRECTORIES": ":".join(borrowed)}
    store.git("init", "--quiet", "--bare", "--template=", f"--object-format={kind}", str(PLACE))
    for name, what in ((base, "base commit"), (tip, "branch's commit")):
        if name is not None and not _is_commit(name, env):
            raise store.GitError(f"the repository does not hold the {what} {name} (any more)")
    _index(("--fix-thin", "--strict", f"--max-input-size={limit_bytes}"), env)
    if not _is_commit(head, env):
        raise store.GitError("the commits are not sound: the last one is not among them")
    store.git("rev-list", "--objects", "--quiet", head, f"^{base}", "--", env=env)
    commits = store.git("rev-list", head, f"^{base}", "--", env=env)
    touched = store.git(
        *("diff-tree", "--stdin", "-r", "-m", "--root", "--no-commit-id", "--no-renames", "--name-only", "-z"),
        stdin=commits,
        env=env,
    )
    paths = sorted({path.decode("utf-8", "replace") for path in touched.split(b"\0") if path})
    names = frozenset(protected)
    found = [path for path in paths if any(part.casefold() in names for part in path.split("/"))]
    forward = tip is None or store.git("rev-list", "--count", tip, f"^{head}", "--", env=env).strip() == b"0"
    told = {"commits": commits.count(b"\n"), "protected": found[:NAMED], "forward": forward}
    (pack,) = (PLACE / "objects/pack").glob("pack-*.pack")
    return told, pack


def _index(options: tuple[str, ...], env: dict[str, str]) -> None:
    """Take in the pack that comes through stdin, all of whose objects must be sound, and known or in it."""
    pipe, whole = subprocess.PIPE, {**store.environment(), **env}
    arguments = ["git", "index-pack", "--stdin", *options]
    process = subprocess.Popen(arguments, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, env=whole, cwd="/")
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has seen enough, and says why
        shutil.copyfileobj(sys.stdin.buffer, process.stdin)
    _, told = process.communicate()
    if process.returncode != 0:
        raise store.GitError("the commits are not sound: " + told[-1000:].decode("utf-8", "replace").strip())


def _is_commit(name: str, env: dict[str, str]) -> bool:
    try:
        return store.git("cat-file", "-t", name, env=env).strip() == b"commit"
    except store.GitError:
        return False
