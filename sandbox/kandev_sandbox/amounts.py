"""The limits of a jail as they are written on the command line."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace

from kandev_sandbox.policy import Limits

_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([kmgt]?)(?:i?b)?", re.ASCII)
_TIMES = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smh]?)", re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --memory, --cpus, --pids, --disk and --timeout."""
    parser.add_argument("--memory", type=size, metavar="SIZE", help="of all its processes together, such as 2g")
    parser.add_argument("--cpus", type=float, metavar="N", help="1.5 is one and a half; needs control groups")
    parser.add_argument("--pids", type=int, metavar="N", help="processes and threads")
    parser.add_argument(
        "--disk",
        type=size,
        metavar="SIZE",
        help="that the folder may hold, what is in it now included: looked at about once a second, as root too, and "
        "above it the command is ended; /tmp and the home are in memory, 512m each",
    )
    parser.add_argument("--timeout", type=duration, metavar="TIME", help="after which it is ended: 90, 90s, 5m, 1h")


def limits_of(options: argparse.Namespace) -> Limits:
    """The usual limits, with what was asked for. Raises `PolicyError` for what is too little."""
    return replace(
        Limits(),
        memory_bytes=options.memory,
        cpus=options.cpus,
        tree_processes=options.pids,
        disk_bytes=options.disk,
        wall_s=options.timeout,
    )


def size(text: str) -> int:
    """Bytes of "512m", "1.5g", "2GiB" or "4096" (binary units). Raises `ArgumentTypeError`."""
    found = _SIZE.fullmatch(text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as 512m or 2g")
    return int(float(found[1]) * (1 << _UNITS[found[2]]))


def duration(text: str) -> float:
    """Seconds of "90", "90s", "5m" or "1h". Raises `ArgumentTypeError`."""
    found = _TIME.fullmatch(text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write it as 90s, 5m or 1h")
    return float(found[1]) * _TIMES[found[2]]
