"""The difference between two snapshots."""

from __future__ import annotations

import sys

from kandev_host.services.jailed import store

_OPTIONS = ("--no-ext-diff", "--no-textconv", "--no-color", "--find-renames")


def compare(*, old: str, new: str) -> None:
    """To stdout: statistics (git-diff-tree: --raw --numstat -z), a NUL, the patch. Raises `GitError`."""
    store.ensure()
    arguments = ("diff-tree", "-r", *_OPTIONS)
    sys.stdout.buffer.write(store.git(*arguments, "--raw", "--numstat", "-z", old, new) + b"\0")
    sys.stdout.buffer.flush()
    patch = ("--patch", "--unified=3", "--src-prefix=a/", "--dst-prefix=b/")
    store.pass_on(*arguments, *patch, old, new)
