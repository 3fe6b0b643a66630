"""What is not a whole backup of ours is refused, and changes nothing."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from kandev_host.backups import archive, making
from kandev_host.backups.folder import backups
from kandev_host.backups.making import make
from kandev_host.backups.restoring import restore
from kandev_host.errors import Conflict, StorageFull, Unavailable
from kandev_host.models import Task
from kandev_host.testing.upkeep import going_on

Parts = dict[str, Any]


@pytest.fixture
def backup(place: Any, tmp_path: Path) -> Path:
    (place.origin.data_dir / "token").write_text("kdv_secret")
    return make(place.origin, tmp_path / "backups", going_on).path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.anyio
async def test_a_backup_comes_back_as_it_was(place: Any, empty: Callable[[str], Any], backup: Path) -> None:
    other = empty("other")
    restored = restore(other.origin, backup, going_on)
    assert restored.kept is None
    assert restored.manifest is not None
    assert restored.report.counts == restored.manifest.counts
    async with place.open() as store, other.open() as copy:
        assert (await copy.find(Task)).rows == (await store.find(Task)).rows


def test_a_dry_run_checks_all_and_changes_nothing(place: Any, backup: Path) -> None:
    before = tree(place.origin.data_dir)
    assert restore(place.origin, backup, going_on, dry_run=True).report.problems == []
    assert tree(place.origin.data_dir) == before


def test_a_backup_is_its_owners_and_its_folder_holds_nothing_else(backup: Path) -> None:
    assert [path.name for path in backup.parent.iterdir()] == [backup.name]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert stat.S_IMODE(backup.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("asked", [False, True])
def test_secrets_go_and_come_only_when_both_ask_for_them(
    place: Any, empty: Callable[[str], Any], tmp_path: Path, asked: bool
) -> None:
    (place.origin.data_dir / "token").write_text("kdv_secret")
    plain = make(place.origin, tmp_path / "backups", going_on)
    whole = make(place.origin, tmp_path / "backups", going_on, with_secrets=True)
    with zipfile.ZipFile(plain.path) as file:
        assert sorted(file.namelist()) == ["database", "manifest.json"]
    other = empty("other")
    for has_none in (plain.path, place.origin.data_dir / "kandev.db"):
        for dry_run in (True, False):
            with pytest.raises(Unavailable, match="has no secrets") as refused:
                restore(other.origin, has_none, going_on, with_secrets=True, dry_run=dry_run)
            assert "leave --with-secrets out" in refused.value.details["fix"]
    assert other.origin.upkeep.size_bytes() is None
    assert restore(other.origin, whole.path, going_on, with_secrets=asked).secrets == (("token",) if asked else ())
    token = other.origin.data_dir / "token"
    assert token.exists() == asked
    assert not asked or stat.S_IMODE(token.stat().st_mode) == 0o600


def test_a_name_that_is_taken_is_not_written_over(place: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_text("mine")
    with pytest.raises(Conflict, match="there already"):
        make(place.origin, tmp_path, going_on, name="mine.zip")
    assert (tmp_path / "mine.zip").read_text() == "mine"


def test_a_disk_without_room_is_refused_before_anything_is_written(
    place: Any, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "RESERVE_BYTES", 1 << 60)
    before = tree(tmp_path)
    with pytest.raises(StorageFull, match="make room"):
        make(place.origin, tmp_path / "backups", going_on)
    with pytest.raises(StorageFull, match="make room"):
        restore(place.origin, backup, going_on)
    assert tree(tmp_path) == before


def parts_of(backup: Path) -> Parts:
    with zipfile.ZipFile(backup) as file:
        return {name: file.read(name) for name in file.namelist()}


def entry(name: str, mode: int = stat.S_IFREG | 0o600) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def packed(path: Path, parts: Parts, *more: tuple[zipfile.ZipInfo, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(entry(name), content)
        for info, content in more:
            file.writestr(info, content)


def with_manifest(parts: Parts, **changes: Any) -> Parts:
    told = {**msgspec.json.decode(parts["manifest.json"]), **changes}
    return {**parts, "manifest.json": msgspec.json.encode(told)}


def with_database(parts: Parts, content: bytes) -> Parts:
    import hashlib

    told = with_manifest(parts, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    return {**told, "database": content}


def edited(parts: Parts, folder: Path, *statements: str) -> Parts:
    """As somebody would who knows how backups are made: the checksum is right."""
    path = folder / "edited"
    path.write_bytes(parts["database"])
    db = apsw.Connection(str(path))
    db.execute("PRAGMA foreign_keys = OFF")
    for statement in statements:
        db.execute(statement)
    db.close()
    return with_database(parts, path.read_bytes())


def hostile(path: Path, parts: Parts) -> Iterator[tuple[str, Callable[[], object]]]:
    """What it is, and what writes it to `path`."""
    for name in ("../outside", "/tmp/outside", "a/../../outside", "config.toml", "secrets/../token", "secrets/config"):
        yield f"a file {name}", lambda name=name: packed(path, parts, (entry(name), b"x"))
    yield "a backslash", lambda: packed(path, parts, (entry("..\\outside"), b"x"))
    yield "a nul in a name", lambda: packed(path, parts, (entry("database\0x"), b"x"))
    yield "a folder", lambda: packed(path, parts, (entry("secrets/", stat.S_IFDIR), b""))
    yield "a secret that the manifest does not name", lambda: packed(path, parts, (entry("secrets/token"), b"x"))
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
        rest = {"manifest.json": parts["manifest.json"]}
        yield (
            f"a database of mode {kind:o}",
            lambda kind=kind, rest=rest: packed(path, rest, (entry("database", kind | 0o777), b"/etc/passwd")),
        )
    yield "no manifest", lambda: packed(path, {"database": parts["database"]})
    yield "no database", lambda: packed(path, {"manifest.json": parts["manifest.json"]})
    yield "a manifest that is no JSON", lambda: packed(path, {**parts, "manifest.json": b"{"})
    yield "a manifest that is deep", lambda: packed(path, {**parts, "manifest.json": b"[" * 100_000})
    yield "a manifest that is a bomb", lambda: packed(path, {**parts, "manifest.json": b" " * (64 << 20)})
    yield "a manifest of another shape", lambda: packed(path, {**parts, "manifest.json": b"[]"})
    yield "a newer format", lambda: packed(path, with_manifest(parts, format=9))
    yield "another store", lambda: packed(path, with_manifest(parts, store="other"))
    yield "another checksum", lambda: packed(path, with_manifest(parts, sha256="0" * 64))
    yield "another size", lambda: packed(path, with_manifest(parts, size_bytes=1))
    yield "a size beyond all", lambda: packed(path, with_manifest(parts, size_bytes=1 << 60))
    yield "other counts", lambda: packed(path, with_manifest(parts, counts={"tasks": 7}))
    yield "another head", lambda: packed(path, with_manifest(parts, head=10**6))
    yield "a secret that is not in it", lambda: packed(path, with_manifest(parts, secrets=["token"]))
    yield "a database that is none", lambda: packed(path, with_database(parts, b"SQLite format 3\0" + b"x" * 5000))
    yield (
        "a database with a trigger",
        lambda: packed(
            path, edited(parts, path.parent, "CREATE TRIGGER t AFTER INSERT ON tasks BEGIN DELETE FROM users; END")
        ),
    )
    yield "a database of another program", lambda: packed(path, edited(parts, path.parent, "PRAGMA application_id = 1"))
    yield "a newer database", lambda: packed(path, edited(parts, path.parent, "PRAGMA user_version = 99"))
    yield "rows that refer to none", lambda: packed(path, edited(parts, path.parent, "DELETE FROM boards"))
    yield "many entries", lambda: packed(path, parts, *((entry(f"f{n}"), b"") for n in range(5000)))
    yield "two databases", lambda: duplicated(path, parts)
    yield "an encrypted database", lambda: flagged(path, parts)
    yield "a bomb", lambda: bomb(path, parts)
    yield "an entry that says it is short", lambda: short(path, parts)
    yield "a cut file", lambda: cut(path, parts, 0.7)
    yield "nothing but a beginning", lambda: path.write_bytes(b"PK\3\4")
    yield "an empty file", lambda: path.write_bytes(b"")
    yield "a text", lambda: path.write_text("not a backup\n" * 100)
    yield "a pipe", lambda: os.mkfifo(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def duplicated(path: Path, parts: Parts) -> None:
    packed(path, parts, (entry("database"), b"another"))


def flagged(path: Path, parts: Parts) -> None:
    packed(path, parts)
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\1\2")
    content[at + 8] |= 1
    path.write_bytes(content)


def bomb(path: Path, parts: Parts) -> None:
    """A gigabyte of zeros where the manifest says what was there."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(entry("manifest.json"), parts["manifest.json"])
        with file.open("database", "w", force_zip64=True) as into:
            for _ in range(256):
                into.write(bytes(1 << 20))


