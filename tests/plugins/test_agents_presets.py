"""The presets as data; that they really keep an agent asking is tested with the agents themselves (tests/agents)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest

import kandev_agents
import kandev_bwrap
import kandev_unjailed
from kandev_agents.presets import PRESETS
from kandev_host import AgentType, Environment
from kandev_host.models import AgentInstance, Task
from kandev_host.services.launches import process_spec

ROOT = Path(__file__).parents[2]
NAMES = {
    "demo", "opencode", "claude", "codex", "codex-zed", "gemini", "auggie-cli", "qwen", "vibe", "deepagents",
}  # fmt: skip
every_preset = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
released_presets = pytest.mark.parametrize(
    "preset", [preset for preset in PRESETS if preset.name != "demo"], ids=lambda preset: preset.name
)


def launch(agent_type: str) -> tuple[AgentInstance, Task]:
    task = Task(board_id="b", title="t", description="", created_by="u")
    return AgentInstance(task_id=task.id, agent_type=agent_type, runtime="bwrap"), task


def test_the_plugin_brings_these_agents_each_once() -> None:
    names = [preset.name for preset in kandev_agents.kandev_agent_types()]
    assert (set(names), len(names)) == (NAMES, len(NAMES))


@every_preset
def test_a_preset_says_what_it_is_and_what_it_can(preset: AgentType) -> None:
    assert preset.title
    assert len(preset.description) > 20
    assert "edit" in preset.capabilities


@every_preset
def test_no_preset_has_a_network_or_a_login_before_the_user_says_so(preset: AgentType) -> None:
    assert (preset.network, preset.allow, preset.share_login) == ("none", (), ())


@released_presets
def test_a_released_agent_says_how_to_install_it_and_what_it_must_reach(preset: AgentType) -> None:
    assert preset.install_hint is not None
    assert re.match(r"(npm install -g|uv tool install) \S+", preset.install_hint)
    assert preset.hosts
    assert all(re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host) for host in preset.hosts)


@released_presets
def test_a_key_comes_from_the_users_environment_and_never_from_a_preset(preset: AgentType) -> None:
    wanted = (*preset.env_required, *preset.env_optional)
    assert wanted
    assert len(set(wanted)) == len(wanted)
    assert not set(wanted) & set(preset.env)
    assert not any(re.search("KEY|TOKEN|SECRET", name) for name in preset.env)


@every_preset
def test_files_lie_in_the_private_home_and_are_what_their_suffix_says(preset: AgentType) -> None:
    for path, content in preset.files.items():
        assert not PurePosixPath(path).is_absolute()
        assert ".." not in PurePosixPath(path).parts
        assert {".json": json.loads, ".toml": tomllib.loads}[PurePosixPath(path).suffix](content)


@every_preset
def test_a_login_is_shared_by_files_below_the_home_only(preset: AgentType) -> None:
    for path in preset.login_files:
        assert not PurePosixPath(path).is_absolute()
        assert ".." not in PurePosixPath(path).parts


@pytest.mark.parametrize(
    ("name", "mode"),
    [("claude", "default"), ("codex", "read-only"), ("gemini", "default"), ("qwen", "default"), ("vibe", "ask")],
)
def test_an_agent_with_modes_is_put_into_one_that_asks(name: str, mode: str) -> None:
    assert next(preset for preset in PRESETS if preset.name == name).mode == mode


def test_the_demo_brings_its_own_folder_into_the_place() -> None:
    extras = kandev_agents.kandev_prepare_launch(*launch("demo"))
    assert extras is not None
    (mount,) = extras.mounts
    assert (mount.source, mount.read_only) == (mount.target, True)
    assert Path(mount.source, "__main__.py").is_file()


def test_other_agents_get_nothing_more() -> None:
    assert kandev_agents.kandev_prepare_launch(*launch("claude")) is None


def test_the_demo_imports_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import demo.agent; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT / "plugins/kandev_agents")]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert set(loaded) - sys.stdlib_module_names <= {"__main__", "demo"}


def test_the_demo_says_what_it_is_where_there_is_no_client() -> None:
    done = subprocess.run(PRESETS[0].command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "This is an ACP agent: a client starts it, with pipes as its stdin and stdout.\n"


def test_the_page_of_agents_names_every_preset() -> None:
    page = (ROOT / "docs/agents.md").read_text()
    assert [name for name in sorted(NAMES) if f"| `{name}` |" not in page] == []


@pytest.mark.anyio
@pytest.mark.parametrize("runtime_name", ["bwrap", "host"])
async def test_the_demo_answers_in_the_place_where_it_is_started(tmp_path: Path, runtime_name: str) -> None:
    environment = Environment(str(tmp_path / "data"), "0")
    opened = (
        kandev_bwrap.open_runtime(kandev_bwrap.BwrapSettings(), environment)
        if runtime_name == "bwrap"
        else kandev_unjailed.open_runtime(kandev_unjailed.HostSettings(i_understand_there_is_no_jail=True), environment)
    )
    agent, task = launch("demo")
    spec = process_spec(PRESETS[0], agent, task, [kandev_agents.kandev_prepare_launch])
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}
    async with opened as runtime:
        await runtime.prepare(task.id)
        done = await runtime.run(spec, stdin=json.dumps(request).encode() + b"\n")
    assert (done.exit_code, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["result"]["agentInfo"]["name"] == "kandev-demo-agent"
