"""Forgetting old snapshots, and the room they took."""

from __future__ import annotations

from typing import Any

from kandev_host.services.jailed import store

PREFIX = "refs/snapshots/"
LOOSE_FILES = 3000
PACKS = 20


def keep(*, ids: list[str], pack: bool) -> dict[str, Any]:
    """Forget every snapshot but these; with `pack`, or if there are many files, give back what nothing needs."""
    store.ensure()
    kept = {PREFIX + id for id in ids}
    found = store.git("for-each-ref", "--format=%(refname)", PREFIX).decode().split()
    gone = [ref for ref in found if ref not in kept]
    if gone:
        store.git("update-ref", "--stdin", stdin="".join(f"delete {ref}\n" for ref in gone).encode())
    if pack or _crowded():
        store.git("repack", "-a", "-d", "-q")
        store.git("prune", "--expire=now")
        store.git("pack-refs", "--all")
    return {"forgotten": len(gone), "repository_bytes": store.size_bytes()}


def _crowded() -> bool:
    loose = sum(1 for folder in (store.GIT / "objects").glob("??") for _ in folder.iterdir())
    return loose > LOOSE_FILES or len(list((store.GIT / "objects/pack").glob("*.pack"))) > PACKS
