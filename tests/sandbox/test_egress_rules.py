from __future__ import annotations

import string
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kandev_sandbox import PolicyError
from kandev_sandbox.egress.names import parse_host, split_port
from kandev_sandbox.egress.presets import GIT_HOSTS, PRESETS
from kandev_sandbox.egress.rules import MAX_RULES, Rules, entry_for, expand, parse_rule, services, suggestions

LABELS = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=12).filter(
    lambda text: text[0] != "-" and text[-1] != "-"
)
NAMES = st.lists(LABELS, min_size=2, max_size=5).map(".".join).filter(lambda name: name[-1].isalpha())
PORTS = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("entries", "host", "port", "allowed"),
    [
        (["pypi.org"], "pypi.org", 443, True),
        (["pypi.org"], "pypi.org", 80, True),
        (["pypi.org"], "pypi.org", 22, False),
        (["pypi.org"], "PyPI.org", 443, True),
        (["PyPI.org."], "pypi.org", 443, True),
        (["pypi.org"], "pypi.org.", 443, True),
        (["pypi.org"], "evil-pypi.org", 443, False),
        (["pypi.org"], "pypi.org.evil.example", 443, False),
        (["pypi.org"], "a.pypi.org", 443, False),
        (["pypi.org"], "org", 443, False),
        (["*.example.org"], "a.example.org", 443, True),
        (["*.example.org"], "b.a.example.org", 443, True),
        (["*.example.org"], "example.org", 443, False),
        (["*.example.org"], "badexample.org", 443, False),
        (["*.example.org:8443"], "a.example.org", 8443, True),
        (["*.example.org:8443"], "a.example.org", 443, False),
        (["git.example.org:8443"], "git.example.org", 8443, True),
        (["git.example.org:8443"], "git.example.org", 443, False),
        (["bücher.example"], "xn--bcher-kva.example", 443, True),
        (["BÜCHER.example"], "xn--bcher-kva.example", 443, True),
        (["203.0.113.7"], "203.0.113.7", 443, True),
        (["203.0.113.7:22"], "203.0.113.7", 22, True),
        (["203.0.113.7"], "203.0.113.8", 443, False),
        (["[2001:db8::1]:443"], "[2001:DB8:0::1]", 443, True),
        (["[2001:db8::1]:443"], "2001:db8::1", 443, True),
        (["127.0.0.1:5432"], "127.0.0.1", 5432, True),
        (["127.0.0.1:5432"], "127.0.0.1", 5433, False),
        (["127.0.0.1:5432"], "127.0.0.2", 5432, False),
        (["@npm"], "registry.npmjs.org", 443, True),
        (["@npm"], "registry.npmjs.org", 80, False),
        (["@debian"], "deb.debian.org", 80, True),
        ([], "pypi.org", 443, False),
    ],
)
def test_what_an_allowlist_lets_through(entries: list[str], host: str, port: int, allowed: bool) -> None:
    assert (Rules(entries).match(parse_host(host), port) is not None) is allowed


@pytest.mark.parametrize(
    "text",
    [
        "0x7f.0.0.1", "0177.0.0.1", "127.1", "2130706433", "127.0.0.1.", "0", "1.2.3.4.5", "256.1.1.1", "1.2.3.0x4",
        "a.1", "0x7f000001", "::1%lo", "[::1", "::1]", "1:2", "", ".", "..", "a..b", ".a.b", "-a.b", "a-.b", "a b.c",
        "a/b.c", "a@b.c", "a\0.b", "a\r\nb.c", "a%2eb.c", "bücher.example", "ⓔxample.org", "pypi。org", "a,b", "*.a.b",
        "a" * 64 + ".b", ".".join(["a" * 60] * 5), "127。0。0。1", "①②⑦.0.0.1", "a.b:80",
    ],
)  # fmt: skip
def test_what_is_neither_a_name_nor_an_address_is_refused(text: str) -> None:
    if text == "127.0.0.1.":  # the one spelling with a dot at its end that a resolver takes for the same address
        assert parse_host(text) == ip_address("127.0.0.1")
        return
    with pytest.raises(ValueError, match=r"is|means|bracket"):
        parse_host(text)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("*", "cannot be allowed"),
        ("*.org", "far too much"),
        ("*.1.2.3.4", "far too much"),
        ("*.*.example.org", "cannot be allowed"),
        ("a.*.example.org", "cannot be allowed"),
        ("https://pypi.org", "cannot be allowed"),
        ("pypi.org/simple", "cannot be allowed"),
        ("pypi.org:", "port"),
        ("pypi.org:0", "port"),
        ("pypi.org:65536", "port"),
        ("pypi.org:²", "port"),
        ("pypi.org:443:443", "brackets"),
        ("2001:db8::1", "brackets"),
        ("", "cannot be allowed"),
        ("@nothing", "no preset"),
        ("localhost:80", "loopback"),
        ("a.localhost", "loopback"),
        ("127.0.0.1", "127.0.0.1:PORT"),
        ("straße.example", "xn--"),
        ("\uff50ypi.org", "if that is what you mean"),
        ("0x7f.1", "IPv4"),
    ],
)
def test_an_entry_that_says_nothing_clear_is_refused_with_the_reason(entry: str, words: str) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        expand([entry])
    assert caught.value.fix


