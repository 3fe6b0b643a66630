"""What a hostile command tries in order to reach this machine through the proxy, or past it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any

import pytest

from kandev_sandbox import Decision
from kandev_sandbox.egress import addresses

pytestmark = pytest.mark.anyio

# Asks for each target in four ways; prints what came back, and whether the canary answered.
ATTACK = r"""
import json, os, socket, struct, sys

def talk(port, *parts):
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.settimeout(10)
        got = b""
        try:
            for part in parts:
                s.sendall(part)
                if part is not parts[-1]:
                    got += s.recv(4096)
            while chunk := s.recv(4096):
                got += chunk
        except OSError:
            pass
        return got

def port_of(name):
    return int(os.environ[name].rpartition(":")[2])

HTTP, SOCKS = port_of("HTTP_PROXY"), port_of("ALL_PROXY")
TARGETS, PORT = json.loads(sys.argv[1]), int(sys.argv[2])
GET = b"GET / HTTP/1.0\r\n\r\n"
found = {}
for target in TARGETS:
    name = target.encode("utf-8", "surrogateescape")
    plain = name.strip(b"[]")
    ways = {
        "connect": (HTTP, b"CONNECT %s:%d HTTP/1.1\r\nHost: %s\r\n\r\n" % (name, PORT, name) + GET),
        "http": (HTTP, b"GET http://%s:%d/ HTTP/1.1\r\nHost: ok.evil.example\r\n\r\n" % (name, PORT)),
        "socks": (SOCKS, b"\5\1\0", b"\5\1\0\3" + bytes([len(plain)]) + plain + struct.pack(">H", PORT) + GET),
    }
    for kind, family in ((1, socket.AF_INET), (4, socket.AF_INET6)):
        try:
            packed = socket.inet_pton(family, plain.decode())
        except (OSError, ValueError):
            continue
        ways["socks literal"] = (SOCKS, b"\5\1\0", b"\5\1\0" + bytes([kind]) + packed + struct.pack(">H", PORT) + GET)
    for way, (port, *parts) in ways.items():
        got = talk(port, *parts)
        if b"canary" in got:
            found[f"{target} by {way}"] = "reached"
        elif port == HTTP:
            found[f"{target} by {way}"] = got.split()[1].decode() if got else "closed"
        else:
            found[f"{target} by {way}"] = str(got[3]) if len(got) > 3 else "closed"
print(json.dumps(found))
"""

DIRECT = r"""
import json, socket, sys
found = {}
for family, address in json.loads(sys.argv[1]):
    try:
        with socket.socket(getattr(socket, family), socket.SOCK_STREAM) as s:
            s.settimeout(5)
            s.connect((address, int(sys.argv[2])))
            found[address] = "reached"
    except OSError as error:
        found[address] = error.strerror or str(error)
for family in ("AF_INET", "AF_INET6"):
    try:
        with socket.socket(getattr(socket, family), socket.SOCK_DGRAM) as s:
            s.connect(("1.1.1.1" if family == "AF_INET" else "2606:4700:4700::1111", 53))
            found["udp " + family] = "reached"
    except OSError as error:
        found["udp " + family] = error.strerror
try:
    socket.getaddrinfo("pypi.org", 443)
    found["resolver"] = "reached"
except OSError as error:
    found["resolver"] = "none"
print(json.dumps(found))
"""


def own_address() -> str:
    """An address of this machine on a network, or a loopback one where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


class Canary:
    """A server of this machine on all of its addresses, which no jail may reach."""

    def __init__(self) -> None:
        self.visitors = 0
        self._listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.visitors += 1
                connection.sendall(b"canary\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    found = Canary()
    yield found
    found.close()


LITERALS = [
    "127.0.0.1", "127.0.0.2", "127.1", "127.0.1", "0", "0.0.0.0", "2130706433", "0x7f000001", "0x7f.0.0.1",
    "0177.0.0.1", "127.0.0.1.", "127.0.0.01", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::1%lo]", "localhost", "LOCALHOST.", "ip6-localhost",
    "169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal", "10.0.0.1", "192.168.0.1", "[fe80::1]",
    "ok.evil.example@127.0.0.1", "127.0.0.1#.evil.example", "127.0.0.1/.evil.example", "127.0.0.1?.evil.example",
    "127.0.0.1%2f.evil.example", "127.0.0.1\0.evil.example", "127.0.0.1\t.evil.example", "127.0.0.1 .evil.example",
    "127.0.0.1\r\nX: .evil.example", "127。0。0。1", "①②⑦.⓪.⓪.①", "evil.example", "127.0.0.1.evil.example.", "",
]  # fmt: skip

