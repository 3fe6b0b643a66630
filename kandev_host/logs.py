"""The host's own log: stdlib logging, rendered by structlog as text or as JSON lines.

Module loggers everywhere (`log.info("…", …)`); ids come from context variables (`log_ids`). Tokens are cut out here,
should one ever reach a message, and so is every secret that is known (`secrets`), of the traceback as well; control
characters are escaped.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kandev_host.errors import SettingsError
from kandev_host.log_files import LogFile
from kandev_host.log_ids import current
from kandev_host.printable import printable
from kandev_host.secrets import known
from kandev_host.settings import LogSettings

if TYPE_CHECKING:
    import structlog

_TOKEN = re.compile(r"(?i)(bearer[ .]|token[=:\"' ]+|#login=)[A-Za-z0-9._~+/=-]{8,}")


@contextmanager
def logging_to(settings: LogSettings) -> Iterator[None]:
    """Log as the settings say until the block ends. Raises `SettingsError` if the file cannot be opened."""
    with _handler(settings) as handler:
        root = logging.getLogger()
        before = (root.handlers[:], root.level)
        root.handlers[:] = [handler]
        root.setLevel(settings.level.upper())
        # One line per request would hold paths and peers, and nothing that the actions' own logs lack.
        logging.getLogger("aiohttp.access").disabled = True
        try:
            yield
        finally:
            root.handlers[:], root.level = before[0], before[1]


class _AtFirstRecord(logging.Formatter):
    """`formatter`, made when there is something to render: structlog brings rich, together a tenth of the host's start
    and 4 MiB, and a start that goes well logs nothing.
    """

    def __init__(self, style: str, colors: bool) -> None:
        super().__init__()
        self._kind = style
        self._colors = colors

    @cached_property
    def _rendering(self) -> logging.Formatter:
        return formatter(self._kind, colors=self._colors)

    def format(self, record: logging.LogRecord) -> str:
        line = self._rendering.format(record)
        clean = known.clean_text(line)
        if clean == line or self._kind != "json":
            return clean
        return known.clean_json(line.encode("utf-8", "surrogatepass")).decode()


def formatter(style: str, *, colors: bool = False) -> logging.Formatter:
    """What turns a record into one line (text: followed by a traceback if there is one)."""
    import structlog

    shared: list[structlog.typing.Processor] = [
        _with_ids,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_tokens,
    ]
    ends: list[structlog.typing.Processor]
    if style == "json":
        ends = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        ends = [_printable, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, pad_event_to=0)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ends]
    )


def log_path(settings: LogSettings) -> Path | None:
    """The file that the host logs to; None where that is a stream."""
    return None if settings.path in (None, "stderr", "stdout") else Path(str(settings.path)).expanduser()


@contextmanager
def _handler(settings: LogSettings) -> Iterator[logging.Handler]:
    path = log_path(settings)
    if path is None:
        stream = sys.stdout if settings.path == "stdout" else sys.stderr
        handler: logging.Handler = logging.StreamHandler(stream)
        handler.setFormatter(_AtFirstRecord(settings.format, stream.isatty()))
        yield handler
        return
    try:
        handler = LogFile(path, settings.rotate_bytes, settings.rotated_files)
    except OSError as error:
        raise SettingsError(f"cannot write the log file {path}: {error.strerror}; see log.path") from error
    handler.setFormatter(_AtFirstRecord(settings.format, colors=False))
    try:
        yield handler
    finally:
        handler.close()


def _with_ids(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**current(), **event}


def without_tokens(text: str) -> str:
    """Without what looks like a token by the words before it."""
    return _TOKEN.sub(r"\1[redacted]", text)


def _without_tokens(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and _TOKEN.search(value):
            event[key] = without_tokens(value)
    return event


def _printable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["event"] = printable(str(event.get("event", "")), lines=True)
    return event
