"""Real clients in real jails, through the proxy of an allowlist, with nothing set but the jail's own environment."""

from __future__ import annotations

import ensurepip
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import Bind, Decision


def _servers() -> Any:
    spec = importlib.util.spec_from_file_location("egress_servers", Path(__file__).with_name("egress_servers.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["egress_servers"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


servers = _servers()
pytestmark = pytest.mark.anyio
NAMES = ("web.example", "index.example", "registry.example", "git.example")
CA = "/opt/test-ca.pem"
TRUST = {
    "CURL_CA_BUNDLE": CA, "PIP_CERT": CA, "NODE_EXTRA_CA_CERTS": CA, "npm_config_cafile": CA, "GIT_SSL_CAINFO": CA,
}  # fmt: skip
PIP = "/opt/pip.whl"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return servers.Authority.make(tmp_path_factory.mktemp("ca"), NAMES)


def pip_wheel() -> Path:
    """pip as a wheel: of this Python, or where Debian keeps it (python3-venv)."""
    folders = (Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels"))
    return next(wheel for folder in folders for wheel in folder.glob("pip-*.whl"))


class Inside:
    """Runs commands in a jail that may reach one site."""

    def __init__(self, sandbox: Any, site: Any, authority: Any) -> None:
        self.decisions: list[Decision] = []
        self.site = site
        self._sandbox = sandbox
        self._options = {
            "network": "allowlist",
            "allow": site.allow,
            "lookup": site.lookup,
            "on_decision": self.decisions.append,
            "binds": (Bind(authority.certificate, CA), Bind(pip_wheel(), PIP)),
            "env": TRUST,
        }

    async def sh(self, script: str, **options: Any) -> Any:
        return await self._sandbox.sh(script, **{**self._options, **options})

    @property
    def denied(self) -> set[str]:
        return {decision.host for decision in self.decisions if not decision.allowed}

    @property
    def allowed(self) -> set[tuple[str, str]]:
        return {(decision.host, decision.protocol) for decision in self.decisions if decision.allowed}


@pytest.fixture
def web(sandbox: Any, authority: Any) -> Iterator[Inside]:
    with servers.site(["web.example"], lambda _: {"/": b"it works"}, authority) as site:
        yield Inside(sandbox, site, authority)


@pytest.fixture
def plain_web(sandbox: Any, authority: Any) -> Iterator[Inside]:
    with servers.site(["web.example"], lambda _: {"/": b"it works"}) as site:
        yield Inside(sandbox, site, authority)


async def test_curl_over_https(web: Inside) -> None:
    done = await web.sh(f"curl -sS https://web.example:{web.site.port}/")
    assert done.out == "it works", done.err
    assert web.allowed == {("web.example", "connect")}


async def test_curl_over_http(plain_web: Inside) -> None:
    done = await plain_web.sh(f"curl -sS http://web.example:{plain_web.site.port}/")
    assert done.out == "it works", done.err
    assert plain_web.allowed == {("web.example", "http")}


async def test_curl_sends_a_body_over_http(plain_web: Inside) -> None:
    url = f"http://web.example:{plain_web.site.port}/"
    done = await plain_web.sh(f"head -c 3000000 /dev/zero >z; curl -sS --data-binary @z {url} | wc -c")
    assert done.out.strip() == "3000000", done.err


async def test_curl_over_socks_with_names_resolved_outside(web: Inside) -> None:
    done = await web.sh(f'curl -sS --proxy "$ALL_PROXY" https://web.example:{web.site.port}/')
    assert done.out == "it works", done.err
    assert web.allowed == {("web.example", "socks5")}


async def test_curl_shows_how_to_allow_what_is_denied(web: Inside) -> None:
    done = await web.sh("curl -sSv https://pypi.org/")
    assert done.code == 56
    assert "403 pypi.org:443 is not in the allowlist of this jail; to allow it: add pypi.org to allow" in done.err
    assert web.denied == {"pypi.org"}


async def test_the_denial_says_what_the_caller_wants_it_to(web: Inside) -> None:
    hint = "run: kandev-host task update 7 --allow {entry}"
    done = await web.sh("curl -sS http://pypi.org/", allow_hint=hint)
    assert "to allow it: run: kandev-host task update 7 --allow pypi.org" in done.out


async def test_without_the_proxy_there_is_no_way_out(web: Inside) -> None:
    done = await web.sh(f"curl -sS --noproxy '*' --max-time 5 https://web.example:{web.site.port}/ https://1.1.1.1/")
    assert done.code != 0
    assert "Could not resolve host" in done.err
    assert web.decisions == []


async def test_a_listed_service_is_reached_at_its_own_address_as_well(plain_web: Inside) -> None:
    done = await plain_web.sh(f"curl -sS http://127.0.0.1:{plain_web.site.port}/")
    assert done.out == "it works", done.err
    assert plain_web.decisions == []  # without the proxy


async def test_pip_installs_from_an_allowed_index(sandbox: Any, authority: Any) -> None:
    with servers.site(["index.example"], servers.package_index, authority) as site:
        inside = Inside(sandbox, site, authority)
        done = await inside.sh(
            f"python3 {PIP}/pip install -q --no-cache-dir --disable-pip-version-check --target lib "
            f"--index-url https://index.example:{site.port}/simple/ kandevtest && "
            "PYTHONPATH=lib python3 -c 'import kandevtest; print(kandevtest.WORD)'"
        )
    assert done.out == "from the index\n", done.err
    assert inside.allowed == {("index.example", "connect")}


async def test_pip_says_that_the_index_is_not_allowed(web: Inside) -> None:
    done = await web.sh(f"python3 {PIP}/pip download --retries 1 --no-cache-dir kandevtest")
    assert done.code != 0
    assert "403 pypi.org:443 is not in the allowlist of this jail" in done.out + done.err
    assert "@pypi" in done.out + done.err


async def test_npm_installs_from_an_allowed_registry(sandbox: Any, authority: Any) -> None:
    with servers.site(["registry.example"], servers.npm_registry("registry.example"), authority) as site:
        inside = Inside(sandbox, site, authority)
        done = await inside.sh(
            f"npm install --no-audit --no-fund --registry https://registry.example:{site.port}/ kandevtest "
            "&& node -p \"require('kandevtest')\""
        )
    assert done.out.endswith("from the registry\n"), done.err
    assert ("registry.example", "connect") in inside.allowed


async def test_npm_ends_with_an_error_where_the_registry_is_not_allowed(web: Inside) -> None:
    done = await web.sh("npm install --no-audit --no-fund --fetch-retries=0 kandevtest")
    assert done.code != 0
    assert "403" in done.err
    assert web.denied == {"registry.npmjs.org"}


async def test_git_clones_over_https(sandbox: Any, authority: Any, tmp_path: Path) -> None:
    content = servers.repository(tmp_path)
    with servers.site(["git.example"], lambda _: content, authority) as site:
        inside = Inside(sandbox, site, authority)
        done = await inside.sh(f"git clone -q https://git.example:{site.port}/bare.git clone && cat clone/README")
    assert done.out == "from the repository\n", done.err
    assert inside.allowed == {("git.example", "connect")}


async def test_git_says_that_the_server_is_not_allowed(web: Inside) -> None:
    done = await web.sh("git ls-remote https://github.com/torvalds/linux")
    assert "403" in done.err
    assert web.denied == {"github.com"}


@pytest.mark.parametrize(
    ("address", "becomes"),
    [
        ("git@github.com:a/b.git", "https://github.com/a/b.git"),
        ("ssh://git@github.com/a/b.git", "https://github.com/a/b.git"),
        ("git@git.example:a/b.git", "https://git.example/a/b.git"),
        ("git@elsewhere.example:a/b.git", "git@elsewhere.example:a/b.git"),
        ("git@files.pythonhosted.org:a", "git@files.pythonhosted.org:a"),
    ],
)
async def test_ssh_addresses_of_allowed_hosts_become_https_ones(sandbox: Any, address: str, becomes: str) -> None:
    script = f"git ls-remote --get-url {address}; git config --get user.name"
    env = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "An agent"}
    done = await sandbox.sh(script, network="allowlist", allow=("@github", "git.example", "@pypi"), env=env)
    assert done.out.split("\n")[:2] == [becomes, "An agent"]


async def test_a_jail_without_an_allowlist_is_told_of_no_proxy(sandbox: Any) -> None:
    done = await sandbox.sh("env | grep -ci -e proxy -e GIT_CONFIG")
    assert done.out == "0\n"


async def test_what_the_caller_sets_goes_before_the_proxys_variables(sandbox: Any) -> None:
    done = await sandbox.sh("echo $NO_PROXY $no_proxy", network="allowlist", env={"NO_PROXY": "mine"})
    assert done.out == "mine localhost,127.0.0.1,::1\n"


async def test_the_proxy_makes_room_for_a_service_with_its_port(sandbox: Any) -> None:
    allow = ("127.0.0.1:3128", "127.0.0.1:1080")
    script = "echo $HTTP_PROXY $ALL_PROXY; curl -s -o /dev/null -w '%{http_connect}' https://pypi.org/"
    done = await sandbox.sh(script, network="allowlist", allow=allow)
    assert done.out.split() == ["http://127.0.0.1:13128", "socks5h://127.0.0.1:13129", "403"]


async def test_two_jails_have_allowlists_of_their_own(web: Inside, sandbox: Any) -> None:
    url = f"https://web.example:{web.site.port}/"
    other = await sandbox.sh(f"curl -sS -k {url}", network="allowlist", allow=("pypi.org",))
    assert "403" in other.err
    assert (await web.sh(f"curl -sS {url}")).out == "it works"
