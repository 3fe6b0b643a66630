"""What becomes of a host's telemetry when its receiver is no use; and what leaves the host at all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from kandev_host import LogLine, secrets
from kandev_host.errors import StartupError
from kandev_host.log_lines import sent_to
from kandev_host.telemetry import FanOut
from kandev_host.tracing import read_context
from kandev_otel import OtelSettings
from kandev_otel.pipeline import Otel, opened

from .otlp import Receiver

pytestmark = pytest.mark.anyio
CANARY = "canary-otel-77aa31bd"
PARENT = read_context("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
DEADLINE_S = 60.0


def settings(url: str, **more: Any) -> OtelSettings:
    given = {"endpoint": url, "interval_s": 0.05, "metrics_interval_s": 0.05, "timeout_s": 600.0, **more}
    return msgspec.convert(given, OtelSettings)


async def everything(otel: Otel) -> None:
    """Of each signal something, more than any queue holds."""
    assert otel.tracer is not None
    for number in range(3000):
        otel.tracer.start("commit", "internal", {"number": number}, PARENT, ()).end(None)
        otel.count("kandev_tasks_created_total", 1, {})
        otel.log(LogLine(1.0, logging.WARNING, "kandev_host.x", "a line", {}))
    await anyio.lowlevel.checkpoint()


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the plugin told the host's log."""
    told: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    log = logging.getLogger("kandev_otel")
    monkeypatch.setattr(log, "handlers", [Kept()])
    monkeypatch.setattr(log, "propagate", False)
    return told


async def until(what: Callable[[], Any]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not what():
            await anyio.sleep(0.02)


@pytest.mark.parametrize("state", [{"status": 500}, {"hangs": True}, {"status": 302}], ids=["500", "hangs", "302"])
async def test_a_receiver_that_is_no_use_holds_up_neither_the_work_nor_the_end(
    state: dict[str, Any], warnings: list[str]
) -> None:
    with Receiver(**state) as receiver, anyio.fail_after(DEADLINE_S):
        async with opened(settings(receiver.url), "1") as otel:
            await everything(otel)
            await until(lambda: receiver.asked >= 3)
    assert receiver.bodies == []
    assert len(warnings) <= 1
    assert "hangs" in state or state["status"] == 302 or "does not take what it is sent" in warnings[0]


async def test_a_receiver_that_is_not_there_is_told_of_once(warnings: list[str]) -> None:
    with Receiver() as gone:
        pass
    with anyio.fail_after(DEADLINE_S):
        async with opened(settings(gone.url, timeout_s=0.1), "1") as otel:
            await everything(otel)
            await until(lambda: warnings)
            await everything(otel)
    assert len(warnings) == 1


async def test_what_was_done_last_is_sent_before_the_end() -> None:
    with Receiver() as receiver:
        async with opened(settings(receiver.url, interval_s=600.0, metrics_interval_s=600.0), "1") as otel:
            assert otel.tracer is not None
            otel.tracer.start("last", "server", {}, None, ()).end("BUSY")
            otel.observe("kandev_turn_duration_seconds", 2.5, {"outcome": "ended"})
            otel.log(LogLine(1.0, logging.ERROR, "kandev_host.x", "the last line", {"task_id": "t"}))
        assert [(span.name, span.error) for span in receiver.spans] == [("last", "BUSY")]
        assert [(line.message, line.level, line.attributes) for line in receiver.lines] == [
            ("the last line", "ERROR", {"kandev.task.id": "t"})
        ]
        assert receiver.metrics["kandev_turn_duration_seconds"].histogram.data_points[0].sum == 2.5


async def test_only_the_signals_of_the_settings_are_sent() -> None:
    with Receiver() as receiver:
        async with opened(settings(receiver.url, signals=["metrics"]), "1") as otel:
            assert (otel.tracer, otel.takes_log) == (None, False)
            otel.count("kandev_tasks_created_total", 1, {})
        assert set(receiver.metrics) == {"kandev_tasks_created_total"}
        assert (receiver.spans, receiver.lines) == ([], [])


async def test_an_unsampled_trace_is_not_sent_and_says_so_to_those_below() -> None:
    with Receiver() as receiver:
        async with opened(settings(receiver.url, sampled_ratio=0.0), "1") as otel:
            assert otel.tracer is not None
            span = otel.tracer.start("one", "server", {}, None, ())
            below = otel.tracer.start("two", "internal", {}, span.context, ())
            assert span.context.traceparent[-3:] == below.context.traceparent[-3:] == "-00"
            below.end(None)
            span.end(None)
            otel.tracer.start("theirs", "server", {}, PARENT, ()).end(None)
        assert [span.name for span in receiver.spans] == ["theirs"]


async def test_known_secrets_and_tokens_stay_here_and_the_sending_does_not_speak_of_itself() -> None:
    log = logging.getLogger("kandev_host.test")
    with secrets.in_use(), Receiver() as receiver:
        secrets.register(CANARY, "for this test")
        async with opened(settings(receiver.url), "1") as otel:
            with sent_to(FanOut([otel])):
                try:
                    raise ValueError(CANARY)
                except ValueError:
                    log.exception("with %s and Bearer %s", CANARY, "abcdefgh12345678")
                logging.getLogger("urllib3.connectionpool").warning("posted")
                logging.getLogger("kandev_otel.quiet").warning("not taken")
            log.warning("after the end")
            assert otel.tracer is not None
            otel.tracer.start("one", "internal", {"kandev.x": f"a {CANARY}"}, None, ()).end(None)
        (line,) = receiver.lines
        assert line.message == "with [redacted] and Bearer [redacted]"
        assert line.attributes["exception.type"] == "ValueError"
        assert "raise ValueError" in line.attributes["exception.stacktrace"]
        assert receiver.spans[0].attributes == {"kandev.x": "a [redacted]"}
        assert not [body for body in receiver.bodies if CANARY.encode() in body]


async def test_a_header_says_where_its_secret_is_and_the_secret_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(f"Bearer {CANARY}\n")
    with secrets.in_use(), Receiver() as receiver:
        headers = {"authorization": f"file:{file}"}
        async with opened(settings(receiver.url, headers=headers), "1") as otel:
            otel.count("kandev_tasks_created_total", 1, {})
            assert secrets.known.clean_text(f"it said {CANARY}") == "it said [redacted]"
        assert receiver.headers[0]["authorization"] == f"Bearer {CANARY}"
        monkeypatch.delenv("OTEL_TEST_KEY", raising=False)
        with pytest.raises(StartupError, match=r"headers\.x-key: OTEL_TEST_KEY holds no value"):
            async with opened(settings(receiver.url, headers={"x-key": "env:OTEL_TEST_KEY"}), "1"):
                pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {"x-key": "the-secret-itself"}},
        {"headers": {"x key": "env:X"}},
        {"endpoint": "127.0.0.1:4318"},
        {"endpoint": "http://me:secret@127.0.0.1:4318"},
        {"sampled_ratio": 1.5},
        {"signals": ["profiles"]},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, OtelSettings)
