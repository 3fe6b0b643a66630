"""How far the pull of an image has come, on a terminal and off it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from rich.console import Console

from kandev_host.cli import pulls
from kandev_host.cli.running.view import TerminalView
from kandev_host.cli.shell import opening
from kandev_host.client import ClientError
from kandev_host.interfaces import Pull

IMAGE = "ghcr.io/team/agent:2"


def pull(megabytes: int, state: Any = "pulling", done: int = 0) -> Pull:
    sizes = {"bytes_done": megabytes * 1_000_000, "bytes_total": 80_000_000}
    return Pull(image=IMAGE, state=state, layers_done=done, layers_total=3, **sizes)


def test_a_run_shows_the_beginning_each_quarter_and_the_end_once() -> None:
    out = io.StringIO()
    view = TerminalView(Console(file=out, markup=False, highlight=False, width=200))
    steps = [Pull(image=IMAGE, state="pulling"), *map(pull, (1, 5, 19, 21, 30, 45, 70)), pull(80, "pulled", 3)]
    for step in (*steps, pull(80, "failed")):
        payload = {name: getattr(step, name) for name in ("image", "state", "layers_done", "layers_total")}
        payload |= {"bytes_done": step.bytes_done, "bytes_total": step.bytes_total, "task_id": "t"}
        view.notification({"action": "image.pulling", "payload": payload})
    assert out.getvalue().splitlines() == [
        f"  image {IMAGE} pulling: asking its registry",
        f"  image {IMAGE} pulling: 0 of 3 layers, 21 of 80 MB",
        f"  image {IMAGE} pulling: 0 of 3 layers, 45 of 80 MB",
        f"  image {IMAGE} pulling: 0 of 3 layers, 70 of 80 MB",
        f"  image {IMAGE} pulled: 3 of 3 layers, 80 of 80 MB",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_drawn_over_on_a_terminal_alone(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    bar = pulls.Bar(as_json=False)
    for step in (pull(1), pull(2), pull(80, "pulled", 3)):
        bar.tell(step)
    bar.end()
    told = capsys.readouterr().err
    if terminal:
        assert told.count("\r") == 3
        assert told.endswith("80 of 80 MB\033[K\n")
    else:
        first, last = f"{IMAGE}: 0 of 3 layers, 1 of 80 MB", f"{IMAGE}: 3 of 3 layers, 80 of 80 MB"
        assert told.splitlines() == [first, last]  # the one between them came too soon


def test_with_json_each_step_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    bar = pulls.Bar(as_json=True)
    bar.tell(pull(1))
    bar.end()
    assert json.loads(capsys.readouterr().err)["bytes_done"] == 1_000_000


class Slow:
    """A host that tells of a pull, if of any, and answers after a second and a half."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *told: Pull) -> None:
        self._monkeypatch = monkeypatch
        self._told = told

    async def call(self, _action: str, _payload: Any, _timeout_s: float) -> Any:
        await anyio.sleep(1.5)
        return {"opened": True}

    async def leading(self, _action: str) -> AsyncIterator[Any]:
        for each in self._told:
            self._monkeypatch.setattr(opening, "QUIET_S", 1000.0)  # from now on
            payload = {name: getattr(each, name) for name in Pull.__struct_fields__ if name != "labels"}
            yield SimpleNamespace(payload=payload | {"shell_id": "s"})
        await anyio.sleep_forever()


@pytest.mark.anyio
async def test_what_waits_for_a_pull_is_waited_for_as_long_as_that_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening, "QUIET_S", 1.0)
    silent: Any = Slow(monkeypatch)
    with pytest.raises(ClientError, match=r"No answer to shell.open within 1 s"):
        await opening.call_through(silent, "shell.open", {}, pulls.Bar(as_json=False))
    telling: Any = Slow(monkeypatch, pull(1))
    assert await opening.call_through(telling, "shell.open", {}, pulls.Bar(as_json=False)) == {"opened": True}
    assert capsys.readouterr().err == f"{IMAGE}: 0 of 3 layers, 1 of 80 MB\n"
