"""Typed requests: held to the table of actions, and to what a type checker makes of them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from kandev_host.protocol.actions import ACTIONS

ROOT = Path(__file__).resolve().parents[3]
USER = """
from kandev_host.client import Client, ReconnectingClient
from kandev_host.protocol.actions.agents import AgentLaunch
from kandev_host.protocol.actions.tasks import TaskGet

async def use(client: Client, other: ReconnectingClient) -> None:
    reveal_type(await client.request(TaskGet(task_id="t")))
    reveal_type((await other.request(AgentLaunch(task_id="t"))).agent.status)
    await client.request({"task_id": "t"})
"""


def test_the_overloads_are_those_of_the_table_of_actions() -> None:
    spec = importlib.util.spec_from_file_location("generate_client", ROOT / "docs/generate_client.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    module = generator.MODULE.read_text()
    assert generator.generated(module) == module, "run: python docs/generate_client.py"


def test_every_action_has_a_request_type_of_its_own() -> None:
    counts = Counter(shape.request for shape in ACTIONS.values())
    assert {request.__name__ for request, count in counts.items() if count > 1} == set()


@pytest.mark.timeout(300)
def test_a_strict_type_checker_knows_the_type_of_every_answer(tmp_path: Path) -> None:
    user = tmp_path / "user.py"
    user.write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "c")]
    done = subprocess.run(
        [*command, "--config-file=", str(user)], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert 'Revealed type is "kandev_host.protocol.actions.tasks.TaskReply"' in done.stdout
    assert "Literal['PENDING'" in done.stdout
    assert "No overload variant" in done.stdout
    assert "Found 1 error" in done.stdout
