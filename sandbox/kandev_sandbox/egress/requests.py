"""The heads of HTTP requests to a proxy, read as strictly as a proxy must (RFC 9112): what is unclear is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kandev_sandbox.egress.names import parse_port, split_port

HEAD_BYTES = 65536
MAX_HEADERS = 128
_REQUEST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]{1,32768}) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):[ \t]*([\x20-\x7e\x80-\xff\t]*)")
_ABSOLUTE = re.compile(r"(?i:http)://([^/?#]*)([/?][^#]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
# RFC 9110, 7.6.1: of one connection alone. Transfer-Encoding is kept, since the body is sent on as it came.
_ONE_HOP = {b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-authorization"}


class BadRequest(Exception):
    """The request is not one that a proxy serves; `status` is the answer."""

    def __init__(self, words: str, status: int = 400) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """`head` is what goes on to the server; empty for CONNECT. `length` is that of the body, None for a chunked one."""

    connect: bool
    host: str
    port: int
    head: bytes = b""
    length: int | None = 0


def parse(head: bytes) -> Request:
    """A head up to and with its empty line. Raises `BadRequest`."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    found = _REQUEST.fullmatch(first)
    if found is None:
        raise BadRequest("this is no HTTP/1 request")
    if len(lines) > MAX_HEADERS:
        raise BadRequest(f"more than {MAX_HEADERS} headers")
    method, target, version = found[1], found[2].decode("ascii"), found[3]
    headers = [_header(line) for line in lines]
    if method == b"CONNECT":
        host, port = _authority(target, None)
        return Request(True, host, port)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadRequest("this is a proxy: send CONNECT host:port, or a request for http://host/…")
    host, port = _authority(absolute[1], 80)
    length = _length(headers, version)
    path = absolute[2] or ("*" if method == b"OPTIONS" else "/")
    path = path if path[0] in "/*" else f"/{path}"
    authority = absolute[1].encode()
    kept = _end_to_end(headers)
    lines = [
        b"%s %s HTTP/1.%s" % (method, path.encode(), version),
        b"Host: " + authority,
        *(b"%s: %s" % header for header in kept),
    ]
    return Request(False, host, port, b"\r\n".join([*lines, b"Connection: close", b"", b""]), length)


def _header(line: bytes) -> tuple[bytes, bytes]:
    found = _HEADER.fullmatch(line)
    if found is None:
        raise BadRequest("a header is not of the form NAME: VALUE")
    return found[1], found[2].strip(b" \t")


def _authority(text: str, default: int | None) -> tuple[str, int]:
    try:
        host, port = split_port(text)
        if port is None and default is None:
            raise ValueError("CONNECT needs a port")
        return host, default if port is None else parse_port(port)  # type: ignore[return-value]
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _length(headers: list[tuple[bytes, bytes]], version: bytes) -> int | None:
    """RFC 9112, 6.3: two ways to tell the end of a body are one too many."""
    codings = [value for name, value in headers if name.lower() == b"transfer-encoding"]
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    if codings:
        if lengths or len(codings) > 1 or codings[0].lower() != b"chunked" or version != b"1":
            raise BadRequest("the length of the body is not clear")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequest("the length of the body is not clear")
    return int(lengths[0])


def _end_to_end(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    named = (value for name, value in headers if name.lower() == b"connection")
    listed = {word.strip().lower() for value in named for word in value.split(b",")}
    dropped = (_ONE_HOP | listed | {b"host"}) - {b"transfer-encoding", b"content-length"}
    return [(name, value) for name, value in headers if name.lower() not in dropped]
