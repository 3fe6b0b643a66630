"""What an attack is, and the table that the attacks enter themselves in.

The modules of this folder run inside of a jail, on nothing but the standard library, and also without a jail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Trace = Literal["answer", "file", "program", "death", "left"]
CASES: dict[str, Case] = {}


class World(NamedTuple):
    """Where the attack is, and what there is to be had outside. The secret itself is of course not told.

    Every secret is one and the same token. `library` is a folder of the host that a jail sees read-only at its own
    path; `targets` are files, and `victims` processes, one for each attack that is shown by them.
    """

    workspace: str
    home: str
    outside: str
    secret: str
    library: str
    handle: str
    victim: int
    address: int
    port: int
    udp_port: int
    unix: str
    abstract: str
    shm_id: int
    shm_file: str
    queue: str
    user: str
    node: str
    terminal: str
    word: str
    targets: dict[str, str]
    victims: dict[str, int]
    limits: dict[str, int]


@dataclass(frozen=True)
class Case:
    """One attack. It answers the token or True if it got through; an `OSError` says that it was refused.

    `trace` is how success shows: by the answer, by a changed target or program, by a dead victim, or by what is left
    when the jail has ended. `root` says that without a jail only root gets through. `needs` are the features of the
    jail that stop it. `nested` is false where a jail that may hold jails allows it by intention. `small` is an attack
    on small limits; one that is `alone` has a jail of these to itself; `dropped` are those that only a uid of its own
    bounds. `then` is what the host does in the workspace afterwards.
    """

    name: str
    attack: Callable[[World], object]
    trace: Trace = "answer"
    root: bool = False
    needs: tuple[str, ...] = ()
    nested: bool = True
    small: bool = False
    alone: bool = False
    dropped: bool = False
    then: str = ""


def case(
    *,
    trace: Trace = "answer",
    root: bool = False,
    needs: str = "",
    nested: bool = True,
    small: bool = False,
    alone: bool = False,
    dropped: bool = False,
    then: str = "",
) -> Callable[[Callable[[World], object]], Callable[[World], object]]:
    """Enter a function into the table, under its module's and its own name."""

    def enter(attack: Callable[[World], object]) -> Callable[[World], object]:
        name = f"{attack.__module__.rpartition('.')[2]}.{attack.__name__}"
        assert name not in CASES
        CASES[name] = Case(name, attack, trace, root, tuple(needs.split()), nested, small, alone, dropped, then)
        return attack

    return enter
