"""What every Runtime must do. Subclass `RuntimeContract` and say which plugin it is of."""

from __future__ import annotations

from kandev_host.testing.runtime.base import Capability
from kandev_host.testing.runtime.confinement import ConfinementContract
from kandev_host.testing.runtime.owning import OwningContract
from kandev_host.testing.runtime.places import PlaceContract
from kandev_host.testing.runtime.processes import ProcessContract
from kandev_host.testing.runtime.running import RunContract
from kandev_host.testing.runtime.shells import ShellContract

__all__ = ["Capability", "RuntimeContract"]


class RuntimeContract(ProcessContract, RunContract, PlaceContract, ConfinementContract, OwningContract, ShellContract):
    """The tests. They use only what `Runtime` promises.

    `plugin` is the module with the hook `kandev_runtimes`, `provider` the name of the one meant where it has several;
    the module must be importable in another process, since a host is killed. `settings`, a fixture, is the table of the
    runtime as in TOML. With `confines = False`, for a runtime without a jail, only what needs none is tested. What a
    runtime `lacks` it is held to refuse. `processes_limit` is what the settings bound the processes of a spawn to.

    Where the processes run there must be sh, coreutils, setsid, stty and python3 (busybox has all but the last).
    """
