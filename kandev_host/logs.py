"""The host's own log: stdlib logging, as lines of text or of JSON.

Module loggers everywhere (`log.info("…", …)`); ids come from context variables (`log_ids`). Tokens are cut out here,
should one ever reach a message, and so is every secret that is known (`secrets`), of the traceback as well; control
characters are escaped.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from kandev_host.errors import SettingsError
from kandev_host.log_files import LogFile
from kandev_host.log_ids import current
from kandev_host.printable import printable
from kandev_host.secrets import known
from kandev_host.settings import LogSettings

_TOKEN = re.compile(r"(?i)(bearer[ .]|token[=:\"' ]+|#login=)[A-Za-z0-9._~+/=-]{8,}")
_COLORS = {"critical": "\x1b[31m", "error": "\x1b[31m", "warning": "\x1b[33m", "info": "\x1b[32m"}
# What `up` itself says on a terminal, where the host begins and ends; and what is there to be compared later.
_TERMINAL_HAS = ("kandev_host.host", "kandev_host.audit.head")


@contextmanager
def logging_to(settings: LogSettings, *, serving: bool = False) -> Iterator[None]:
    """Log as the settings say until the block ends. Raises `SettingsError` if the file cannot be opened.

    Of a command that is not `serving`, a stream that has its own answers gets what is wrong, and not how it goes on.
    """
    with _handler(settings) as handler:
        root = logging.getLogger()
        before = (root.handlers[:], root.level)
        root.handlers[:] = [handler]
        quiet = settings.level == "info" and log_path(settings) is None and not serving
        root.setLevel("WARNING" if quiet else settings.level.upper())
        # One line per request would hold paths and peers, and nothing that the actions' own logs lack.
        logging.getLogger("aiohttp.access").disabled = True
        try:
            yield
        finally:
            root.handlers[:], root.level = before[0], before[1]


class Lines(logging.Formatter):
    """Renders a record as one line (in text a traceback follows it), without tokens and known secrets."""

    def __init__(self, style: str, *, colors: bool = False) -> None:
        super().__init__()
        self._is_json = style == "json"
        self._colors = colors

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
        told = without_tokens(record.getMessage())
        fields = {"timestamp": f"{at}Z", "level": record.levelname.lower(), "event": told, "logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = without_tokens("".join(traceback.format_exception(*record.exc_info)).rstrip())
        ids = {name: without_tokens(value) for name, value in current().items()}
        if not self._is_json:
            return known.clean_text(text_of(fields, ids, colors=self._colors))
        line = json.dumps({**ids, **fields})
        # Where there is something to clean, it is taken out of the values, so that it stays JSON.
        return line if known.clean_text(line) == line else known.clean_json(line.encode()).decode()


def text_of(fields: Mapping[str, str], ids: Mapping[str, str], *, colors: bool = False) -> str:
    """The line as people read it."""
    level = fields["level"]
    shade, of_level, plain = ("\x1b[2m", _COLORS.get(level, ""), "\x1b[0m") if colors else ("", "", "")
    more = "".join(f" {name}={value}" for name, value in sorted(ids.items()))
    told = printable(fields["event"], lines=True)
    line = f"{shade}{fields['timestamp']}{plain} [{of_level}{level:9}{plain}] {told}"
    trace = printable(f"\n{fields['exception']}", lines=True) if "exception" in fields else ""
    return f"{line} {shade}[{fields['logger']}]{more}{plain}{trace}"


def log_path(settings: LogSettings) -> Path | None:
    """The file that the host logs to; None where that is a stream."""
    return None if settings.path in (None, "stderr", "stdout") else Path(str(settings.path)).expanduser()


@contextmanager
def _handler(settings: LogSettings) -> Iterator[logging.Handler]:
    path = log_path(settings)
    if path is None:
        stream = sys.stdout if settings.path == "stdout" else sys.stderr
        handler: logging.Handler = logging.StreamHandler(stream)
        handler.setFormatter(Lines(settings.format, colors=stream.isatty()))
        if stream.isatty():
            handler.addFilter(_is_new_to_a_terminal)
        yield handler
        return
    try:
        handler = LogFile(path, settings.rotate_bytes, settings.rotated_files)
    except OSError as error:
        raise SettingsError(f"cannot write the log file {path}: {error.strerror}; see log.path") from error
    handler.setFormatter(Lines(settings.format))
    try:
        yield handler
    finally:
        handler.close()


def without_tokens(text: str) -> str:
    """Without what looks like a token by the words before it."""
    return _TOKEN.sub(r"\1[redacted]", text)


def _is_new_to_a_terminal(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or record.name not in _TERMINAL_HAS
