from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kandev_sandbox.egress import addresses

PUBLIC = ["93.184.216.34", "1.1.1.1", "8.8.8.8", "151.101.0.223", "172.15.0.1", "172.32.0.1", "100.63.0.1", "11.0.0.1",
          "203.0.113.80", "2001:db8::1", "2606:4700:4700::1111", "2a04:4e42::223", "2001:4860:4860::8888"]  # fmt: skip

# RFC 5737, 3849, 9637: of nobody; what answers there is a mirror that a network put there.
DOCUMENTATION = [
    ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
]


@pytest.mark.parametrize("text", PUBLIC)
def test_an_ordinary_address_may_be_dialled(text: str) -> None:
    assert addresses.special(ip_address(text)) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0.0.0.0", "this host"), ("0.1.2.3", "this host"), ("127.0.0.1", "loopback"), ("127.255.255.254", "loopback"),
        ("10.0.0.1", "private"), ("172.16.0.1", "private"), ("172.31.255.255", "private"), ("192.168.1.1", "private"),
        ("169.254.169.254", "link-local"), ("100.64.0.1", "carrier-grade NAT"),
        ("100.100.100.200", "carrier-grade NAT"),
        ("192.0.0.192", "reserved"), ("168.63.129.16", "a cloud's own service"), ("198.18.0.1", "benchmarks"),
        ("192.88.99.1", "6to4 relay"), ("224.0.0.1", "multicast"), ("239.255.255.250", "multicast"),
        ("240.0.0.1", "reserved"), ("255.255.255.255", "reserved"),
        ("::", "this host"), ("::1", "loopback"), ("::ffff:127.0.0.1", "IPv4 in IPv6"),
        ("::ffff:8.8.8.8", "IPv4 in IPv6"),
        ("::127.0.0.1", "IPv4 in IPv6"), ("64:ff9b::7f00:1", "NAT64"), ("64:ff9b::808:808", "NAT64"),
        ("64:ff9b:1::a00:1", "NAT64"), ("2002:7f00:1::1", "6to4"), ("2002:a00:1::", "6to4"),
        ("2001:0:7f00:1::", "reserved"),
        ("fc00::1", "private"), ("fd00:ec2::254", "private"), ("fe80::1", "link-local"), ("fec0::1", "site-local"),
        ("ff02::1", "multicast"), ("100::1", "reserved"), ("4000::1", "reserved"), ("5f00::1", "reserved"),
        ("2a00:1::5efe:7f00:1", "IPv4 in IPv6"), ("2a00:1::200:5efe:a00:1", "IPv4 in IPv6"),
    ],
)  # fmt: skip
def test_a_special_address_is_known_for_what_it_is(text: str, what: str) -> None:
    assert addresses.special(ip_address(text)) == what


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_that_may_be_dialled_is_public_also_for_python(address: IPv4Address) -> None:
    if addresses.special(address) is None and not any(address in network for network in DOCUMENTATION):
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_loopback, address.is_link_local))


@given(st.ip_addresses(v=6, network="2000::/3") | st.ip_addresses(v=6))
def test_an_ipv6_address_that_may_be_dialled_is_public_also_for_python(address: IPv6Address) -> None:
    if addresses.special(address) is None and not any(address in network for network in DOCUMENTATION):
        assert address.is_global
        assert address.ipv4_mapped is None
        assert address.sixtofour is None
        assert address.teredo is None


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_in_ipv6_may_be_dialled(address: IPv4Address) -> None:
    number = int(address)
    embedded = [number, 0xFFFF << 32 | number, 0x64_FF9B << 96 | number, 0x2002 << 112 | number << 80]
    assert [addresses.special(IPv6Address(one)) for one in embedded].count(None) == 0


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1"])
def test_an_address_of_this_machine_is_its_own(text: str) -> None:
    assert addresses.is_own(ip_address(text))


def test_every_address_of_an_interface_is_its_own() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))
        except OSError:
            return  # a machine without a route has no further address
        mine = ip_address(probe.getsockname()[0])
    assert addresses.is_own(mine)


def test_an_address_elsewhere_is_not_its_own() -> None:
    assert not addresses.is_own(ip_address("203.0.113.1"))


def test_the_tables_do_not_hide_each_other() -> None:
    assert addresses.special(ip_network("192.168.0.0/16")[-1]) == "private"
    assert addresses.special(ip_address("192.169.0.0")) is None


def test_an_answer_with_a_zone_is_no_address() -> None:
    with pytest.raises(ValueError, match="zone"):
        addresses.parse("fe80::1%2")
