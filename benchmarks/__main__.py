"""Measure every row as a ratio against a floor in the same run, and print the table.

python -m benchmarks                      all rows
python -m benchmarks --only ws_roundtrip  one row (repeatable)
python -m benchmarks --pairs 9 --json     more pairs, for machines
"""

from __future__ import annotations

import argparse
import json
import platform
import sys

from benchmarks import acp, beside, durable, fan_out, growth, jail, looks, memory, process, search, shell, sockets
from benchmarks.measure import Outcome, Row

ROWS: tuple[Row, ...] = (
    *sockets.ROWS,
    *durable.ROWS,
    *acp.ROWS,
    *fan_out.ROWS,
    *search.ROWS,
    *growth.ROWS,
    *jail.ROWS,
    *shell.ROWS,
    *beside.ROWS,
    *looks.ROWS,
    *process.ROWS,
    *memory.ROWS,
)

# Rows that are measured together under one name.
GROUPS: dict[str, tuple[Row, ...]] = {beside.GROUP: beside.ROWS}


def table(outcomes: list[Outcome], missing: list[tuple[Row, str]]) -> str:
    lines = ["| row | ours | floor | ratio (min to max) | target | met |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {o.row.name} | {o.ours:,.4g} {o.row.unit} | {o.floor:,.4g} {o.row.unit} "
        f"| {o.ratio:.2f} ({o.low:.2f} to {o.high:.2f}) | {o.row.target} | {'yes' if o.met else 'no'} |"
        for o in outcomes
    ]
    lines += [f"| {row.name} | not measured: {why} | | | {row.target} | |" for row, why in missing]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*GROUPS, *(row.name for row in ROWS)]
    parser.add_argument("--only", action="append", metavar="ROW", choices=names)
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="pairs of measurements (default 5)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    only = {row.name for name in options.only or () for row in GROUPS.get(name, ())} | set(options.only or ())
    chosen = [row for row in ROWS if not only or row.name in only]
    outcomes = []
    missing = []
    for row in chosen:
        if why := row.missing():
            missing.append((row, why))
            continue
        print(f"{row.name}: {row.what}", file=sys.stderr)
        outcomes.append(row.run(options.pairs))
    if options.json:
        rows = [outcome.plain() for outcome in outcomes]
        absent = [{"row": row.name, "missing": why} for row, why in missing]
        print(json.dumps({"machine": platform.platform(), "rows": rows + absent}, indent=1))
    else:
        print(table(outcomes, missing))
    return 0


if __name__ == "__main__":
    sys.exit(main())
