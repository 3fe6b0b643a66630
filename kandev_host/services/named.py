"""Names of tables of the settings, which is all that a request may give: never a command, a URL or a path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kandev_host.errors import ValidationFailed


def check_names(field: str, names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """Each of them once, in order. Raises `ValidationFailed`, with the `known` ones, for one that is not there."""
    there = sorted(known)
    for index, name in enumerate(names):
        if name not in there:
            error = ValidationFailed(
                f"{field}[{index}]", f"{name!r} is not in the settings{'' if there else ': none is'}"
            )
            error.details["known"] = there
            raise error
    return tuple(dict.fromkeys(names))
