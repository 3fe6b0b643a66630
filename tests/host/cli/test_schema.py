"""`kandev-host schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_it_prints_one_asyncapi_document_and_needs_no_host(kandev: Any, tmp_path: Path) -> None:
    done = kandev("schema")
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["asyncapi"] == "3.0.0"
    assert not (tmp_path / "data").exists()


def test_it_prints_the_same_bytes_each_time(kandev: Any) -> None:
    assert kandev("schema").out == kandev("schema").out


def test_address_and_limits_are_those_of_the_settings(kandev: Any) -> None:
    env = {"KANDEV_SERVER__PORT": "9123", "KANDEV_GATEWAY__SOCKETS_TOTAL": "7"}
    schema = json.loads(kandev("schema", **env).out)
    assert schema["servers"]["host"]["host"] == "127.0.0.1:9123"
    assert schema["x-limits"]["sockets_total"] == 7


def test_it_writes_a_file(kandev: Any, tmp_path: Path) -> None:
    done = kandev("schema", "--output", "kandev.json")
    assert (done.status, done.out) == (0, "")
    assert (tmp_path / "kandev.json").read_text() == kandev("schema").out


def test_a_file_that_cannot_be_written_is_one_line(kandev: Any) -> None:
    done = kandev("schema", "--output", "nowhere/kandev.json")
    assert done.status == 1
    assert done.err.splitlines() == ["kandev-host: cannot write nowhere/kandev.json: No such file or directory"]


def test_its_help_has_examples(kandev: Any) -> None:
    assert "kandev-host schema > " in kandev("schema", "--help").out
