"""The host's own log, as it reaches a file."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from kandev_host.errors import SettingsError
from kandev_host.logs import logging_to
from kandev_host.settings import LogSettings

log = logging.getLogger("kandev_host.test")


def written(path: Path, settings: LogSettings, message: str, *values: object) -> str:
    with logging_to(settings):
        log.warning(message, *values)
    return path.read_text()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "host.log"


def test_json_has_one_object_a_line_with_level_logger_and_time(path: Path) -> None:
    line = json.loads(written(path, LogSettings(format="json", path=str(path)), "cut at %d", 7))
    assert (line["event"], line["level"], line["logger"]) == ("cut at 7", "warning", "kandev_host.test")
    assert line["timestamp"].endswith("Z")


def test_text_shows_the_message(path: Path) -> None:
    assert "cut at 7" in written(path, LogSettings(path=str(path)), "cut at %d", 7)


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_token_is_cut_out(path: Path, style: str) -> None:
    text = written(path, LogSettings(format=style, path=str(path)), "sent Bearer %s", "abcdefgh12345678")  # type: ignore[arg-type]
    assert "abcdefgh12345678" not in text
    assert "[redacted]" in text


def test_text_shows_control_characters_instead_of_obeying_them(path: Path) -> None:
    assert "\x1b[2J" not in written(path, LogSettings(path=str(path)), "agent said %s", "\x1b[2J")


def test_a_record_below_the_level_is_not_written(path: Path) -> None:
    with logging_to(LogSettings(level="error", path=str(path))):
        log.warning("too small")
    assert path.read_text() == ""


def test_the_level_comes_back_after_the_block(path: Path) -> None:
    before = logging.getLogger().level
    with logging_to(LogSettings(level="debug", path=str(path))):
        pass
    assert logging.getLogger().level == before


def test_a_file_that_cannot_be_opened_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"log\.path"), logging_to(LogSettings(path=str(tmp_path))):
        pass
