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
from kandev_host.models import AgentInstance, Limits, Task
from kandev_host.services.launches import merge_limits, process_spec
from kandev_sandbox import expand_allow

ROOT = Path(__file__).parents[2]
NAMES = {
    "demo", "opencode", "claude", "codex", "codex-zed", "gemini", "gemini-agent", "auggie-cli", "qwen", "vibe",
    "deepagents", "copilot", "cline", "kimi", "kilo", "openhands",
}  # fmt: skip
every_preset = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
released_presets = pytest.mark.parametrize(
    "preset", [preset for preset in PRESETS if preset.name != "demo"], ids=lambda preset: preset.name
)


def named(name: str) -> AgentType:
    return next(preset for preset in PRESETS if preset.name == name)


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
def test_a_preset_reaches_its_makers_hosts_and_nothing_else_before_the_user_says_so(preset: AgentType) -> None:
    network = "allowlist" if preset.hosts else "none"
    assert (preset.network, preset.allow, preset.share_login) == (network, (), ())


@released_presets
def test_the_hosts_of_a_preset_can_be_allowed(preset: AgentType) -> None:
    assert expand_allow(preset.hosts)


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
    [
        ("claude", "default"), ("codex", "read-only"), ("gemini", "default"), ("qwen", "default"), ("vibe", "ask"),
        ("kimi", "default"), ("openhands", "always-ask"),
        ("copilot", "https://agentclientprotocol.com/protocol/session-modes#agent"),
    ],
)  # fmt: skip
def test_an_agent_with_modes_is_put_into_one_that_asks(name: str, mode: str) -> None:
    assert named(name).mode == mode


@every_preset
def test_a_preset_sets_a_mode_in_which_its_agent_asks(preset: AgentType) -> None:
    assert preset.mode is None or preset.mode in preset.asking_modes


@every_preset
def test_the_page_says_in_which_modes_an_agent_asks(preset: AgentType) -> None:
    told = on_the_page(preset.name, "asks in")
    modes = [mode.rpartition("#")[2] for mode in preset.asking_modes]
    assert told == (", ".join(modes) or "not known")


@pytest.mark.parametrize(
    ("name", "image", "limits", "capabilities"),
    [
        (
            "auggie-cli", "augmentcode/auggie-cli", Limits(cpu_limit="2.0", memory_limit="2g", disk_limit="10g"),
            {"code_analysis", "code_generation", "debugging", "refactoring"},
        ),
        (
            "gemini-agent", "kandev/gemini-agent", Limits(cpu_limit="1.5", memory_limit="1.5g", disk_limit="10g"),
            {"code_review", "documentation", "testing", "general_assistance"},
        ),
    ],
)  # fmt: skip
def test_the_first_two_agent_types_of_kandev_are_here_by_name(
    name: str, image: str, limits: Limits, capabilities: set[str]
) -> None:
    preset = named(name)
    assert (preset.image, preset.default_resources) == (image, limits)
    assert capabilities <= set(preset.capabilities)


@every_preset
def test_the_limits_of_a_preset_could_be_asked_for(preset: AgentType) -> None:
    assert merge_limits(Limits(), preset.default_resources) == preset.default_resources


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


def on_the_page(name: str, column: str) -> str:
    """The cell of this agent, without ticks, in the table that has such a column."""
    heads: list[str] = []
    for line in (ROOT / "docs/agents.md").read_text().splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if cells[0] == "name":
            heads = cells
        elif cells[0] == name and column in heads:
            return cells[heads.index(column)]
    raise AssertionError(f"{name} is in no table with the column {column}")


@every_preset
def test_the_page_says_how_an_agent_counts_as_its_preset_does(preset: AgentType) -> None:
    assert on_the_page(preset.name, "usage.tokens") == preset.usage.tokens
    assert on_the_page(preset.name, "usage.cost_after_resume") == (preset.usage.cost_after_resume or "unknown")


@every_preset
def test_the_page_says_how_a_session_goes_on_as_the_preset_does(preset: AgentType) -> None:
    way = on_the_page(preset.name, "goes on by")
    assert way in {"resume", "load", "transcript", "not tried"}
    assert ("resume" in preset.capabilities) == (way != "transcript")


@every_preset
def test_the_page_says_that_an_agent_without_its_variables_is_not_started(preset: AgentType) -> None:
    assert (on_the_page(preset.name, "without a log-in") == "is not started") == bool(preset.env_required)


def test_the_page_says_which_releases_are_driven_in_ci() -> None:
    driven = json.loads((ROOT / "tests/agents/package.json").read_text())["dependencies"]
    packages = {preset.name: (preset.install_hint or "").removeprefix("npm install -g ") for preset in PRESETS}
    told = {name: on_the_page(name, "verified") for name in NAMES}
    in_ci = {packages[name]: text for name, text in told.items() if text.endswith("in CI")}
    assert in_ci == {package: f"{release}, in the jail; in CI" for package, release in driven.items()}


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
    extras = kandev_agents.kandev_prepare_launch(agent, task)
    assert extras is not None
    spec = process_spec(PRESETS[0], agent, task, [extras])
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}
    async with opened as runtime:
        await runtime.prepare(task.id)
        done = await runtime.run(spec, stdin=json.dumps(request).encode() + b"\n")
    assert (done.exit_code, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["result"]["agentInfo"]["name"] == "kandev-demo-agent"


@pytest.mark.parametrize("agent_type", PRESETS, ids=lambda agent_type: agent_type.name)
def test_the_mode_of_an_agent_is_one_in_which_it_asks(agent_type: AgentType) -> None:
    assert not agent_type.asking_modes or agent_type.mode in {None, *agent_type.asking_modes}


@pytest.mark.parametrize("name", ["opencode", "kilo"])
def test_what_a_repository_says_of_permissions_is_not_read_by_an_agent_that_obeys_it(name: str) -> None:
    preset = next(preset for preset in PRESETS if preset.name == name)
    assert preset.env[f"{name.upper()}_DISABLE_PROJECT_CONFIG"] == "1"
