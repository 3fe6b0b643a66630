"""Shells that people open in workspaces."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kandev_host.settings.base import Bytes, Count, Seconds, Table


class ShellSettings(Table, frozen=True, kw_only=True):
    """Bounds of shells, and the network of those that ask for none by name."""

    LIVE: ClassVar[frozenset[str]] = frozenset(
        {"open_limit", "idle_timeout_s", "output_limit_bytes", "network", "allow"}
    )

    open_limit: Annotated[Count, Meta(description="Shells that are open at once.")] = 64
    idle_timeout_s: Annotated[
        Seconds, Meta(description="A shell in which nothing runs, and which nobody follows, is closed after so long.")
    ] = 3600.0
    output_limit_bytes: Annotated[
        Bytes, Meta(description="Latest output of each shell that is held for those who come late.")
    ] = 1 << 20
    network: Annotated[
        Literal["none", "allowlist", "host"], Meta(description="Network of shells whose opener names none.")
    ] = "none"
    allow: Annotated[
        tuple[str, ...],
        Meta(
            description="Loopback services, as 127.0.0.1:8377, and with network allowlist also names, for all shells."
        ),
    ] = ()
    audit_files: Annotated[
        bool, Meta(description="Look before and after each command for the files that it changed; costs milliseconds.")
    ] = True
