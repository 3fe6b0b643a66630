"""Which addresses a proxy must not dial for a name: those that are no address of the public internet, and the host's.

The tables are written out, not taken from `ipaddress.is_global`, whose answers differ between versions of Python.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

from kandev_sandbox.egress.names import Address

# IANA's special-purpose registries (RFC 6890 and updates), and a cloud's service at a public address. Not among them:
# those for documentation, which are no part of anybody's own network, and behind which some networks keep mirrors.
_IPV4 = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's own service"),  # Azure's WireServer
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarks"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
# Inside of 2000::/3, the only part of IPv6 that is public. What embeds an IPv4 address could lead to any.
_IPV6 = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("2001::/23", "reserved"),  # Teredo, ORCHID and others
        ("2002::/16", "6to4"),
    )
)
_IPV6_ELSEWHERE = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("::/128", "this host"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4 in IPv6"),
        ("::/96", "IPv4 in IPv6"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_PUBLIC_IPV6 = IPv6Network("2000::/3")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # RFC 5214: interface identifiers that embed an IPv4 address


def special(address: Address) -> str | None:
    """What kind of address it is, in a word or two, if it is no ordinary public one."""
    if isinstance(address, IPv4Address):
        return next((what for network, what in _IPV4 if address in network), None)
    if address not in _PUBLIC_IPV6:
        return next((what for network, what in _IPV6_ELSEWHERE if address in network), "reserved")
    if int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
        return "IPv4 in IPv6"
    return next((what for network, what in _IPV6 if address in network), None)


def is_own(address: Address) -> bool:
    """Is it an address of this machine? Asks the routing table; sends nothing."""
    version, family = ("ipv4", socket.AF_INET) if isinstance(address, IPv4Address) else ("ipv6", socket.AF_INET6)
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((str(address), 0))  # the kernel refuses this for what is not its own, unless told not to
        if not _binds_anything(version):
            return True
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(address), 9))
        return leads_home(probe)
    return False


def _binds_anything(version: str) -> bool:
    try:
        return Path(f"/proc/sys/net/{version}/ip_nonlocal_bind").read_bytes().strip() != b"0"
    except OSError:
        return False


def leads_home(connected: socket.socket) -> bool:
    """Does this connected socket end on the machine that it started from? Only such a one has one address twice."""
    try:
        return bool(connected.getsockname()[0] == connected.getpeername()[0])
    except OSError:
        return False  # its peer is gone already


def parse(text: str) -> Address:
    """An address as the resolver answers it. A mapped one stays what it is; raises `ValueError` for one with a zone."""
    found = ip_address(text)
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        raise ValueError("an address with a zone is of one link alone")
    return found
