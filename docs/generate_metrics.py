"""Write the table of docs/metrics.md: `python docs/generate_metrics.py`. A test holds the page to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from kandev_host.metrics import METRICS

PAGE = Path(__file__).parent / "metrics.md"
START, END = "<!-- made by docs/generate_metrics.py -->\n", "<!-- end of what is made -->"


def rows() -> Iterator[str]:
    yield "| metric | kind | labels | what it says |"
    yield "|---|---|---|---|"
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.summary} |"


def generated(page: str) -> str:
    """The page with its table made anew."""
    head, _, rest = page.partition(START)
    return head + START + "\n".join(rows()) + "\n" + END + rest.partition(END)[2]


def main() -> int:
    PAGE.write_text(generated(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
