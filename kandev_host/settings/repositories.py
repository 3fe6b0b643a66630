"""What the workspaces of some repositories need before an agent begins."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from kandev_host.settings.base import Bytes, Seconds, Table


class RepositorySettings(Table, frozen=True, kw_only=True):
    """How workspaces of the repositories that match are made ready, in their jail, before an agent begins."""

    match: Annotated[
        str | None,
        Meta(description="Their path or URL; * stands for anything. Of several tables the first that matches counts."),
    ] = None
    credentials: Annotated[
        bool | None,
        Meta(description="May the host log in as your own git, or ssh, to fetch the clone? Unless true, it does not."),
    ] = None
    setup: Annotated[
        str | None, Meta(description="Shell script that runs in a new workspace, such as npm ci. It must succeed.")
    ] = None
    setup_timeout_s: Annotated[Seconds | None, Meta(description="Time for the script. Unless given, 900.")] = None
    allow: Annotated[
        tuple[str, ...] | None,
        Meta(description="What the clone (beside its own host) and the script may reach, such as @npm."),
    ] = None
    copy: Annotated[
        tuple[str, ...] | None,
        Meta(description="Ignored files that are copied from a local checkout, such as .env. Agents can read them."),
    ] = None
    copy_limit_bytes: Annotated[
        Bytes | None, Meta(description="Largest file that is copied. Unless given, 16 MiB.")
    ] = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for one that matches nothing, or that would copy from elsewhere."""
        if not self.match:
            raise ValueError("a repository needs match, its path or URL")
        for path in self.copy or ():
            parts = path.split("/")
            if "\0" in path or parts[0] == ".git" or any(part in {"", ".", ".."} for part in parts):
                raise ValueError(f"copy has {path!r}: name files by their path below the checkout, outside of .git")
