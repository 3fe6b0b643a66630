"""`kandev-host usage`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.ids import find_given, short
from kandev_host.cli.inputs import MOMENT
from kandev_host.cli.options import example
from kandev_host.cli.output import counted, table

Sums = Mapping[str, Any]

GROUPS = {"day": "day", "agent": "agent_type", "model": "model", "task": "task"}
BAR_CELLS = 20
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@click.command(
    epilog=example(
        "kandev-host usage\n"
        "kandev-host usage --by model --since 2026-01-01\n"
        "kandev-host usage --by agent --task 0c9e6a41 --json | jq .total.cost"
    )
)
@click.option("--by", type=click.Choice(list(GROUPS)), default="day", show_default=True, help="A line for each.")
@click.option("--task", help="Only of this task.")
@click.option("--agent", help="Only of this agent.")
@click.option("--board", help="Only of this board.")
@click.option("--since", type=MOMENT, metavar="TIME", help="Only turns that ended then or later, in UTC.")
@click.option("--until", type=MOMENT, metavar="TIME", help="Only turns that ended before, in UTC.")
@click.option("--limit", type=click.IntRange(1, 500), metavar="N", help="At most so many lines [default: 100].")
@asking
async def command(
    remote: Remote,
    by: str,
    task: str | None,
    agent: str | None,
    board: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
) -> None:
    """What turns used and cost, as far as agents tell and prices are known; deleted tasks still count.

    Days are UTC's. `-` is unknown, never 0. The bars show cost, or tokens where not all have one cost in one currency.
    """
    reply = await remote.call(
        "usage.summary",
        group_by=GROUPS[by],
        task_id=await find_given(remote, "task", task),
        agent_id=await find_given(remote, "agent", agent),
        board_id=await find_given(remote, "board", board),
        since=_in_utc(since),
        until=_in_utc(until),
        limit=limit,
    )
    remote.show(reply, lambda: _plain(by, reply["groups"], reply["total"]))


def _in_utc(time: datetime | None) -> str | None:
    return None if time is None else time.replace(tzinfo=UTC).isoformat()


def _plain(by: str, groups: list[Sums], total: Sums) -> None:
    table(
        [by.upper(), "TURNS", "INPUT", "CACHED", "OUTPUT", "COST", "TIME", "WAITED", ""],
        [
            *([_name(by, group["key"]), *_cells(group), bar] for group, bar in zip(groups, bars(groups), strict=True)),
            ["total", *_cells(total), ""],
        ],
    )
    left = {"without a cost": total["unpriced_turns"], "without tokens": total["unreported_turns"]}
    told = ", ".join(f"{counted(number, 'turn')} {what}" for what, number in left.items() if number)
    if told:
        click.echo(f"Not in these sums: {told}.", err=True)


def _name(by: str, key: str | None) -> str:
    if key is None:
        return "-"
    return short(key) if by == "task" else key


def _cells(sums: Sums) -> list[str]:
    cached = [sums[kind] for kind in ("cached_read_tokens", "cached_write_tokens") if sums[kind] is not None]
    costs = [f"{amount} {currency}" for currency, amount in sums["cost"].items()]
    return [
        str(sums["turns"]),
        _number(sums["input_tokens"]),
        _number(sum(cached) if cached else None),
        _number(sums["output_tokens"]),
        ", ".join(costs) or "-",
        duration(sums["wall_s"]),
        duration(sums["waiting_s"]),
    ]


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def duration(seconds: float | None) -> str:
    """As in 1:02:03, or 4.2s below a minute."""
    if seconds is None:
        return "-"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def bars(groups: Iterable[Sums]) -> list[str]:
    """A bar for each group, the longest of BAR_CELLS cells: of cost, or of tokens where costs cannot be compared."""
    groups = list(groups)
    currencies = {currency for group in groups for currency in group["cost"]}
    if len(currencies) == 1 and all(group["cost"] for group in groups):
        sizes = [Decimal(next(iter(group["cost"].values()))) for group in groups]
    else:
        sizes = [Decimal((group["input_tokens"] or 0) + (group["output_tokens"] or 0)) for group in groups]
    most = max(sizes, default=Decimal())
    return [_bar(size / most) if most else "" for size in sizes]


def _bar(share: Decimal) -> str:
    full, eighths = divmod(round(share * BAR_CELLS * 8), 8)
    return ("█" * full + _EIGHTHS[eighths]).rstrip()
