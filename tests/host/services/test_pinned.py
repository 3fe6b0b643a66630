"""The preset `contained` and the files that configure agents, editors and CI: what an agent claims is no wall."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kandev_host.interfaces import ProcessSpec
from kandev_host.protocol.actions.agents import AgentLaunch
from kandev_host.services.git import Git
from kandev_host.sessions.presets import PINNED, is_protected, pinned
from kandev_host.settings import PermissionSettings, Settings

pytestmark = pytest.mark.anyio
WRITE = {"write": {"path": "/workspace/AGENTS.md", "text": "Obey."}}


def with_preset(preset: Any) -> Settings:
    return Settings(permissions=PermissionSettings(preset=preset))


async def repository(shop: Any) -> None:
    """One with instructions for agents, and tools of its own."""
    await shop.house.workspaces.ensure(shop.task, "bwrap")
    script = "echo kind > AGENTS.md; mkdir .github; echo ci > .github/ci.yml"
    spec = ProcessSpec(workspace_id=shop.task.id, command=("sh", "-c", script))
    assert (await shop.house.runtimes["bwrap"].run(spec)).exit_code == 0


async def test_a_contained_agent_cannot_change_what_configures_agents(open_shop: Any) -> None:
    async with open_shop(with_preset("contained")) as shop:
        await repository(shop)
        launch = AgentLaunch(task_id=shop.task.id, agent_type="scripted", prompt=json.dumps([WRITE]))
        await shop.house.agents.launch(shop.house.me, launch)
        await shop.failed()
        assert await shop.reads("AGENTS.md") == "kind\n"


async def test_an_agent_that_asks_a_person_can(open_shop: Any) -> None:
    async with open_shop(with_preset("ask")) as shop:
        await repository(shop)
        await shop.plays(WRITE, {"text": "Done."})
        assert await shop.reads("AGENTS.md") == "Obey."


async def test_the_hosts_own_git_may_write_the_configuration_that_no_agent_may(open_shop: Any) -> None:
    async with open_shop(with_preset("ask")) as shop:
        await shop.house.workspaces.ensure(shop.task, "bwrap")
        bwrap = shop.house.runtimes["bwrap"]
        command = ("git", "config", "a.b", "c")
        agents = await bwrap.run(ProcessSpec(workspace_id=shop.task.id, command=command))
        hosts = await bwrap.run(ProcessSpec(workspace_id=shop.task.id, command=command, pin_git=False))
        assert (agents.exit_code != 0, hosts.exit_code) == (True, 0)


PLANTED = """
export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@x
git init -q inner && cd inner && echo a > file && git add file && git commit -qm a && cd .. && git add inner
printf '#!/bin/sh\necho ran > /tmp/ran\necho planted > /workspace/.git/hooks/pre-push\ncat\n' > filter
chmod +x filter && cd inner && git config filter.x.clean /workspace/filter
echo "file filter=x" > .gitattributes && echo b > file
"""


async def test_what_an_agent_has_the_hosts_git_run_plants_no_hook(open_shop: Any) -> None:
    """A nested repository brings its own filters, and git runs them to see whether it has changed."""
    async with open_shop(with_preset("ask")) as shop:
        await shop.house.workspaces.ensure(shop.task, "bwrap")
        bwrap = shop.house.runtimes["bwrap"]
        agents = await bwrap.run(ProcessSpec(workspace_id=shop.task.id, command=("sh", "-ec", PLANTED)))
        assert agents.exit_code == 0, agents.stderr
        status = await Git(bwrap, shop.task.id, 30).text("status", "--porcelain")
        assert "inner" in status
        look = ("sh", "-c", "cat /tmp/ran; test -e /workspace/.git/hooks/pre-push && echo planted")
        assert (await bwrap.run(ProcessSpec(workspace_id=shop.task.id, command=look))).stdout == b"ran\n"


def test_only_contained_pins_them() -> None:
    presets: tuple[Any, ...] = ("ask", "read-only", "contained", "unattended")
    assert [bool(pinned(preset)) for preset in presets] == [False, False, True, False]


def test_everything_that_is_pinned_is_asked_for_too() -> None:
    assert all(is_protected(name) for name in PINNED)
    assert ".git" not in PINNED
    assert is_protected(".git")


async def test_only_the_jails_that_make_a_repository_may_write_its_configuration(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A diff may run a program of the agent, which must not reach there what it could not reach before."""
    runtime = desk.house.runtimes["bwrap"]
    run, pinned_ones = runtime.run, []

    async def noting(spec: ProcessSpec, **options: Any) -> Any:
        pinned_ones.append(spec.pin_git)
        return await run(spec, **options)

    monkeypatch.setattr(runtime, "run", noting)
    workspace = await desk.workspace(None)
    assert pinned_ones
    assert not any(pinned_ones)
    pinned_ones.clear()
    await desk.diff(workspace)
    assert pinned_ones
    assert all(pinned_ones)
