"""Services of the host, by every kind of socket."""

from __future__ import annotations

import socket
import struct

from .kernel import read
from .table import World, case


def _said(family: int, address: object) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as peer:
        peer.settimeout(2)
        peer.connect(address)  # type: ignore[arg-type]
        return peer.recv(100).decode()


@case()
def reach_a_service_of_the_host(w: World) -> object:
    return _said(socket.AF_INET, ("127.0.0.1", w.port))


@case()
def reach_it_by_any_address(w: World) -> object:
    return _said(socket.AF_INET, ("0.0.0.0", w.port))


@case()
def reach_it_by_another_loopback_address(w: World) -> object:
    return _said(socket.AF_INET, ("127.1.2.3", w.port))


@case()
def reach_it_by_ipv6(w: World) -> object:
    return _said(socket.AF_INET6, ("::ffff:127.0.0.1", w.port, 0, 0))


@case()
def reach_it_by_udp(w: World) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(2)
        peer.connect(("127.0.0.1", w.udp_port))
        peer.send(b"?")
        return peer.recv(100).decode()


@case()
def reach_it_with_fast_open(w: World) -> object:
    """sendto(MSG_FASTOPEN) connects without connect(2)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as peer:
        peer.sendto(b"?", socket.MSG_FASTOPEN, ("127.0.0.1", w.port))
        peer.settimeout(2)
        return peer.recv(100).decode()


@case()
def reach_a_unix_socket(w: World) -> object:
    return _said(socket.AF_UNIX, w.unix)


@case()
def reach_an_abstract_socket(w: World) -> object:
    return _said(socket.AF_UNIX, "\0" + w.abstract)


@case()
def find_the_sockets_of_the_host(w: World) -> object:
    return w.abstract in read("/proc/net/unix", 1 << 22)


@case()
def find_the_ports_of_the_host(w: World) -> object:
    lines = (read("/proc/net/tcp") + read("/proc/net/tcp6")).splitlines()
    return any(line.split()[1].endswith(f":{w.port:04X}") for line in lines)


@case()
def share_the_abstract_names_of_the_host(w: World) -> object:
    """A name of the host is taken there, and free where the names are a jail's own."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind("\0" + w.abstract)
        except OSError:
            return True
    return False


@case(needs="seccomp")
def make_a_socket_to_the_hypervisor(w: World) -> object:
    """vsock knows no network namespaces."""
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    return True


@case(root=True)
def make_a_raw_socket(w: World) -> object:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return True


@case(root=True)
def make_a_packet_socket(w: World) -> object:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    return True


@case()
def ask_the_kernel_for_the_hosts_sockets(w: World) -> object:
    """sock_diag: a dump of the unix sockets, with their names."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diagnosis:
        diagnosis.settimeout(2)
        request = struct.pack("<BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, 1, 0, 0)
        diagnosis.send(struct.pack("<IHHII", 16 + len(request), 20, 0x301, 1, 0) + request)
        found = b""
        while chunk := diagnosis.recv(1 << 16):
            found += chunk
            if struct.unpack_from("<H", chunk, 4)[0] == 3 or len(found) > 1 << 22:
                break
        return w.abstract.encode() in found
