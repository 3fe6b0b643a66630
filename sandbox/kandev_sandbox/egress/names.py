"""What a host in a request or a rule is called: a name in its one spelling, or an address; nothing in between."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

NAME_CHARS = 253  # RFC 1035, 2.3.4, without the final dot
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# What a resolver may take for an address in another spelling (inet_aton(3), WHATWG URL: "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# IDNA 2003 and 2008 disagree about these (UTS #46, deviation characters), so they could mean two names.
_DEVIATIONS = frozenset("ßẞς\u200c\u200d")


def parse_host(text: str) -> str | Address:
    """The name in lower case without a final dot, or the address. Raises `ValueError`, which says what is wrong.

    Only ASCII: programs send a name in its xn-- form. An IPv6 address may stand in brackets. Octal, hexadecimal and
    shortened spellings of an address are neither names nor addresses here, since the resolver would take them.
    """
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1])
    if ":" in text:
        return _ipv6(text)
    if not text.isascii():
        raise ValueError("the name is not ASCII (a program sends it in its xn-- form)")
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(name)
    if len(name) > NAME_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("this is no host name")
    return name


def parse_port(text: str) -> int:
    """1 to 65535, in plain digits. Raises `ValueError`."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError("a port is a number from 1 to 65535")
    return int(text)


def split_port(text: str) -> tuple[str, str | None]:
    """`host:port` or `[v6]:port` in its parts; the port is None where there is none. An IPv6 address needs brackets."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("write an IPv6 address in brackets, as in [2001:db8::1]:443")
        return host + bracket, rest[1:] if rest else None
    if text.count(":") > 1:
        raise ValueError("write an IPv6 address in brackets, as in [2001:db8::1]:443")
    host, colon, port = text.partition(":")
    return host, port if colon else None


def to_ascii(name: str) -> str:
    """A name that a person wrote, in the form in which programs send it. Raises `ValueError`."""
    if name.isascii():
        return name
    if _DEVIATIONS & set(name):
        raise ValueError("write this name in its xn-- form: its letters mean two different names")
    return ".".join(map(_label_to_ascii, name.split(".")))


def _label_to_ascii(label: str) -> str:
    if label.isascii():
        return label
    try:
        found = label.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError("this is no host name") from error
    if "." in found or not found.startswith("xn--"):
        raise ValueError(f"write {label!r} as {found!r}, if that is what you mean")
    return found


def _ipv4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)  # refuses leading zeros, and all but four decimal numbers
    except AddressValueError as error:
        raise ValueError("this is no IPv4 address of four decimal numbers") from error


def _ipv6(text: str) -> IPv6Address:
    if "%" in text:
        raise ValueError("an address with a zone is of one link alone")
    try:
        return IPv6Address(text)
    except AddressValueError as error:
        raise ValueError("this is no IPv6 address") from error
