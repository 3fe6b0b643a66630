"""The main job on real input: a released agent in a container, offline. It and others in jails: tests/agents."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..agents.conftest import Host, fake_models, models, programs, repository  # noqa: F401
from ..agents.released import FILE, TEXT, released
from ..agents.runs import running
from .conftest import LEAN_S, give_image
from .dockerd import Dockerd

IMAGE = "kandev-opencode"
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(LEAN_S + 300),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the agent's program is one for x86-64"),
]


@pytest.fixture
def host(dockerd: Dockerd, programs: Path, models: Any, tmp_path: Path) -> Iterator[Host]:  # noqa: F811
    program = programs.parent / "opencode-linux-x64-baseline/bin/opencode"
    give_image(dockerd.socket, IMAGE, {program: "/usr/local/bin/opencode"})
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"http://{models.address}/v1", "apiKey": "fake"},
        "models": {"m": {"name": "m", "limit": {"context": 200000, "output": 8000}}},
    }
    config = {"model": "fake/m", "small_model": "fake/m", "provider": {"fake": provider}}
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "config.toml").write_text(f"""
        [use]
        runtime = "docker"
        [runtime.docker]
        socket = "{dockerd.socket}"
        pull = "never"
        [session]
        initialize_timeout_s = 120.0
        request_timeout_s = 120.0
        [agents.opencode]
        command = ["/usr/local/bin/opencode", "acp"]
        image = "{IMAGE}"
        allow = ["{models.address}"]
        env = {{ OPENCODE_DISABLE_MODELS_FETCH = "1" }}
        [agents.opencode.files]
        ".config/opencode/opencode.json" = '{json.dumps(config)}'
    """)
    host = Host(data)
    host.start()
    yield host
    host.end()


async def test_a_released_agent_writes_what_it_was_allowed_to(
    host: Host,
    fake_models: Any,  # noqa: F811
    repository: Callable[..., Path],  # noqa: F811
) -> None:
    agent, project = released("opencode"), repository()
    async with running(host) as run:
        await run.start(agent, project, fake_models.script(*agent.steps()))
        result = await run.allow()
        diff = await run.diff()
        status = await run.client.call("agent.status", {"agent_id": run.agent_id})
    assert (result["stop_reason"], "MODEL-DONE" in result["summary"]) == ("end_turn", True)
    assert f"+{TEXT}" in diff["diff"]
    assert [file["path"] for file in diff["files"]] == [FILE]
    assert not (project / FILE).exists()
    assert status["agent"]["runtime"] == "docker"
    assert [turn["state"] for turn in run.rows("turns")] == ["ended"]
