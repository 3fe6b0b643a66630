"""How the jail that clones a URL reaches its host, and nothing else; or the host alone, which fetches it with a log-in.

What is fetched is hostile, and so is the server: git runs in the jail of the new workspace, before any agent, through
the proxy of the runtime with one entry in its allowlist. Keys of ssh enter no jail: ssh URLs are fetched over https.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from kandev_host.errors import ValidationFailed
from kandev_host.interfaces import Network
from kandev_host.services.credentials.handed import Handed
from kandev_host.services.forwarding.brokerage import Brokered
from kandev_host.services.git import hardened_environment
from kandev_host.services.network import leads_out
from kandev_host.services.repositories import FIELD, PORTS, Repository


class Remote(msgspec.Struct, frozen=True):
    """What git is given: the URL, and what its jail may reach."""

    url: str
    network: Network
    allow: tuple[str, ...]
    env: Mapping[str, str] = msgspec.field(default_factory=dict)


def remote_of(repository: Repository, more: tuple[str, ...] = (), brokered: Brokered | None = None) -> Remote:
    """`more` is what the setup may reach: of that only addresses, behind which the URL's own host may be.

    A name would be another host, to which a server that takes over git could send what git logs in with. Raises
    `ValidationFailed` for a scheme that no proxy serves. What is `brokered` the host fetches, wherever it is.
    """
    if brokered is not None:
        env = Handed(git_config=brokered.config).over(hardened_environment())
        return Remote(over_https(repository.location), "none", brokered.allow, env)
    if repository.loopback_port is not None:
        return Remote(repository.location, "none", (f"127.0.0.1:{repository.loopback_port}",))
    url = over_https(repository.location)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValidationFailed(
            FIELD, f"{parts.scheme}:// goes through no proxy: give the https:// URL, or a local clone"
        )
    host = parts.hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        raise ValidationFailed(FIELD, "This machine serves no ssh to a jail: give http://127.0.0.1:PORT/…, or a path")
    shown = f"[{host}]" if ":" in host else host
    entry = f"{shown}:{parts.port or PORTS[parts.scheme]}"
    return Remote(url, "allowlist", tuple(dict.fromkeys((entry, *filter(_is_address, more)))))


def _is_address(entry: str) -> bool:
    """Is it an address of a network, and no name, preset or loopback service?"""
    try:
        return leads_out(entry) and bool(ip_address(urlsplit(f"//{entry}").hostname or ""))
    except ValueError:
        return False


def over_https(location: str) -> str:
    """The https URL of an ssh one, at the same host; others as they are."""
    if "://" not in location:  # user@host:path
        host, _, path = location.rpartition("@")[2].partition(":") if "@" in location else location.partition(":")
        return f"https://{host}/{path.lstrip('/')}"
    parts = urlsplit(location)
    if parts.scheme.lower() != "ssh":
        return location
    host = parts.hostname or ""
    return f"https://{f'[{host}]' if ':' in host else host}{parts.path}"
