"""How programs repeat a value: as it is, in JSON, in URLs, in base64 and in hex. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

# A shorter value is a word, a number or a flag: taking it out would tear holes everywhere and hide nothing.
SHORTEST = 6


def spellings(secret: str) -> Iterator[bytes]:
    """As it is and line by line, in JSON, in URLs, in hex, and in base64 wherever it may stand in what was encoded."""
    for text in {secret, secret.strip(), *(line.strip() for line in secret.splitlines())}:
        raw = text.encode("utf-8", "surrogateescape")
        if len(raw) < SHORTEST:
            continue
        if b"\n" not in raw:
            yield raw
        plain = json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogateescape")[1:-1]
        escaped = json.dumps(text)[1:-1].encode()
        yield from (plain, plain.replace(b"/", b"\\/"), escaped, escaped.replace(b"/", b"\\/"))
        yield json.dumps(escaped.decode())[1:-1].encode()  # JSON in a string of JSON
        for url in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
            yield url.encode()
            yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), url).encode()
        yield from (raw.hex().encode(), raw.hex().upper().encode())
        for shift in range(3):
            encoded = _shifted(raw, shift)
            if len(encoded) >= SHORTEST:
                yield from (encoded, encoded.translate(bytes.maketrans(b"+/", b"-_")), encoded.replace(b"/", b"\\/"))


def _shifted(raw: bytes, shift: int) -> bytes:
    """The part of its base64 that is the same whatever stands before and after it, `shift` bytes into a group of 3."""
    first = (0, 2, 3)[shift]
    whole = (shift + len(raw)) * 8 // 6
    return base64.b64encode(b"\0" * shift + raw)[first:whole]
