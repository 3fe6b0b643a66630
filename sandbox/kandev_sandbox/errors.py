"""What can go wrong, one class per situation; each says why and what to do about it."""

from __future__ import annotations


class SandboxError(Exception):
    """Base of all errors of this package. `reason` is the cause, `fix` the exact thing to do (or None)."""

    def __init__(self, reason: str, fix: str | None = None) -> None:
        super().__init__(reason if fix is None else f"{reason} Fix: {fix}")
        self.reason = reason
        self.fix = fix


class PolicyError(SandboxError):
    """The policy contradicts itself, or asks for something a jail never gets."""


class JailUnavailable(SandboxError):
    """This machine cannot make the jail; nothing was started."""


class SpawnFailed(SandboxError):
    """The jail was not built, or the command in it could not be executed."""


class ShellEnded(SandboxError):
    """The jail of a shell is gone, and with it everything that ran in it."""


class StagingFailed(SandboxError):
    """A folder could not be bound into the jail's private mount namespace."""


class ProgramMissing(SandboxError):
    """No such program for this user, or a part of it is gone."""


class ProgramNotFound(ProgramMissing):
    """The command itself is nowhere: who knows what it is also knows better how to install it."""


class ProgramRefused(SandboxError):
    """The program cannot be shown to the jail without showing far more than the program."""


class ForwardFailed(SandboxError):
    """The listener of a named loopback service could not be made in the jail's network namespace."""


class UidsExhausted(SandboxError):
    """Every uid of the range belongs to a workspace that still exists."""


class SharedFile(SandboxError):
    """A file of the tree is hard-linked from outside of it, so that a chown would change somebody else's file."""


class VolumeFailed(SandboxError):
    """A volume could not be made or mounted, or is mounted by somebody else."""
