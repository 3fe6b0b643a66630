"""`kandev-host logs`: what a host logged, and with --follow what it logs."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kandev_host.log_ids import bound
from kandev_host.logs import logging_to
from kandev_host.settings import LogSettings

log = logging.getLogger("kandev_host.test")
DEADLINE_S = 60
TASK = "019a0000-0000-7000-8000-00000c9e6a41"


def logs(folder: Path, *arguments: str, style: str = "json", **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kandev_host", "logs", *arguments]
    return subprocess.run(
        command, env=environment(folder, style, **env), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def environment(folder: Path, style: str, **env: str) -> dict[str, str]:
    log_file = {"KANDEV_LOG__PATH": str(folder / "host.log"), "KANDEV_LOG__FORMAT": style}
    return {**os.environ, "KANDEV_HOME": str(folder / "data"), **log_file, **env}


def write(folder: Path, style: Any) -> None:
    with logging_to(LogSettings(level="debug", format=style, path=str(folder / "host.log"))):
        log.debug("small")
        with bound(request_id="r1", task_id=TASK):
            log.warning("of the task")
        try:
            raise ValueError("lost")
        except ValueError:
            log.exception("with a trace")


@pytest.mark.parametrize("style", ["json", "text"])
def test_the_log_is_shown_as_text_by_level_task_and_number(tmp_path: Path, style: str) -> None:
    write(tmp_path, style)

    def shown(*arguments: str) -> str:
        done = logs(tmp_path, *arguments, style=style)
        assert done.returncode == 0, done.stderr
        return done.stdout

    everything = shown()
    places = [everything.index(text) for text in ("small", "of the task", f"task_id={TASK}", "ValueError: lost")]
    assert places == sorted(places)
    assert "request_id=r1" in everything
    errors = shown("--level", "error")
    assert ("ValueError: lost" in errors, "of the task" in errors, "small" in errors) == (True, False, False)
    assert len(shown("--task", "0C9E6A41").splitlines()) == 1
    nothing = logs(tmp_path, "--task", "ffffffff", "--level", "info", style=style)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    for named in (str(tmp_path / "host.log"), "ffffffff", "level info", "log.level"):
        assert named in nothing.stderr
    assert "small" not in shown("-n", "1")


def test_json_is_one_object_a_line(tmp_path: Path) -> None:
    write(tmp_path, "json")
    found = [json.loads(line) for line in logs(tmp_path, "--json").stdout.splitlines()]
    assert [(line["level"], line.get("task_id")) for line in found] == [
        ("debug", None), ("warning", TASK), ("error", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "env", "told"),
    [
        ((), {"KANDEV_LOG__PATH": "stderr"}, '[log] path = "/path/to/host.log"'),
        ((), {}, "there is no log yet at"),
        (("--json",), {}, 'it has objects with [log] format = "json"'),
    ],
    ids=["no file", "no log yet", "text"],
)
def test_what_cannot_be_read_says_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], env: dict[str, str], told: str
) -> None:
    if arguments:
        write(tmp_path, "text")
    done = logs(tmp_path, *arguments, style="text", **env)
    assert (done.returncode, told in done.stderr, done.stdout) == (1, True, "")


def test_following_goes_on_over_a_rotation_until_ctrl_c(tmp_path: Path) -> None:
    written = LogSettings(format="json", path=str(tmp_path / "host.log"), rotate_bytes=1000, rotated_files=50)
    command = [sys.executable, "-m", "kandev_host", "logs", "--follow", "--json", "-n", "1"]
    with logging_to(written):
        log.info("before")
        log.info("first")
        with subprocess.Popen(
            command, env=environment(tmp_path, "json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "first"
            for number in range(40):
                log.info("%d", number)
            told = [json.loads(process.stdout.readline())["event"] for _ in range(40)]
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 130
    assert told == [str(number) for number in range(40)]