def short(path: Path, parts: Parts) -> None:
    """Of the size that the manifest says in the list, and much larger in truth."""
    large = parts["database"] + bytes(50 << 20)
    packed(path, {**parts, "database": large})
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\1\2")
    struct.pack_into("<I", content, at + 24, len(parts["database"]))
    path.write_bytes(content)


def cut(path: Path, parts: Parts, share: float) -> None:
    packed(path, parts)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_damaged_or_hostile_is_refused_and_changes_nothing(
    place: Any, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "RESERVE_BYTES", 0)
    data = place.origin.data_dir
    before, parts, path = tree(data), parts_of(backup), tmp_path / "hostile" / "backup.zip"
    path.parent.mkdir()
    others = {name for name in os.listdir(tmp_path) if name != "hostile"}
    taken = []
    for what, write in hostile(path, parts):
        path.unlink(missing_ok=True)
        write()
        try:
            restore(place.origin, path, going_on)
        except Unavailable as error:
            if "fix" not in error.details:
                taken.append(f"{what}: refused without a word on what to do")
        else:
            taken.append(what)
    assert taken == []
    assert tree(data) == before
    assert {name for name in os.listdir(tmp_path) if name != "hostile"} == others


def test_every_damaged_byte_is_noticed(place: Any, backup: Path, tmp_path: Path) -> None:
    """Of a sample: in what a restore reads there is none that may be another."""
    content, path = backup.read_bytes(), tmp_path / "damaged.zip"
    before = tree(place.origin.data_dir)
    for at in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            report = restore(place.origin, path, going_on, dry_run=True).report
        except Unavailable:
            continue
        assert report.counts == archive_counts(backup), at
    assert tree(place.origin.data_dir) == before


def archive_counts(backup: Path) -> dict[str, int]:
    with archive.opened(backup) as found:
        return found.manifest.counts


def test_a_half_backup_is_not_listed_and_a_damaged_one_says_so(place: Any, backup: Path) -> None:
    half = backup.with_name(f".{backup.name}.partial")
    half.write_bytes(backup.read_bytes()[:100])
    damaged = backup.with_name("kandev-20260101T000000Z.zip")
    damaged.write_bytes(backup.read_bytes()[:100])
    found = {each.path.name: each.problem is None for each in backups(backup.parent)}
    assert found == {backup.name: True, damaged.name: False}
    make(place.origin, backup.parent, going_on)
    assert not half.exists()
