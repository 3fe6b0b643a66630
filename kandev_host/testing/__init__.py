"""Contract suites for plugin authors, for pytest with anyio's plugin: subclass one and give it its fixture."""

from kandev_host.testing.authenticator import AuthenticatorContract, IssuerContract
from kandev_host.testing.bus import BusContract
from kandev_host.testing.runtime import RuntimeContract
from kandev_host.testing.store import StoreContract
from kandev_host.testing.upkeep import StorePlace, UpkeepContract

__all__ = [
    "AuthenticatorContract",
    "BusContract",
    "IssuerContract",
    "RuntimeContract",
    "StoreContract",
    "StorePlace",
    "UpkeepContract",
]
