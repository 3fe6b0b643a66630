"""Write the table of live settings of docs/settings.md: `python docs/generate_settings.py`; held by a test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from kandev_host.settings import Settings
from kandev_host.settings.keys import children, struct_of
from kandev_host.settings.live import live_keys

PAGE = Path(__file__).parent / "settings.md"
START, END = "<!-- made by docs/generate_settings.py -->\n", "<!-- end of what is made -->"


def rows() -> Iterator[str]:
    yield "| table | taken over by a reload | needs a restart |"
    yield "|---|---|---|"
    for name, kind in children(Settings).items():
        table = struct_of(kind)
        if table is None:
            whole = "all of it"
            live, rest = (whole, "") if name in Settings.LIVE else ("", whole)
            yield f"| `[{name}.NAME]` | {live} | {rest} |"
            continue
        keys = list(children(table))
        live, rest = (
            ", ".join(f"`{key}`" for key in keys if (key in live_keys(table)) is wanted) for wanted in (True, False)
        )
        yield f"| `[{name}]` | {live} | {rest} |"


def generated(page: str) -> str:
    """The page with its table made anew."""
    head, _, rest = page.partition(START)
    return head + START + "\n".join(rows()) + "\n" + END + rest.partition(END)[2]


def main() -> int:
    PAGE.write_text(generated(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
