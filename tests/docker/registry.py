"""A read-only OCI registry on the loopback, to which engines speak without TLS. It can be slow, or fail."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
PIECE = 16 << 10
WAIT_S = 120


@dataclass
class Registry:
    """`hold` keeps layers back after their first half until `go` is set; `cut` ends them there; `wrong` tells lies."""

    port: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    hold: bool = False
    cut: bool = False
    wrong: bool = False
    go: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, layers: list[bytes]) -> str:
        """An image of these tar archives; what it is pulled by."""
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
            "history": [{"created_by": "a test"} for _ in layers],
        }).encode()  # fmt: skip
        packed = [gzip.compress(layer, 0, mtime=0) for layer in layers]
        described = [
            {"mediaType": kind, "size": len(blob), "digest": self._blob(blob)}
            for kind, blob in ((CONFIG, config), *((LAYER, blob) for blob in packed))
        ]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
        self.images[name] = json.dumps(manifest).encode()
        self._blob(self.images[name])
        return f"127.0.0.1:{self.port}/{name}:1"

    def _blob(self, content: bytes) -> str:
        self.blobs[_digest(content)] = content
        return _digest(content)


def layer(name: str, size: int) -> bytes:
    """A tar archive with one file that does not compress."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        content = b"".join(hashlib.sha512(f"{name}{at}".encode()).digest() for at in range(0, size, 64))
        archive.addfile(entry, io.BytesIO(content[:size]))
    return made.getvalue()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    registry: Registry


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        registry = self.server.registry
        kind, content = _found(registry, self.path)
        if content is None:
            kind, content = "application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}'
            self.send_response(404)
        else:
            self.send_response(200)
            self.send_header("Docker-Content-Digest", _digest(content))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            registry.sent.append(self.path)
            with suppress(OSError):
                self._body(content, of_a_layer=kind == "application/octet-stream" and len(content) > PIECE)

    def _body(self, content: bytes, *, of_a_layer: bool) -> None:
        registry = self.server.registry
        half = len(content) // 2 if of_a_layer else len(content)
        self.wfile.write(content[:half])
        if of_a_layer and registry.hold:
            registry.go.wait(WAIT_S)
        if of_a_layer and registry.cut:
            self.close_connection = True
            return
        rest = content[half:]
        self.wfile.write(bytes(len(rest)) if registry.wrong else rest)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def serving() -> Iterator[Registry]:
    registry = Registry()
    with Server(("127.0.0.1", 0), Handler) as server:
        server.registry = registry
        registry.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield registry
        finally:
            registry.go.set()
            server.shutdown()
            thread.join()


def _found(registry: Registry, path: str) -> tuple[str, bytes | None]:
    words = path.split("?", maxsplit=1)[0].strip("/").split("/")
    if words == ["v2"]:
        return "application/json", b"{}"
    name, kind, last = "/".join(words[1:-2]), words[-2], words[-1]
    if kind == "manifests":
        return MANIFEST, registry.blobs.get(last) if ":" in last else registry.images.get(name)
    return "application/octet-stream", registry.blobs.get(last)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
