"""Servers of this machine under names of the outside: TLS with a certificate authority of the tests' own."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import ssl
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Content = Mapping[str, bytes]


@dataclass(frozen=True)
class Site:
    """Served at 127.0.0.1:`port`; `allow` lets a jail reach it under `names`."""

    port: int
    names: tuple[str, ...]

    @property
    def allow(self) -> tuple[str, ...]:
        return (f"127.0.0.1:{self.port}", *(f"{name}:{self.port}" for name in self.names))

    async def lookup(self, name: str, port: int) -> Sequence[str]:
        assert name in self.names
        return ["127.0.0.1"]


@dataclass(frozen=True)
class Authority:
    """`certificate` is what clients must trust; `chain` and `key` are a server's for every name of the tests."""

    certificate: Path
    chain: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, names: Sequence[str]) -> Authority:
        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Tests", "-days", "3650")
        openssl("req", *key, "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=server")
        wanted = ",".join(f"DNS:{name}" for name in names)
        folder.joinpath("extensions").write_text(f"subjectAltName={wanted}\nextendedKeyUsage=serverAuth\n")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3650", "-extfile", "extensions"]
        openssl("x509", "-req", "-in", "csr.pem", "-out", "cert.pem", *signing)
        return cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")


@contextmanager
def site(names: Sequence[str], content: Callable[[int], Content], authority: Authority | None = None) -> Iterator[Site]:
    """A web server of fixed files: path → content, made for its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = files.get(self.path.partition("?")[0])
            self.send_response(404 if found is None else 200)
            kind = "application/json" if (found or b"").startswith(b"{") else "application/octet-stream"
            self.send_header("Content-Type", "text/html" if (found or b"").startswith(b"<") else kind)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def do_POST(self) -> None:
            got = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(got)))
            self.end_headers()
            self.wfile.write(got)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that left

    with Server(("127.0.0.1", 0), Handler) as server:
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(authority.chain, authority.key)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        files = content(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Site(server.server_address[1], tuple(names))
        finally:
            server.shutdown()
            thread.join()


def wheel() -> bytes:
    """The package `kandevtest` for pip: one module."""
    files = {
        "kandevtest.py": b"WORD = 'from the index'\n",
        "kandevtest-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: kandevtest\nVersion: 1.0\n",
        "kandevtest-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for name, body in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(body)}")
    files["kandevtest-1.0.dist-info/RECORD"] = "\n".join([*lines, "kandevtest-1.0.dist-info/RECORD,,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return packed.getvalue()


def package_index(_port: int) -> Content:
    """What pip asks for: a page of links, and the wheel."""
    page = b'<!DOCTYPE html><a href="/files/kandevtest-1.0-py3-none-any.whl">kandevtest-1.0-py3-none-any.whl</a>'
    return {"/simple/kandevtest/": page, "/files/kandevtest-1.0-py3-none-any.whl": wheel()}


def npm_registry(name: str) -> Callable[[int], Content]:
    """What npm asks for: the document of a package, and its tarball."""
    package = json.dumps({"name": "kandevtest", "version": "1.0.0", "main": "index.js"}).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, body in (("package.json", package), ("index.js", b"module.exports = 'from the registry'\n")):
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    tarball = packed.getvalue()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()

    def content(port: int) -> Content:
        dist = {"tarball": f"https://{name}:{port}/kandevtest-1.0.0.tgz", "integrity": integrity}
        version = {"name": "kandevtest", "version": "1.0.0", "main": "index.js", "dist": dist}
        document = {"name": "kandevtest", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        return {"/kandevtest": json.dumps(document).encode(), "/kandevtest-1.0.0.tgz": tarball}

    return content


def repository(folder: Path) -> Content:
    """A git repository with one commit, as files that any web server can serve."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, env=env, timeout=60)

    git("init", "--quiet", "work")
    folder.joinpath("work/README").write_text("from the repository\n")
    git("-C", "work", "add", "README")
    git("-C", "work", "commit", "--quiet", "--message=First")
    git("clone", "--quiet", "--bare", "work", "bare.git")
    git("-C", "bare.git", "update-server-info")
    bare = folder / "bare.git"
    return {f"/bare.git/{path.relative_to(bare)}": path.read_bytes() for path in bare.rglob("*") if path.is_file()}
