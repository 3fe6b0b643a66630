"""The command line. Only what `--version` needs is imported here: it answers as quickly as Python starts."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `kandev-host`."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from kandev_host.version import __version__

        print(f"kandev-host {__version__}")
        return
    from kandev_host.cli.app import run

    sys.exit(run(sys.argv[1:]))
