"""Frames that break RFC 6455, or the limits: each with the code of the close that answers it (7.4.1 there)."""

from __future__ import annotations

from .wire import BINARY, CLOSE, PING, PONG, TEXT, asking, frame

PROTOCOL_ERROR, UNSUPPORTED, NOT_UTF_8, TOO_LARGE = 1002, 1003, 1007, 1009
PART, CONTINUED = 0x01, 0x80
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"  # of deflate

FRAMES: dict[str, tuple[bytes, set[int]]] = {
    "binary": (frame(b"x", BINARY), {UNSUPPORTED}),
    "binary-request": (frame(asking("health.check"), BINARY), {UNSUPPORTED}),
    "binary-in-parts": (frame(b"x", 0x02) + frame(b"y", CONTINUED), {UNSUPPORTED}),
    "too-large": (frame(b" " * 70_000), {TOO_LARGE}),
    "too-large-in-parts": (frame(b" " * 40_000, PART) + frame(b" " * 40_000, CONTINUED), {TOO_LARGE}),
    "too-large-in-many-parts": (frame(b" ", PART) + frame(b" " * 1000, 0x00) * 80, {TOO_LARGE}),
    "says-2-mib": (b"\x81\xff\x00\x00\x00\x00\x00\x20\x00\x00mask" + b"x" * 1000, {TOO_LARGE}),
    "says-2^63": (b"\x81\xff\x7f" + b"\xff" * 7 + b"mask", {PROTOCOL_ERROR, TOO_LARGE}),
    "says-2^64": (b"\x81\xff" + b"\xff" * 8 + b"mask", {PROTOCOL_ERROR, TOO_LARGE}),
    "compressed": (frame(EMPTY_BLOCK, 0xC1), {PROTOCOL_ERROR}),
    "reserved-bit-2": (frame(b"{}", 0xA1), {PROTOCOL_ERROR}),
    "reserved-bit-3": (frame(b"{}", 0x91), {PROTOCOL_ERROR}),
    "reserved-bits-of-a-ping": (frame(b"", 0xF9), {PROTOCOL_ERROR}),
    **{f"opcode-{code:x}": (frame(b"{}", 0x80 | code), {PROTOCOL_ERROR}) for code in (3, 7, 0xB, 0xF)},
    "ping-in-parts": (frame(b"x", 0x09), {PROTOCOL_ERROR}),
    "close-in-parts": (frame(b"\x03\xe8", 0x08), {PROTOCOL_ERROR}),
    "ping-too-long": (frame(b"x" * 126, PING), {PROTOCOL_ERROR}),
    "pong-too-long": (frame(b"x" * 4096, PONG), {PROTOCOL_ERROR}),
    "close-too-long": (frame(b"\x03\xe8" + b"x" * 124, CLOSE), {PROTOCOL_ERROR}),
    "continues-nothing": (frame(b"x", CONTINUED), {PROTOCOL_ERROR}),
    "begins-twice": (frame(b"{", PART) + frame(b"{", PART), {PROTOCOL_ERROR}),
    "begins-and-ends": (frame(b"{", PART) + frame(b"{}", TEXT), {PROTOCOL_ERROR}),
    "close-one-byte": (frame(b"\x00", CLOSE), {PROTOCOL_ERROR}),
    **{
        f"close-code-{code}": (frame(code.to_bytes(2, "big"), CLOSE), {PROTOCOL_ERROR})
        for code in (0, 1, 999, 1004, 1005, 2999)
    },
    # Nobody may send these either; they are taken for a goodbye.
    **{f"close-code-{code}": (frame(code.to_bytes(2, "big"), CLOSE), {1000, PROTOCOL_ERROR}) for code in (1006, 65535)},
    "close-not-utf8": (frame(b"\x03\xe8\xff\xfe", CLOSE), {PROTOCOL_ERROR, NOT_UTF_8}),
    "close": (frame(b"\x03\xe8", CLOSE), {1000}),
    "noise": (bytes(range(255, 0, -1)) * 16, {PROTOCOL_ERROR}),
}
