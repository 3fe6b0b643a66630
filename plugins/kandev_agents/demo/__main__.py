"""Start with `kandev-demo-agent`, with `python -m kandev_agents.demo`, or by naming this folder to a Python."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

if not __package__:
    # Started as a folder: sys.path[0] is the folder itself, and its modules are a package only seen from above.
    sys.path[0] = str(Path(__file__).parent.parent)

main = import_module(f"{__package__ or 'demo'}.agent").main

if __name__ == "__main__":
    main()
