"""The allowlist of a jail: pure, without a socket.

pypi.org               this name, on ports 80 and 443
*.example.org          every name below example.org, but not example.org
git.example.org:8443   this port alone
203.0.113.7:443        this address, asked for as an address, or behind a name of the list
127.0.0.1:5432         a loopback service of the host
@npm                   a preset
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from kandev_sandbox.egress.names import Address, parse_host, parse_port, split_port, to_ascii
from kandev_sandbox.egress.presets import PRESETS, preset_with
from kandev_sandbox.errors import PolicyError

DEFAULT_PORTS = (80, 443)
MAX_RULES = 256
_LOOPBACK = IPv4Address("127.0.0.1")


@dataclass(frozen=True, slots=True)
class Rule:
    """`text` is the entry as it was written, `host` a name or an address; with `below`, the names below that one."""

    text: str
    host: str | Address
    ports: tuple[int, ...]
    below: bool = False

    @property
    def service(self) -> bool:
        """Is it a loopback service of the host, reachable at the same address inside?"""
        return self.host == _LOOPBACK


class Rules:
    """The rules of one jail. Raises `PolicyError` for an entry that is none."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._named: dict[tuple[str | Address, int], str] = {}
        self._below: dict[tuple[str, int], str] = {}
        self.entries = tuple(entries)
        self.rules = expand(self.entries)
        for rule in self.rules:
            for port in rule.ports:
                if rule.below:
                    self._below.setdefault((str(rule.host), port), rule.text)
                else:
                    self._named.setdefault((rule.host, port), rule.text)

    def also(self, entries: Iterable[str]) -> Rules:
        """These and those, without their loopback services, for which no listener could be made any more."""
        return Rules((*self.entries, *(entry for entry in names_of(tuple(entries)) if entry not in self.entries)))

    def match(self, host: str | Address, port: int) -> str | None:
        """The entry that allows it, if any. A name must be in the spelling of `parse_host`."""
        found = self._named.get((host, port))
        if found is not None or not isinstance(host, str):
            return found
        labels = host.split(".")
        parents = (".".join(labels[index:]) for index in range(1, len(labels)))
        return next((self._below[parent, port] for parent in parents if (parent, port) in self._below), None)


def expand(entries: Iterable[str]) -> list[Rule]:
    """Every rule, those of presets included. Raises `PolicyError`."""
    rules: list[Rule] = []
    for entry in entries:
        if not entry.startswith("@"):
            rules.append(parse_rule(entry))
        elif entry[1:] in PRESETS:
            rules += (parse_rule(text, entry) for text in PRESETS[entry[1:]])
        else:
            raise PolicyError(f"There is no preset {entry!r}.", f"choose one of {', '.join(sorted(PRESETS))}")
    if len(rules) > MAX_RULES:
        raise PolicyError(f"An allowlist has at most {MAX_RULES} entries, not {len(rules)}.", "use a name with *.")
    return rules


def parse_rule(entry: str, text: str | None = None) -> Rule:
    """One entry that is no preset; `text` is what it is called in decisions. Raises `PolicyError`."""
    below = entry.startswith("*.")
    try:
        host_text, port_text = split_port(entry[2:] if below else entry)
        host = parse_host(to_ascii(host_text))
        ports = DEFAULT_PORTS if port_text is None else (parse_port(port_text),)
    except ValueError as error:
        fix = "write a name, *.name, name:port, an address, 127.0.0.1:PORT or @preset"
        raise PolicyError(f"{entry!r} cannot be allowed: {error}.", fix) from error
    _check_breadth(entry, host, below)
    if host == _LOOPBACK and port_text is None:
        raise PolicyError(f"{entry!r} names no loopback service.", "write it as 127.0.0.1:PORT")
    return Rule(text or entry, host, ports, below)


def _check_breadth(entry: str, host: str | Address, below: bool) -> None:
    if below and not (isinstance(host, str) and "." in host):
        raise PolicyError(f"{entry!r} would allow far too much.", "name the domain, as in *.example.org")
    if isinstance(host, str) and host.split(".")[-1] == "localhost":
        raise PolicyError(f"{entry!r} names no loopback service.", "write it as 127.0.0.1:PORT")


def services(entries: Sequence[str]) -> tuple[int, ...]:
    """The ports of the loopback services among them. Raises `PolicyError`."""
    return tuple(port for rule in expand(entries) if rule.service for port in rule.ports)


def names_of(entries: Sequence[str]) -> tuple[str, ...]:
    """What of them needs the proxy: all but the loopback services, as written. Raises `PolicyError`."""
    return tuple(entry for entry in entries if entry.startswith("@") or not parse_rule(entry).service)


def entry_for(host: str | Address, port: int) -> str:
    """The narrowest entry that would allow it."""
    text = f"[{host}]" if not isinstance(host, str | IPv4Address) else str(host)
    return text if port in DEFAULT_PORTS and host != _LOOPBACK else f"{text}:{port}"


def suggestions(host: str | Address, port: int) -> tuple[str, ...]:
    """Entries that would allow it: its own, and a preset that has it."""
    preset = preset_with(host, port) if isinstance(host, str) else None
    return (entry_for(host, port), *([preset] if preset else []))
