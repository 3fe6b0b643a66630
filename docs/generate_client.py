"""Write the typed requests of the client from the types: `python docs/generate_client.py`. A test holds them to it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from kandev_host.protocol.actions import ACTIONS, Shape

MODULE = Path(__file__).parents[1] / "kandev_host/client/requests.py"
WIDTH = 121
START, END = "    # <overloads>\n", "    # </overloads>"


def overload(shape: Shape) -> str:
    """One overload; a request of its own for every action is what makes it possible."""
    request, response = (f"wire.{type.__module__.rpartition('.')[2]}.{type.__name__}" for type in _types(shape))
    line = f"    async def request(self, request: {request}, **how: Unpack[How]) -> {response}: ...\n"
    if len(line) > WIDTH:
        line = line.replace("(self,", "(\n        self,").replace(") ->", "\n    ) ->")
    return "    @overload\n" + line


def generated(module: str) -> str:
    """The module with its overloads made anew."""
    overloads = "".join(overload(shape) for shape in ACTIONS.values()) + "\n"
    return re.sub(re.escape(START) + ".*?" + re.escape(END), START + overloads + END, module, flags=re.DOTALL)


def _types(shape: Shape) -> tuple[type, type]:
    return shape.request, shape.response


def main() -> int:
    MODULE.write_text(generated(MODULE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
