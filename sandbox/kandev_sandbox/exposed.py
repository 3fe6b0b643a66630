"""What is mounted in folders that another jail of the place may write to, and who makes those mounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

from kandev_sandbox import mountpoints, pins, userstage
from kandev_sandbox.policy import Bind, Policy

Maker = Literal["stage", "script", "bwrap"]


@dataclass(frozen=True, slots=True)
class Exposed:
    """`binds` by their place inside; `pinned` are the pins, outer ones first, with open descriptors.

    `maker` is the stage of root, whose mounts come along with the workspace; an ordinary user's script; or, where that
    may not be, bwrap.
    """

    policy: Policy
    binds: Mapping[str, Bind]
    pinned: Sequence[pins.Pin]
    maker: Maker

    @classmethod
    def of(cls, policy: Policy, staged: bool, held: ExitStack) -> Exposed:
        """What there is now. The descriptors are open as long as `held`."""
        binds = {bind.inside: bind for _, _, bind in mountpoints.needed(policy)}
        if staged:
            return cls(policy, binds, (), "stage")
        pinned = held.enter_context(pins.found(policy, str(policy.workspace)))
        if (pinned or binds) and userstage.refusal() is None:
            return cls(policy, binds, userstage.placed(policy, pinned), "script")
        return cls(policy, binds, pinned, "bwrap")

    @property
    def for_bwrap(self) -> Policy:
        """The policy without the binds that are there before bwrap runs."""
        if self.maker == "bwrap" or not self.binds:
            return self.policy
        return replace(self.policy, binds=tuple(bind for bind in self.policy.binds if bind.inside not in self.binds))

    @property
    def pins_for_bwrap(self) -> list[tuple[int, str, bool]]:
        """As `argv.options` wants them."""
        pinned = self.pinned if self.maker == "bwrap" else ()
        return [(pin.descriptor, pin.inside, pin.read_only) for pin in pinned]

    @property
    def wanted(self) -> dict[str, bool]:
        """Place inside → read-only? What is looked for before the command may run; the stage has looked itself."""
        if self.maker == "stage":
            return {}
        found = {place: bind.read_only for place, bind in self.binds.items()}
        return found | {pin.inside: pin.read_only for pin in self.pinned}
