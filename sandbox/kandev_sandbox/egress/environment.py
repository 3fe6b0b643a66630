"""How programs in a jail with an allowlist are told of the proxy: by their environment alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kandev_sandbox.egress.presets import GIT_HOSTS
from kandev_sandbox.egress.rules import Rules, expand, services

HTTP_PORT, SOCKS_PORT = 3128, 1080
_MOVED = range(13128, 13328)
_LOCAL = "localhost,127.0.0.1,::1"
_MAX_COUNT = 10_000


def proxy_ports(taken: Sequence[int]) -> tuple[int, int]:
    """Where the proxy listens inside, HTTP and SOCKS; elsewhere where a service of the host has the usual port."""
    free = iter([port for port in _MOVED if port not in taken])
    http = HTTP_PORT if HTTP_PORT not in taken else next(free)
    socks = SOCKS_PORT if SOCKS_PORT not in taken else next(free)
    return http, socks


def beneath(allow: Sequence[str]) -> dict[str, str]:
    """The variables of a jail with this allowlist; its policy may set others."""
    return variables(*proxy_ports(services(allow)))


def variables(http_port: int, socks_port: int) -> dict[str, str]:
    """What curl, pip, npm, git, Node from version 22 and most libraries need."""
    http, socks = f"http://127.0.0.1:{http_port}", f"socks5h://127.0.0.1:{socks_port}"
    named = {"HTTP_PROXY": http, "HTTPS_PROXY": http, "ALL_PROXY": socks, "NO_PROXY": _LOCAL}
    return {
        **named,
        **{name.lower(): value for name, value in named.items()},
        "NODE_USE_ENV_PROXY": "1",
    }


def git_over_https(allow: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """git's ssh addresses of allowed hosts written as https ones, behind whatever `env` already configures.

    Those hosts are the ones that are named in `allow` themselves, and the hosting sites of presets.
    """
    rules = Rules(allow)
    named = [str(rule.host) for rule in expand(allow) if rule.text == rule.host and 443 in rule.ports]
    hosts = [host for host in dict.fromkeys((*named, *GIT_HOSTS)) if rules.match(host, 443) is not None]
    count = env.get("GIT_CONFIG_COUNT", "") or "0"
    if not (count.isascii() and count.isdigit() and int(count) < _MAX_COUNT):
        return {}  # git would refuse it anyway, and says so
    index = int(count)
    found: dict[str, str] = {}
    for host in hosts:
        for spelling in (f"git@{host}:", f"ssh://git@{host}/"):
            found[f"GIT_CONFIG_KEY_{index}"] = f"url.https://{host}/.insteadOf"
            found[f"GIT_CONFIG_VALUE_{index}"] = spelling
            index += 1
    return {**found, "GIT_CONFIG_COUNT": str(index)} if found else {}
