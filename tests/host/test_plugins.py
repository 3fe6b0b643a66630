from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any

import pytest

from kandev_host.errors import PluginError, StartupError, Unavailable
from kandev_host.gateway.tokens import LOCAL_USER
from kandev_host.interfaces import Call, Decision, Environment, Provider
from kandev_host.plugin_checks import ANSWERS, KNOWN
from kandev_host.plugins import PluginInfo, Plugins, load_plugins
from kandev_host.selection import check_selected
from kandev_host.settings import PluginsSettings, Settings, UseSettings

HEAD = "from kandev_host import Action, AgentType, Provider, hookimpl\n"
AGENT = '@hookimpl\ndef kandev_agent_types():\n    return [AgentType(name="{0}", command=("{0}",))]\n'
RUNTIME = '@hookimpl\ndef kandev_runtimes():\n    return Provider("{0}", None, missing={1!r})\n'


def unopened(_settings: Any, _environment: Environment) -> Any:
    raise AssertionError


class Site:
    """A site-packages folder with real distributions in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, name: str, source: str, *, distribution: str | None = None, point: str | None = None) -> None:
        """A distribution of one module, `name`, with one entry point."""
        (self.path / f"{name}.py").write_text(HEAD + source)
        info = self.path / f"{distribution or name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[kandev]\n{point or name} = {name}\n")
        importlib.invalidate_caches()

    def points(self) -> list[EntryPoint]:
        return [point for found in distributions(path=[str(self.path)]) for point in found.entry_points]

    def load(self, *disabled: str, **times: float) -> Plugins:
        return load_plugins(PluginsSettings(disabled=disabled, **times), found=self.points())

    def info(self, name: str, *disabled: str) -> PluginInfo:
        return next(info for info in self.load(*disabled).infos if info.name == name)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]


def test_a_plugin_is_listed_with_where_it_is_from_and_what_it_provides(site: Site) -> None:
    site.install("kandev_ext_a", AGENT.format("robot"), distribution="dist-of-a", point="a")
    assert site.info("a") == PluginInfo("a", "dist-of-a", "1.5", {"agent": ["robot"]})


def test_the_agents_of_a_plugin_are_known_by_name(site: Site) -> None:
    site.install("kandev_ext_a", AGENT.format("robot"))
    assert site.load().agent_types["robot"].command == ("robot",)


@pytest.mark.parametrize(
    ("check", "why"),
    [
        ("raise StartupError('the secret is not there: write it')", "the secret is not there: write it"),
        ("raise OSError('lost')", r"\[bus.far\] cannot be checked: plugin 'kandev_ext_a': OSError: lost"),
        ("import time; time.sleep(3600)", r"\[bus.far\] cannot be checked: .* not done after 0.1 s"),
    ],
)
def test_what_a_provider_says_of_its_settings_is_heard_without_opening_it(site: Site, check: str, why: str) -> None:
    site.install(
        "kandev_ext_a",
        f"from kandev_host.errors import StartupError\ndef check(settings):\n    {check}\n"
        "@hookimpl\ndef kandev_buses():\n    return Provider('far', None, check=check)\n",
    )
    settings = Settings(use=UseSettings(bus="far"), plugins=PluginsSettings(start_timeout_s=0.1))
    plugins = site.load()
    plugins.providers["store"]["sqlite"] = plugins.providers["runtime"]["bwrap"] = Provider("any", unopened)
    with pytest.raises(StartupError, match=why):
        check_selected(plugins, settings)


def test_the_core_is_a_plugin_like_the_others(site: Site) -> None:
    infos = site.load().infos
    assert infos[0].name == "core"
    assert infos[0].provides == {
        "bus": ["memory"],
        "authenticator": ["local"],
        "prices": ["none"],
        "hooks": ["kandev_actions"],
    }


def test_a_disabled_plugin_is_not_even_imported(site: Site) -> None:
    site.install("kandev_ext_a", "raise SystemExit('imported')")
    info = site.info("kandev_ext_a", "kandev_ext_a")
    assert (info.state, info.reason) == ("disabled", "by [plugins] disabled")
    assert "kandev_ext_a" not in sys.modules


def test_disabling_what_is_not_there_names_what_is(site: Site) -> None:
    site.install("kandev_ext_a", "")
    with pytest.raises(PluginError, match=r"disabled names 'kandev_ext_b'; the plugins are kandev_ext_a"):
        site.load("kandev_ext_b")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "kandev_ext_a: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("1 / 0", "kandev_ext_a: ZeroDivisionError: division by zero"),
        ("def :", "kandev_ext_a: SyntaxError: "),
        ("raise SystemExit(3)", "kandev_ext_a: SystemExit: 3"),
        ("@hookimpl\ndef kandev_agent_types():\n    raise OSError('lost')", "kandev_agent_types: OSError: lost"),
        ("@hookimpl\ndef kandev_agent_types():\n    yield 1 / 0", "kandev_agent_types: ZeroDivisionError"),
        ("@hookimpl\ndef kandev_agent_types():\n    return ['x']", "kandev_agent_types returned str, not AgentType"),
        ("@hookimpl\ndef kandev_runtimes():\n    return 5", "kandev_runtimes returned int, not Provider"),
    ],
)
def test_a_plugin_that_fails_is_listed_as_broken_and_the_others_go_on(site: Site, source: str, reason: str) -> None:
    site.install("kandev_ext_a", source)
    site.install("kandev_ext_b", AGENT.format("robot"))
    plugins = site.load()
    info = next(info for info in plugins.infos if info.name == "kandev_ext_a")
    assert info.state == "broken"
    assert reason in (info.reason or "")
    assert list(plugins.agent_types) == ["robot"]


@pytest.mark.parametrize("hook", sorted(KNOWN.keys() - ANSWERS.keys()))
def test_p23_a_hook_that_hangs_is_named_and_costs_its_time(
    site: Site, hook: str, without_core_actions: Callable[[], None]
) -> None:
    site.install("kandev_ext_a", f"import time\n@hookimpl\ndef {hook}():\n    time.sleep(3600)\n")
    without_core_actions()
    plugins = site.load(hook_timeout_s=0.1)
    assert (plugins.actions({}), plugins.routes({}), plugins.lifespans({})) == ([], [], [])
    info = plugins.infos[-1]
    assert (info.state, info.reason) == ("broken", f"{hook}: Overdue: not done after 0.1 s")


def test_p23_a_plugin_that_hangs_when_it_is_looked_at_is_named(site: Site) -> None:
    source = "import sys, time\nclass Odd(type(sys)):\n    __dir__ = lambda self: time.sleep(3600)\n"
    site.install("kandev_ext_a", f"{source}sys.modules[__name__].__class__ = Odd\n")
    info = site.load(start_timeout_s=0.3).infos[-1]
    assert (info.state, info.reason) == ("broken", "kandev_ext_a: Overdue: not done after 0.3 s")


def test_nothing_of_a_broken_plugin_is_used(site: Site) -> None:
    site.install("kandev_ext_a", AGENT.format("robot") + "@hookimpl\ndef kandev_runtimes():\n    raise OSError\n")
    assert site.load().agent_types == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@hookimpl\ndef kandev_agent_typs():\n    return []", "kandev_agent_typs is not a hook; did you mean"),
        (
            "def kandev_agent_typs():\n    return []",
            "kandev_agent_typs is not a hook; did you mean kandev_agent_types?",
        ),
        ("@hookimpl\ndef something():\n    return []", "something is not a hook; the hooks are kandev_agent_types, "),
        ("def kandev_agent_types():\n    return []", "kandev_agent_types lacks @hookimpl"),
        (
            "@hookimpl\ndef kandev_actions(service):\n    return []",
            "kandev_actions takes 'service'; the hook gives (services)",
        ),
        ("@hookimpl(wrapper=True)\ndef kandev_agent_types():\n    yield", "kandev_agent_types is a wrapper"),
    ],
)
def test_a_hook_that_would_not_be_called_is_an_error(site: Site, source: str, message: str) -> None:
    site.install("kandev_ext_a", source)
    with pytest.raises(PluginError) as caught:
        site.load()
    assert str(caught.value).startswith("plugin 'kandev_ext_a': ")
    assert message in str(caught.value)
    assert '[plugins] disabled = ["kandev_ext_a"]' in str(caught.value)


def test_a_function_that_a_plugin_only_imported_is_none_of_its_hooks(site: Site) -> None:
    (site.path / "kandev_ext_lib.py").write_text("def kandev_helper():\n    return 1\n")
    site.install("kandev_ext_a", "from kandev_ext_lib import kandev_helper")
    assert site.info("kandev_ext_a").state == "active"


@pytest.mark.parametrize(
    ("source", "kind"), [(AGENT.format("robot"), "agent"), (RUNTIME.format("place", None), "runtime")]
)
def test_a_name_that_two_plugins_claim_is_an_error_naming_both(site: Site, source: str, kind: str) -> None:
    site.install("kandev_ext_a", source)
    site.install("kandev_ext_b", source)
    with pytest.raises(PluginError) as caught:
        site.load()
    assert str(caught.value).startswith(kind)
    assert "'kandev_ext_a'" in str(caught.value)
    assert "'kandev_ext_b'" in str(caught.value)
    assert 'disabled = ["kandev_ext_b"]' in str(caught.value)


def test_a_plugin_name_that_two_distributions_claim_is_an_error_naming_both(site: Site) -> None:
    site.install("kandev_ext_a", "", point="same")
    site.install("kandev_ext_b", "", point="same")
    with pytest.raises(PluginError, match=r"'same' comes from kandev_ext_. and from kandev_ext_.; uninstall one"):
        site.load()


def test_no_plugin_may_call_itself_the_core(site: Site) -> None:
    site.install("kandev_ext_a", "", point="core")
    with pytest.raises(PluginError, match="'core' comes from the host itself and from kandev_ext_a"):
        site.load()


def test_selecting_an_unknown_name_lists_the_known_and_the_nearest(site: Site) -> None:
    site.install("kandev_ext_a", RUNTIME.format("bubble", None))
    with pytest.raises(PluginError) as caught:
        site.load().provider("runtime", "buble")
    assert str(caught.value) == (
        "[use] runtime = \"buble\": no plugin provides it; there are bubble; did you mean 'bubble'?"
    )


def test_selecting_something_of_a_broken_plugin_names_it(site: Site) -> None:
    site.install("kandev_ext_a", "import nowhere_to_be_found")
    with pytest.raises(PluginError, match=r"plugin 'kandev_ext_a' is broken \(.*nowhere_to_be_found"):
        site.load().provider("runtime", "place")


def test_a_provider_without_its_library_is_listed_with_the_extra_to_install(site: Site) -> None:
    site.install("kandev_ext_a", RUNTIME.format("place", "docker"))
    info = site.info("kandev_ext_a")
    assert (info.state, info.reason) == ("unavailable", "pip install 'kandev-host[docker]'")


def test_selecting_a_provider_without_its_library_says_what_to_install(site: Site) -> None:
    site.install("kandev_ext_a", RUNTIME.format("place", "docker"))
    with pytest.raises(PluginError, match=r"runtime = \"place\" needs .*: pip install 'kandev-host\[docker\]'"):
        site.load().provider("runtime", "place")


ACTION = """
@hookimpl
def kandev_actions(services):
    yield Action(name="robot.dance", request=dict, handler=services["dance"], scope="*")
