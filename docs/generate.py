"""Write the tables of docs/protocol.md from the types: `python docs/generate.py`. A test holds them to it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec

from kandev_host.protocol.actions import ACTIONS

PAGE = Path(__file__).parent / "protocol.md"
START, END = "<!-- actions: held to the code by a test -->\n", "<!-- end of actions -->"


def fields(struct: type[msgspec.Struct]) -> str:
    """`a, b?, c`: the fields of a struct, a `?` behind each that may be absent."""
    return ", ".join(f"{field.encode_name}{'' if field.required else '?'}" for field in msgspec.structs.fields(struct))


def actions_table() -> str:
    lines = ["| action | payload | response | scope |", "|---|---|---|---|"]
    for name, shape in ACTIONS.items():
        response = ", ".join(field.encode_name for field in msgspec.structs.fields(shape.response))
        lines.append(f"| {name} | {fields(shape.request)} | {response} | `{shape.scope}` |")
    return "\n".join(lines) + "\n"


def generated(page: str) -> str:
    return re.sub(re.escape(START) + ".*?" + re.escape(END), START + actions_table() + END, page, flags=re.DOTALL)


def main() -> int:
    PAGE.write_text(generated(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
