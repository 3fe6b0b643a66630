from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kandev_docker import DockerSettings
from kandev_host.errors import SettingsError
from kandev_host.plugins import provider_settings
from kandev_host.settings import AgentOverride, Settings, Table
from kandev_host.settings.environment import ALIASES, chosen
from kandev_host.settings.example import default_of, description, example
from kandev_host.settings.keys import all_keys, children, struct_of
from kandev_host.settings.live import difference, is_live, live_keys, own, take_over
from kandev_host.settings.load import Loaded, decode_table, load, prepare_data_dir
from kandev_otel import OtelSettings
from kandev_users import UsersSettings

ROOT = Path(__file__).parents[2]
Load = Callable[..., Loaded]


@pytest.fixture
def load_with(tmp_path: Path) -> Load:
    def loading(toml: str | None = None, flags: dict[str, object] | None = None, **environ: str) -> Loaded:
        file = tmp_path / "config.toml"
        if toml is not None:
            file.write_text(toml)
        return load(environ={"KANDEV_HOME": str(tmp_path), **environ}, flags=flags)

    return loading


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(load_with: Load) -> None:
    toml = '[server]\nhost = "::1"\nport = 1\n[log]\nlevel = "error"'
    loaded = load_with(toml, {"server.port": 3}, KANDEV_SERVER__PORT="2", KANDEV_LOG__LEVEL="debug")
    assert (loaded.settings.server.host, loaded.settings.server.port, loaded.settings.log.level) == ("::1", 3, "debug")
    assert loaded.settings.log.format == "text"


def test_every_value_knows_where_it_came_from(load_with: Load, tmp_path: Path) -> None:
    sources = load_with('[server]\nhost = "::1"', {"server.port": 3}, LOG_LEVEL="debug").sources
    assert sources == {
        ("server", "host"): str(tmp_path / "config.toml"),
        ("server", "port"): "--port",
        ("log", "level"): "LOG_LEVEL",
    }


def test_an_unset_flag_changes_nothing(load_with: Load) -> None:
    assert load_with(None, {"server.port": None}).settings.server.port == 8080


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a,b", ("a", "b")), ("a, b ,", ("a", "b")), ('["a,b"]', ("a,b",)), ("", ())],
)
def test_a_list_in_the_environment_is_commas_or_json(load_with: Load, text: str, expected: tuple[str, ...]) -> None:
    assert load_with(KANDEV_USE__TELEMETRY=text).settings.use.telemetry == expected


def test_an_agent_of_the_file_is_found_by_its_variable(load_with: Load) -> None:
    loaded = load_with('[agents.my_agent]\ncommand = ["x"]', KANDEV_AGENTS__MY_AGENT__ENABLED="false")
    assert loaded.settings.agents == {"my_agent": AgentOverride(command=("x",), enabled=False)}


def test_an_agent_only_in_the_environment_is_named_with_dashes(load_with: Load) -> None:
    loaded = load_with(KANDEV_AGENTS__MY_AGENT__COMMAND='["x", "--y"]')
    assert loaded.settings.agents == {"my-agent": AgentOverride(command=("x", "--y"))}


@pytest.mark.parametrize(
    ("name", "value", "get", "expected"),
    [
        ("SERVER_HOST", "::1", lambda s: s.server.host, "::1"),
        ("SERVER_PORT", "99", lambda s: s.server.port, 99),
        ("LOG_LEVEL", "WARN", lambda s: s.log.level, "warning"),
        ("LOG_FORMAT", "json", lambda s: s.log.format, "json"),
        ("LOG_OUTPUT_PATH", "stdout", lambda s: s.log.path, "stdout"),
        ("NATS_URL", "nats://h", lambda s: s.bus["nats"]["url"], "nats://h"),
        ("DOCKER_HOST", "unix:///d", lambda s: s.runtime["docker"]["socket"], "unix:///d"),
        ("JWT_SECRET", "x" * 32, lambda s: s.authenticator["users"]["secret"], "x" * 32),
        ("TOKEN_DURATION", "60", lambda s: s.authenticator["users"]["token_lifetime_s"], "60"),
        ("DB_HOST", "db", lambda s: s.store["postgresql"]["host"], "db"),
    ],
)
def test_the_plans_names_are_read(
    load_with: Load, name: str, value: str, get: Callable[[Settings], object], expected: object
) -> None:
    loaded = load_with(None, None, **{name: value})
    assert get(loaded.settings) == expected
    assert loaded.settings.use == Settings().use


def test_our_own_name_beats_the_plans(load_with: Load) -> None:
    assert load_with(SERVER_PORT="1", KANDEV_SERVER__PORT="2").settings.server.port == 2