"""


def dance(call: Call, request: dict[str, str]) -> dict[str, Any]:
    return {"danced": request}


@pytest.mark.anyio
async def test_the_actions_of_a_plugin_are_made_with_the_services(
    site: Site, without_core_actions: Callable[[], None]
) -> None:
    site.install("kandev_ext_a", ACTION)
    without_core_actions()
    actions = site.load().actions({"dance": dance})
    assert [action.name for action in actions] == ["robot.dance"]
    answer = await actions[0].handler(Call(LOCAL_USER, "1", lambda topic: None), {"to": "music"})
    assert answer == {"danced": {"to": "music"}}


def test_a_plugin_that_fails_when_it_makes_its_actions_is_broken(
    site: Site, without_core_actions: Callable[[], None]
) -> None:
    site.install("kandev_ext_a", ACTION)
    without_core_actions()
    plugins = site.load()
    assert plugins.actions({}) == []
    assert plugins.infos[-1].reason == "kandev_actions: KeyError: 'dance'"


@pytest.fixture
def without_core_actions(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    from kandev_host import core

    return lambda: monkeypatch.delattr(core, "kandev_actions")


@pytest.mark.anyio
async def test_policies_are_called_with_what_they_ask_for(site: Site) -> None:
    site.install("kandev_ext_a", "@hookimpl\ndef kandev_turn_policy(task):\n    return task\n")
    [(plugin, policy)] = site.load().per_request("kandev_turn_policy")
    denied = Decision("deny", "no")
    assert (plugin, await policy(1, denied)) == ("kandev_ext_a", denied)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("'deny'", "kandev_turn_policy returned str, not Decision"),
        ("Decision('Deny', '')", "decided 'Deny'; there are"),
    ],
)
async def test_a_policy_whose_answer_is_none_fails_instead_of_being_overheard(
    site: Site, answer: str, reason: str
) -> None:
    body = f"from kandev_host import Decision\n@hookimpl\ndef kandev_turn_policy():\n    return {answer}\n"
    site.install("kandev_ext_a", body)
    plugins = site.load()
    [(_, policy)] = plugins.per_request("kandev_turn_policy")
    with pytest.raises(Unavailable, match=reason):
        await policy(1, 2)
    assert (plugins.infos[-1].state, reason in (plugins.infos[-1].reason or "")) == ("broken", True)