LEADING = {
    "loop": ["127.0.0.1"], "loop2": ["127.8.8.8"], "loop6": ["::1"], "mapped": ["::ffff:127.0.0.1"],
    "compatible": ["::127.0.0.1"], "zero": ["0.0.0.0"], "zero6": ["::"], "private": ["10.0.0.1"],
    "private2": ["172.16.0.1"], "private3": ["192.168.1.1"], "nat": ["100.64.0.1"], "metadata": ["169.254.169.254"],
    "metadata6": ["fd00:ec2::254"], "azure": ["168.63.129.16"], "alibaba": ["100.100.100.200"], "link6": ["fe80::1"],
    "multicast": ["224.0.0.1"], "broadcast": ["255.255.255.255"], "nat64": ["64:ff9b::7f00:1"],
    "six": ["2002:7f00:1::"], "teredo": ["2001:0:7f00:1::"], "many": ["127.0.0.1", "::1", "10.0.0.1"],
    "scoped": ["fe80::1%2"], "own": [],
    "127.0.0.1": ["127.0.0.1"],
}  # fmt: skip


async def test_no_spelling_of_a_target_reaches_this_machine(sandbox: Any, canary: Canary) -> None:
    leading = {f"{word}.evil.example": found or [own_address()] for word, found in LEADING.items()}
    targets = [*LITERALS, *leading, own_address(), socket.gethostname()]
    decisions: list[Decision] = []

    async def lookup(name: str, port: int) -> Sequence[str]:
        return leading[name]

    done = await sandbox.run(
        "/usr/bin/python3", "-c", ATTACK, json.dumps(targets), str(canary.port),
        network="allowlist", allow=("*.evil.example", f"*.evil.example:{canary.port}"),
        lookup=lookup, on_decision=decisions.append,
    )  # fmt: skip
    assert done.code == 0, done.err
    answers = json.loads(done.out)
    assert len(answers) > 200
    assert {
        what: answer for what, answer in answers.items() if answer not in {"400", "403", "502", "2", "4", "1"}
    } == {}
    assert [decision for decision in decisions if decision.allowed and "fe80" not in str(decision.reason)] == [
        decision for decision in decisions if decision.host == "scoped.evil.example"
    ]
    assert canary.visitors == 0


async def test_what_is_tried_would_reach_the_canary_without_a_jail(canary: Canary) -> None:
    spellings = ["127.0.0.1", "127.1", "0", "0x7f.0.0.1", "2130706433", "::1", "::ffff:127.0.0.1", "localhost"]
    for spelling in (*spellings, own_address()):
        with socket.create_connection((spelling, canary.port), 5) as connection:
            assert connection.recv(10) == b"canary\n"
    assert canary.visitors == len(spellings) + 1


async def test_past_the_proxy_nothing_is_reached(sandbox: Any, canary: Canary) -> None:
    targets = [("AF_INET", "127.0.0.1"), ("AF_INET", own_address()), ("AF_INET", "1.1.1.1"), ("AF_INET6", "::1"),
               ("AF_INET6", "2606:4700:4700::1111")]  # fmt: skip
    command = ("/usr/bin/python3", "-c", DIRECT, json.dumps(targets), str(canary.port))
    done = await sandbox.run(*command, network="allowlist", allow=("*.evil.example",))
    assert "reached" not in json.loads(done.out).values()
    assert canary.visitors == 0


async def test_an_address_that_is_listed_is_reached_by_name_and_by_address(sandbox: Any, canary: Canary) -> None:
    async def lookup(name: str, port: int) -> Sequence[str]:
        return [own_address()]

    script = (
        f'for target in intranet.example {own_address()}; do curl -s --http0.9 --noproxy "" '
        f'http://$target:{canary.port}/; curl -s --http0.9 --proxy "$ALL_PROXY" http://$target:{canary.port}/; done'
    )
    allow = (f"intranet.example:{canary.port}", f"{own_address()}:{canary.port}")
    done = await sandbox.sh(script, network="allowlist", allow=allow, lookup=lookup)
    assert done.out.split() == ["canary"] * 4, done.err


async def test_a_flood_of_connections_leaves_the_jail_and_the_next_one_usable(sandbox: Any, canary: Canary) -> None:
    flood = (
        "import socket\n"
        "held = []\n"
        "for n in range(2000):\n"
        "    s = socket.socket(); s.setblocking(False); s.connect_ex(('127.0.0.1', 3128 if n % 2 else 1080))\n"
        "    held.append(s)\n"
        "print(len(held))\n"
    )
    asked = "; curl -s -o /dev/null -w '%{http_connect}' https://pypi.org/"
    done = await sandbox.sh(f'python3 -c "{flood}"{asked}', network="allowlist", allow=("a.example",))
    assert done.out.split() == ["2000", "403"]


async def test_the_listeners_are_the_jails_alone(sandbox: Any) -> None:
    async with sandbox.open("/bin/sh", "-c", "echo $HTTP_PROXY; cat", network="allowlist") as jail:
        assert (await jail.stdout.receive()).startswith(b"http://127.0.0.1:3128")
        for port in (3128, 1080):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:  # somebody else's: it must not be the jail's proxy
                    probe.sendall(b"\x05\x01\x00")
                    probe.settimeout(1)
                    assert probe.recv(2) != b"\x05\x00"
        await jail.kill()


def test_the_own_address_is_none_that_a_name_may_lead_to() -> None:
    mine = ip_address(own_address())
    assert addresses.special(mine) or addresses.is_own(mine)