@pytest.mark.parametrize("name", ["NATS_CLUSTER_ID", "DOCKER_API_VERSION", "DOCKER_DEFAULT_NETWORK"])
def test_a_name_of_the_plan_without_a_meaning_is_noted(load_with: Load, name: str) -> None:
    loaded = load_with('[use]\nruntime = "docker"', **{name: "1.43"})
    assert loaded.notes[0].startswith(f"{name} has no effect: ")
    assert loaded.settings.runtime == {}


@pytest.mark.parametrize(("name", "path"), [item for item in ALIASES.items() if len(item[1]) == 3])
def test_a_name_of_the_plan_is_a_setting_of_its_provider(name: str, path: tuple[str, str, str]) -> None:
    """Of those that kandev-host brings; the others are for third parties."""
    kind, provider, key = path
    types = {("runtime", "docker"): DockerSettings, ("authenticator", "users"): UsersSettings}
    if (table := types.get((kind, provider))) is not None:
        assert key in children(table), name


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[server]\nprot = 1", "server.prot is not a setting; did you mean server.port?"),
        ("[sever]\nport = 1", "sever is not a setting; did you mean server?"),
        ("[server]\norigins = []", "server.origins is not a setting; did you mean gateway.origins?"),
        ("[agents.x]\ncomand = []", "agents.x.comand is not a setting; did you mean agents.x.command?"),
        ("[server]\nport = 'x'", "server.port: expected a whole number, not 'x'"),
        ("[server]\nport = 70000", "server.port: expected a whole number <= 65535, not 70000"),
        ("[server]\nport = true", "server.port: expected a whole number, not True"),
        ("[session]\nkill_grace_s = 0", "session.kill_grace_s: expected a number > 0.0, not 0"),
        ("[log]\nformat = 'xml'", "log.format: expected one of text, json, not 'xml'"),
        ("[agents.x]\ncommand = 'ls'", "agents.x.command: expected a list, not 'ls'"),
        ("[agents.x.default_resources]\nmem = 1", "expected a table of cpu_limit, memory_limit, disk_limit"),
        ("agents = 1", "agents: expected a table, [agents]"),
        ("[rules.x]\nkind = 'edit'", "rules.x: a rule needs an effect: allow, ask or deny"),
        ("[rules.x]\neffect = 'allow'", "rules.x: a rule that allows must name a kind, a path or a command"),
        ("[rules.x]\neffect = 'deny'\ncommand = []", "rules.x: command has no word"),
        ("[mcp.x]\nenv = {}", "mcp.x: an MCP server needs either a command or a url"),
        ("[mcp.x]\ncommand = ['a']\nurl = 'http://b'", "mcp.x: an MCP server needs either a command or a url"),
        ("[mcp.x]\nurl = 'ftp://b'", "mcp.x: url is no http:// or https:// address"),
        ("[log]\n[credentials.x]\nfiles = ['/etc']", "line 2: credentials.x: files has '/etc': name files below"),
        ("[mcp.'a b']\ncommand = ['a']", "mcp has a table 'a b': a name has letters, digits, - and _"),
        ("[directories.x]\npath = 'here'", "directories.x: a directory needs a path that begins with / or ~/"),
        ("[directories.'../x']\npath = '/srv'", "directories has a table '../x': a name has letters"),
        ("[agents.demo]\nmcp_servers = ['x']", "[agents.demo] mcp_servers names 'x'; there is: none"),
        ("[rules.x]\neffect = 'no'", "rules.x.effect: expected one of allow, ask, deny"),
        ("[runtime]\nbwrap = 1", "runtime.bwrap: expected a table, [runtime.bwrap]"),
        ("x = ", "not valid TOML: "),
        (f"x = {'9' * 5000}", "not valid TOML: "),
        (f"x = {'[' * 3000}", "not valid TOML: "),
        ("a = '\0'", "not valid TOML: "),
    ],
)
def test_a_mistake_in_the_file_names_file_key_and_way_out(
    load_with: Load, tmp_path: Path, toml: str, message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with(toml)
    assert re.match(rf"{re.escape(str(tmp_path))}/config\.toml(, line [0-9]+)?: ", str(caught.value))
    assert message in str(caught.value)


def test_all_mistakes_of_a_file_are_named_by_their_lines(load_with: Load, tmp_path: Path) -> None:
    text = "[server]\nprot = 1\nport = 'x'\n[agents]\nx = 1\n[log]\nlevel = 'info'\n[rules.x]\nefect = 'ask'"
    with pytest.raises(SettingsError) as caught:
        load_with(text)
    assert str(caught.value) == (
        f"{tmp_path}/config.toml: 4 mistakes:"
        " (1) line 2: server.prot is not a setting; did you mean server.port?"
        " (2) line 3: server.port: expected a whole number, not 'x'"
        " (3) line 5: agents.x: expected a table, [agents.x]"
        " (4) line 9: rules.x.efect is not a setting; did you mean rules.x.effect?"
    )
    with pytest.raises(SettingsError, match=r": 12 mistakes: .* \(10\) line 11: server\.k9 .* and 2 more$"):
        load_with("\n".join(["[server]", *(f"k{number} = 1" for number in range(12))]))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KANDEV_SERVER_PORT", "1", "KANDEV_SERVER_PORT is not a setting; did you mean KANDEV_SERVER__PORT?"),
        ("KANDEV_SERVER__PROT", "1", "KANDEV_SERVER__PROT is not a setting; did you mean KANDEV_SERVER__PORT?"),
        ("KANDEV_HOMME", "/", "KANDEV_HOMME is not a setting; did you mean KANDEV_HOME?"),
        ("KANDEV_AGENTS__X__COMAND", "1", "did you mean KANDEV_AGENTS__X__COMMAND?"),
        ("KANDEV_SERVER__", "1", "KANDEV_SERVER__ is not a setting"),
        ("KANDEV_ZZZ", "1", "KANDEV_ZZZ is not a setting; see: kandev-host config init --stdout"),
        ("KANDEV_SERVER__PORT", "abc", "KANDEV_SERVER__PORT: server.port: expected a whole number, not 'abc'"),
        ("KANDEV_GATEWAY__QUERY_TOKEN", "maybe", "expected true or false, not 'maybe'"),
        ("KANDEV_AGENTS__X__ENV", "{", "KANDEV_AGENTS__X__ENV: agents.x.env: "),
        ("SERVER_PORT", "tcp://10.0.0.1:80", "unset it, or set KANDEV_SERVER__PORT, which goes before it"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(load_with: Load, name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with(None, None, **{name: value})
    assert name in str(caught.value)
    assert message in str(caught.value)


def test_a_wrong_secret_is_not_shown() -> None:
    class Settings(Table, frozen=True, kw_only=True):
        secret: str

    with pytest.raises(SettingsError) as caught:
        decode_table("authenticator", "jwt", {"secret": 12345678}, Settings)
    assert str(caught.value) == "[authenticator.jwt]: authenticator.jwt.secret: expected text"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"signals": ["trace"]}, "signals: expected a list of some of traces, metrics, logs, not ['trace']"),
        ({"endpoint": "http://a:4318/v1/traces"}, 'write endpoint = "http://a:4318"'),
    ],
)
def test_a_wrong_value_of_telemetry_says_what_to_write(table: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        decode_table("telemetry", "otel", table, OtelSettings)
    assert message in str(caught.value)


class Docker(Table, frozen=True, kw_only=True):
    host: str
    timeout_s: float = 1.0
    mirrors: tuple[str, ...] = ()


def test_a_providers_table_is_parsed_by_its_own_types(load_with: Load) -> None:
    loaded = load_with(
        '[runtime.docker]\nmirrors = ["a"]',
        KANDEV_RUNTIME__DOCKER__HOST="unix:///d",
        KANDEV_RUNTIME__DOCKER__TIMEOUT_S="2.5",
    )
    decoded = decode_table("runtime", "docker", loaded.settings.runtime["docker"], Docker)
    assert decoded == Docker(host="unix:///d", timeout_s=2.5, mirrors=("a",))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"hots": "x"}, "[runtime.docker]: runtime.docker.hots is not a setting; did you mean runtime.docker.host?"),
        ({"host": "x", "timeout_s": "2"}, "[runtime.docker]: runtime.docker.timeout_s: expected a number, not '2'"),
        ({}, "[runtime.docker]: Object missing required field `host`"),
    ],
)
def test_a_mistake_in_a_providers_table_names_it(table: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        decode_table("runtime", "docker", table, Docker)
    assert str(caught.value) == message


def test_a_settings_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no settings file"):
        load(config=tmp_path / "none.toml", environ={"KANDEV_HOME": str(tmp_path)})


def test_the_home_of_another_user_is_named_with_the_way_out(tmp_path: Path) -> None:
    closed = tmp_path / "root"
    closed.mkdir(mode=0o000)
    (uid, gid) = (os.geteuid(), os.getegid())
    if uid == 0:
        os.chown(tmp_path, 64_242, 64_242)
        os.seteuid(64_242)
    try:
        with pytest.raises(SettingsError, match="is HOME yours"):
            load(environ={"KANDEV_HOME": str(closed / ".kandev")})
    finally:
        os.seteuid(uid)
        os.chown(tmp_path, uid, gid)
        closed.chmod(0o700)


def test_a_settings_file_that_anyone_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("")
    file.chmod(0o666)
    with pytest.raises(SettingsError, match=r"chmod o-w .*config\.toml"):
        load(environ={"KANDEV_HOME": str(tmp_path)})


def test_the_data_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    made = prepare_data_dir(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_data_folder_open_to_others_is_refused_with_the_fix(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(SettingsError) as caught:
        prepare_data_dir(tmp_path)
    assert str(caught.value).endswith(f"is open to others (mode 0755): chmod 700 {tmp_path}")


def test_a_file_in_place_of_the_data_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot make the data folder"):
        prepare_data_dir(tmp_path / "file")


def test_the_example_file_is_what_the_types_say() -> None:
    bundled = [point for point in entry_points(group="kandev") if point.dist and point.dist.name == "kandev-host"]
    assert (ROOT / "config" / "example.toml").read_text() == example(provider_settings(bundled)), (
        "run: kandev-host config init --stdout > config/example.toml"
    )


def test_the_example_uncommented_is_the_defaults() -> None:
    lines = [line.removeprefix("# ") for line in example().splitlines() if re.match(r"# [a-z_]+ = [^(]|\[", line)]
    values = tomllib.loads("\n".join(lines))
    assert msgspec.convert(values, Settings) == Settings()
    written = {(table, key) for table, keys in values.items() for key in keys}
    assert {path for path in all_keys() if default_of(children(Settings)[path[0]], path[1]) is not None} == written


def test_every_setting_has_a_meaning() -> None:
    described = [description(children(children(Settings)[table])[key]) for table, key in all_keys()]
    described += [description(kind) for kind in children(AgentOverride).values()]
    assert all(len(text) > 10 for text in described)


def test_every_time_and_size_says_its_unit() -> None:
    numbers = [
        path[-1]
        for path in all_keys()
        if isinstance(default_of(children(Settings)[path[0]], path[1]), float) or "limit" in path[-1]
    ]
    suffixes = ("_s", "_per_s", "_bytes", "_limit", "_messages", "_lines")
    assert [name for name in numbers if not name.endswith(suffixes)] == []


def test_an_empty_table_of_a_runtime_counts_as_chosen(load_with: Load) -> None:
    settings = load_with("[runtime.docker]").settings
    assert settings.runtime == {"docker": {}}
    assert chosen(settings.runtime) == ["docker"]


def test_a_table_made_by_a_name_of_the_plan_alone_is_not_chosen(load_with: Load) -> None:
    assert chosen(load_with(DOCKER_HOST="x").settings.runtime) == []
    assert chosen(load_with('[runtime.docker]\napi_version = "1.43"', DOCKER_HOST="x").settings.runtime) == ["docker"]
    assert chosen(load_with(KANDEV_RUNTIME__DOCKER__HOST="x").settings.runtime) == ["docker"]


def test_the_rules_on_the_page_of_permissions_are_settings(load_with: Load) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/permissions.md").read_text(), re.DOTALL)
    assert {name: rule.effect for name, rule in load_with(shown).settings.rules.items()} == {
        "no-push": "deny",
        "tests": "allow",
        "migrations": "ask",
    }


def test_the_page_tells_what_is_live() -> None:
    spec = importlib.util.spec_from_file_location("generate_settings", ROOT / "docs/generate_settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs/settings.md").read_text()
    assert module.generated(page) == page, "run: python docs/generate_settings.py"


def test_every_live_key_is_a_setting() -> None:
    for table in (Settings, *filter(None, map(struct_of, children(Settings).values()))):
        assert live_keys(table) <= set(children(table)), table


def test_a_host_changes_its_own_settings_and_nobody_elses() -> None:
    mine = own(Settings())
    new = msgspec.convert({"gateway": {"sockets_total": 7}, "rules": {"x": {"effect": "deny"}}}, Settings)
    paths = difference(mine, new)
    assert paths == [("gateway", "sockets_total"), ("rules", "x")]
    assert all(map(is_live, paths))
    take_over(mine, new, paths)
    assert (mine.gateway.sockets_total, list(mine.rules)) == (7, ["x"])
    assert difference(mine, new) == []
    assert (Settings().gateway.sockets_total, Settings().rules) == (1000, {})


def test_the_order_of_repositories_is_a_difference() -> None:
    one, other = ({"repositories": {name: {"match": "*"} for name in names}} for names in ("ab", "ba"))
    mine, new = own(msgspec.convert(one, Settings)), msgspec.convert(other, Settings)
    paths = difference(mine, new)
    assert paths
    take_over(mine, new, paths)
    assert list(mine.repositories) == ["b", "a"]


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("\n[server]\n# port\nport = 'x'", 4),
        ("[gateway]\n[agents.demo]\nenabled = true\ncomand = ['x']", 4),
        ("server.port = 'x'", 1),
        ("[store.sqlite]\n[gatewai]", 2),
    ],
)
def test_a_mistake_is_told_with_its_line(load_with: Load, toml: str, line: int) -> None:
    with pytest.raises(SettingsError, match=f"config.toml, line {line}: "):
        load_with(toml)
