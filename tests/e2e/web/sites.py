"""Servers that are not the host's: an attacker's, an agent's dev server, and a name that is bound anew."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

PAGE = b"<!doctype html><title>A page of somebody else</title><body>"
OPAQUE = "/sandboxed"
WORKER = b"onfetch = (event) => event.respondWith(new Response('intercepted'));"


@dataclass
class Site:
    """Answers every GET with a page, and keeps the headers of what it was asked."""

    port: int
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            body, kind = (WORKER, "text/javascript") if self.path == "/worker.js" else (PAGE, "text/html")
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if self.path == OPAQUE:
                self.send_header("Content-Security-Policy", "sandbox allow-scripts")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here = Site(server.server_address[1])
        with _serving(server):
            yield here


@dataclass
class Rebound:
    """A name of which the attacker first is the address, and then the host is."""

    address: str
    bound_anew: bool = False


@contextmanager
def rebinding(host_port: int) -> Iterator[Rebound]:
    """On another address of this machine, with the host's own port: a page, and from then on the host itself.

    For browser and host that is what a name is that has been bound to another address: name, port and origin stay.
    """

    class Handler(StreamRequestHandler):
        rbufsize = 0  # what follows the head is the host's to read

        def handle(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = self.rfile.readline()
                if not line:
                    return  # a connection in reserve
                head += line
            if not name.bound_anew:
                answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(PAGE)}\r\nConnection: close\r\n\r\n"
                self.wfile.write(answer.encode() + PAGE)
                return
            with socket.create_connection(("127.0.0.1", host_port)) as host:
                host.sendall(head)
                there = threading.Thread(target=_pump, args=(self.connection, host))
                there.start()
                _pump(host, self.connection)
                there.join()

    class Server(ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    name = Rebound("127.0.0.2")
    with Server((name.address, host_port), Handler) as server, _serving(server):
        yield name


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextmanager
def _serving(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
