"""What runs in a jail must not write to the user's clipboard by way of his terminal (OSC 52)."""

from __future__ import annotations

_BEGINS = (b"\x1b]52", b"\xc2\x9d52")
_LONGEST = max(map(len, _BEGINS))
_ENDS = (b"\x07", b"\x1b\\", b"\xc2\x9c", b"\x18", b"\x1a")


class Sieve:
    """Takes the sequence out of a stream that may be cut anywhere."""

    def __init__(self) -> None:
        self._held = b""
        self._dropping = False

    def passed(self, data: bytes) -> bytes:
        """What of it may be shown, as far as that can be said yet."""
        data, self._held = self._held + data, b""
        shown = b""
        while data:
            if self._dropping:
                at, length = _first(data, _ENDS)
                if at < 0:
                    self._held = data[-1:] if data[-1:] in {b"\x1b", b"\xc2"} else b""
                    return shown
                self._dropping, data = False, data[at + length :]
            else:
                at, length = _first(data, _BEGINS)
                if at < 0:
                    keep = _unsure(data)
                    self._held = data[len(data) - keep :]
                    return shown + data[: len(data) - keep]
                shown += data[:at]
                self._dropping, data = True, data[at + length :]
        return shown


def _first(data: bytes, wanted: tuple[bytes, ...]) -> tuple[int, int]:
    """Where the first of them begins, and how long it is."""
    found = [(at, len(each)) for each in wanted if (at := data.find(each)) >= 0]
    return min(found, default=(-1, 0))


def _unsure(data: bytes) -> int:
    """How many bytes at the end may be the beginning of what is looked for."""
    for length in range(min(_LONGEST - 1, len(data)), 0, -1):
        if any(begin.startswith(data[-length:]) for begin in _BEGINS):
            return length
    return 0
