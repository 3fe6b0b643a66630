"""`python -m kandev_host` is `kandev-host`."""

from __future__ import annotations

from kandev_host.cli import main

if __name__ == "__main__":
    main()
