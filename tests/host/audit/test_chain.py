"""Whatever is done to the rows of the audit without the key is found, and the first bad row is named."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kandev_host.audit.key import Head
from kandev_host.audit.log import BEGAN, OTHER_KEY
from kandev_host.audit.verify import Problem, Verdict, Verifier
from kandev_host.models import AuditRow, chained, key_id_of

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
START = datetime(2026, 1, 31, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "id": "another", "created_at": START - timedelta(days=1), "kind": "host", "action": "other", "outcome": "failed",
    "actor": "mallory", "actor_kind": "agent", "actor_name": "M", "address": "10.0.0.1", "board_id": "b9",
    "task_id": "t9", "agent_id": "a9", "details": {"n": -1},
}  # fmt: skip


def chain(length: int, key: bytes = KEY, behind: Sequence[AuditRow] = ()) -> list[AuditRow]:
    rows = list(behind)
    for n in range(length):
        row = AuditRow(kind="auth", action=f"test.{n}", created_at=START + timedelta(seconds=n), details={"n": n})
        seq, mac = (rows[-1].seq, rows[-1].mac) if rows else (0, "")
        rows.append(chained(row, key, seq=seq, mac=mac))
    return rows


def head_of(row: AuditRow, key: bytes = KEY) -> Head:
    return Head(seq=row.seq, mac=row.mac, journal_id="j", key_id=key_id_of(key)).signed(key)


def verdict(rows: Sequence[AuditRow], head: Head | None = None, *keys: bytes) -> Verdict:
    verifier = Verifier({key_id_of(key): key for key in keys or (KEY,)}, head)
    for row in rows:
        verifier.add(row)
    return verifier.verdict()


def first_bad(rows: Sequence[AuditRow], head: Head) -> int | None:
    problem = verdict(rows, head).problem
    return None if problem is None else problem.seq


lengths = st.integers(2, 9)


@given(lengths, st.data())
def test_a_changed_field_names_its_row(length: int, data: st.DataObject) -> None:
    rows = chain(length)
    head = head_of(rows[-1])
    assert first_bad(rows, head) is None
    at = data.draw(st.integers(0, length - 1))
    field = data.draw(st.sampled_from(sorted(FIELDS)))
    rows[at] = replace(rows[at], **{field: FIELDS[field]})
    assert first_bad(rows, head) == at + 1


@given(lengths, st.data())
def test_a_row_that_is_gone_is_named(length: int, data: st.DataObject) -> None:
    rows = chain(length)
    head = head_of(rows[-1])
    at = data.draw(st.integers(0, length - 1))
    del rows[at]
    assert first_bad(rows, head) == at + 1


@given(lengths, st.data())
def test_rows_that_were_exchanged_are_found_at_the_first(length: int, data: st.DataObject) -> None:
    rows = chain(length)
    head = head_of(rows[-1])
    one, other = sorted(data.draw(st.lists(st.integers(0, length - 1), min_size=2, max_size=2, unique=True)))
    if data.draw(st.booleans()):  # all of them but their numbers, or also those
        rows[one], rows[other] = replace(rows[other], seq=rows[one].seq), replace(rows[one], seq=rows[other].seq)
        assert first_bad(rows, head) == one + 1
    else:
        rows[one], rows[other] = rows[other], rows[one]
        assert first_bad(rows, head) == one + 1


@given(lengths, st.data())
def test_a_row_that_was_put_in_is_named(length: int, data: st.DataObject) -> None:
    rows = chain(length)
    head = head_of(rows[-1])
    at = data.draw(st.integers(0, length))
    before = rows[at - 1].mac if at else ""
    forged = chained(AuditRow(kind="host", action="forged"), OTHER, seq=at, mac=before)
    # With its own number, and the others behind it renumbered, as far as that can be done without the key.
    key_id = data.draw(st.sampled_from([forged.key_id, key_id_of(KEY)]))
    later = [replace(row, seq=row.seq + 1) for row in rows[at:]]
    assert first_bad([*rows[:at], replace(forged, key_id=key_id), *later], head) == at + 1


@given(lengths, st.data())
def test_rows_that_are_missing_at_the_end_are_found_by_the_head(length: int, data: st.DataObject) -> None:
    rows = chain(length)
    left = data.draw(st.integers(0, length - 1))
    assert first_bad(rows[:left], head_of(rows[-1])) == left + 1
    assert verdict(rows[:left]).problem is None  # nothing else tells of them


@given(lengths, st.data())
def test_a_chain_that_was_made_anew_is_not_the_one_that_was_there(length: int, data: st.DataObject) -> None:
    rows = chain(length)
    at = data.draw(st.integers(0, length - 1))
    again = chain(length - at, OTHER, rows[:at])
    assert first_bad(again, head_of(rows[-1])) == at + 1


def test_rows_that_need_a_head_are_not_whole_without() -> None:
    verifier = Verifier({key_id_of(KEY): KEY}, needs_head=True)
    problems = [verifier.verdict().problem]  # all of them may have been taken away
    for row in chain(3):
        verifier.add(row)
    problems.append(verifier.verdict().problem)
    assert [problem and problem.seq for problem in problems] == [1, 4]


def test_a_head_that_was_not_signed_with_the_key_is_none() -> None:
    rows = chain(3)
    assert first_bad(rows[:2], head_of(rows[1], OTHER)) == 2
    assert first_bad(rows[:2], replace(head_of(rows[2]), seq=2, mac=rows[1].mac)) == 2


def begun(rows: Sequence[AuditRow], key: bytes) -> list[AuditRow]:
    details = {"why": OTHER_KEY, "after_seq": rows[-1].seq, "after_mac": rows[-1].mac}
    mark = AuditRow(kind="audit", action=BEGAN, details=details)
    return [*rows, chained(mark, key, seq=rows[-1].seq, mac=rows[-1].mac)]


def test_rows_of_another_key_are_named_as_unchecked_and_hold_with_it() -> None:
    rows = chain(2, KEY, begun(chain(3, OTHER), KEY))
    head = head_of(rows[-1])
    without, both = verdict(rows, head), verdict(rows, head, KEY, OTHER)
    assert (without.problem, without.unchecked) == (None, ((1, 3, key_id_of(OTHER)),))
    assert (both.problem, both.unchecked) == (None, ())
    assert [mark["seq"] for mark in both.marks] == [4]
    changed = [replace(rows[0], outcome="changed"), *rows[1:]]
    assert verdict(changed, head, KEY, OTHER).problem == Problem(seq=1, why="it was changed, or made without the key")


def test_rows_of_another_key_without_a_word_about_it_are_bad() -> None:
    assert first_bad(chain(2, KEY, chain(3, OTHER)), head_of(chain(5)[-1])) == 1
    rows = begun(chain(3, OTHER), KEY)
    rows[2] = replace(rows[2], mac="0" * 64)
    assert first_bad(rows, head_of(rows[-1])) == 4