def test_an_allowlist_has_a_bound() -> None:
    with pytest.raises(PolicyError, match="at most"):
        expand([f"a{number}.example.org" for number in range(MAX_RULES + 1)])


def test_only_the_loopback_services_are_forwarded() -> None:
    assert services(["pypi.org", "127.0.0.1:5432", "@npm", "127.0.0.2:80", "127.0.0.1:8377"]) == (5432, 8377)


@pytest.mark.parametrize("word", sorted(PRESETS))
def test_a_preset_holds_rules_that_name_no_address(word: str) -> None:
    rules = expand([f"@{word}"])
    assert rules
    assert all(isinstance(rule.host, str) and "." in rule.host and rule.text == f"@{word}" for rule in rules)


def test_a_preset_of_code_has_its_git_host() -> None:
    found = Rules(["@github", "@gitlab", "@bitbucket", "@codeberg"])
    assert [host for host in GIT_HOSTS if found.match(host, 443) is None] == []


@pytest.mark.parametrize(
    ("host", "port", "entries"),
    [
        ("pypi.org", 443, ("pypi.org", "@pypi")),
        ("example.org", 22, ("example.org:22",)),
        ("203.0.113.7", 443, ("203.0.113.7",)),
        ("127.0.0.1", 80, ("127.0.0.1:80",)),
        ("2001:db8::1", 8443, ("[2001:db8::1]:8443",)),
        ("registry.npmjs.org", 443, ("registry.npmjs.org", "@npm")),
    ],
)
def test_a_denial_can_name_the_entry_that_would_allow_it(host: str, port: int, entries: tuple[str, ...]) -> None:
    assert suggestions(parse_host(host), port) == entries
    assert Rules(entries[:1]).match(parse_host(host), port) == entries[0]


@given(NAMES, PORTS)
def test_the_suggested_entry_allows_exactly_what_was_asked(name: str, port: int) -> None:
    rules = Rules([entry_for(name, port)])
    assert rules.match(name, port)
    assert not rules.match("x" + name, port)
    assert not rules.match("x." + name, port)
    assert not rules.match(name + ".x", port)
    assert not rules.match(name, 81 if port != 81 else 82)


@given(NAMES, NAMES)
def test_a_wildcard_allows_what_is_below_and_nothing_else(name: str, other: str) -> None:
    rules = Rules([f"*.{name}"])
    assert rules.match(f"{other}.{name}", 443)
    assert (rules.match(other, 443) is not None) == other.endswith(f".{name}")


@given(st.text(max_size=40))
def test_whatever_stands_for_a_host_is_read_or_refused(text: str) -> None:
    try:
        found = parse_host(text)
    except ValueError:
        return
    assert parse_host(str(found)) == found
    assert str(found).isascii()


@given(st.text(max_size=40))
def test_whatever_stands_in_an_allowlist_is_read_or_refused(text: str) -> None:
    try:
        rules = expand([text])
    except PolicyError:
        return
    assert all(rule.host and rule.ports for rule in rules)


@given(st.ip_addresses(v=4), PORTS)
def test_an_ipv4_address_is_read_in_its_one_spelling(address: object, port: int) -> None:
    assert parse_rule(f"{address}:{port}").host == address


@given(st.ip_addresses(v=6), PORTS)
def test_an_ipv6_address_is_read_in_all_its_spellings(address: object, port: int) -> None:
    exploded = ip_address(str(address)).exploded.upper()
    assert parse_rule(f"[{exploded}]:{port}").host == parse_host(str(address)) == address
    assert split_port(f"[{address}]:{port}") == (f"[{address}]", str(port))
