"""Traps in a repository: the host's git, run on it, must not run what the jail has planted."""

from __future__ import annotations

import os
import stat
import subprocess

from .kernel import NEWNS, attempt, mount, namespaces, read, umount, write
from .table import World, case

STATUS = "git status"
DIFF = "git diff"


def _git(folder: str, *arguments: str) -> None:
    names = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
    env = {"PATH": "/usr/bin:/bin", "HOME": folder, **dict.fromkeys(names, "x@x")}
    done = subprocess.run(["git", "-C", folder, *arguments], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _repository(w: World, name: str, *below: str) -> str:
    folder = os.path.join(w.workspace, name, *below)
    os.makedirs(folder)
    _git(folder, "init", "-q")
    write(f"{folder}/file", "one\n")
    _git(folder, "add", "file")
    _git(folder, "commit", "-qm", "one")
    return folder


def _payload(w: World, name: str, folder: str) -> str:
    """A program that writes where only the host can."""
    path = f"{folder}/payload"
    write(path, f"#!/bin/sh\necho escaped > {w.targets[name]}\ncat\n")
    os.chmod(path, 0o755)
    return path


@case(trace="file", then=STATUS)
def file_system_monitor(w: World) -> object:
    folder = _repository(w, "file_system_monitor")
    return _git(folder, "config", "core.fsmonitor", _payload(w, "git.file_system_monitor", folder))


@case(trace="file", then=STATUS)
def clean_filter(w: World) -> object:
    folder = _repository(w, "clean_filter")
    _git(folder, "config", "filter.x.clean", _payload(w, "git.clean_filter", folder))
    write(f"{folder}/.gitattributes", "file filter=x\n")
    return write(f"{folder}/file", "two\n")


@case(trace="file", then=DIFF)
def external_diff(w: World) -> object:
    folder = _repository(w, "external_diff")
    _git(folder, "config", "diff.external", _payload(w, "git.external_diff", folder))
    return write(f"{folder}/file", "two\n")


@case(trace="file", then=DIFF)
def text_conversion(w: World) -> object:
    folder = _repository(w, "text_conversion")
    _git(folder, "config", "diff.x.textconv", _payload(w, "git.text_conversion", folder))
    write(f"{folder}/.gitattributes", "file diff=x\n")
    return write(f"{folder}/file", "two\n")


@case(trace="file", then=STATUS)
def included_configuration(w: World) -> object:
    folder = _repository(w, "included_configuration")
    program = _payload(w, "git.included_configuration", folder)
    write(f"{folder}/innocent", f"[core]\n\tfsmonitor = {program}\n")
    return _git(folder, "config", "include.path", "../innocent")


@case(trace="file", then=STATUS)
def common_folder(w: World) -> object:
    """.git/commondir names another folder with another configuration."""
    folder = _repository(w, "common_folder")
    program = _payload(w, "git.common_folder", folder)
    other = _repository(w, "common_folder", "other")
    _git(other, "config", "core.fsmonitor", program)
    return write(f"{folder}/.git/commondir", "../other/.git\n")


@case(trace="file", then=STATUS)
def nested_repository(w: World) -> object:
    """Added as a link to a commit, it is entered by status with its own configuration."""
    folder = _repository(w, "nested_repository")
    inner = _repository(w, "nested_repository", "inner")
    _git(folder, "add", "inner")
    _git(folder, "commit", "-qm", "two")
    return _git(inner, "config", "core.fsmonitor", _payload(w, "git.nested_repository", folder))


@case(trace="file", then=STATUS)
def bare_repository(w: World) -> object:
    """A folder that looks like a repository is one."""
    folder = f"{w.workspace}/bare_repository"
    os.makedirs(folder)
    program = _payload(w, "git.bare_repository", folder)
    _git(folder, "init", "-q", "--bare", ".")
    _git(folder, "config", "core.bare", "false")
    _git(folder, "config", "core.worktree", folder)
    _git(folder, "add", "payload")
    return _git(folder, "config", "core.fsmonitor", program)


@case(trace="file", then=STATUS)
def repository_elsewhere(w: World) -> object:
    """.git is a file that names another folder."""
    folder = _repository(w, "repository_elsewhere")
    os.rename(f"{folder}/.git", f"{folder}/elsewhere")
    _git(f"{folder}/elsewhere", "config", "core.fsmonitor", _payload(w, "git.repository_elsewhere", folder))
    return write(f"{folder}/.git", "gitdir: elsewhere\n")


def _git_folder(w: World) -> str:
    """The one that the host has made."""
    attempt(lambda: namespaces(NEWNS))
    return f"{w.workspace}/.git"


@case(needs="pins")
def write_a_hook(w: World) -> object:
    hook = f"{_git_folder(w)}/hooks/pre-commit"
    return write(hook, "#!/bin/sh\n") and stat.S_ISREG(os.stat(hook).st_mode)


@case(needs="pins")
def write_the_configuration(w: World) -> object:
    path = f"{_git_folder(w)}/config"
    text = read(path)
    write(f"{path}.lock", text + "[core]\n")
    attempt(lambda: os.rename(f"{path}.lock", path))
    attempt(lambda: write(path, text + "[core]\n"))
    return read(path) != text


@case(needs="pins")
def move_the_hooks_away(w: World) -> object:
    folder = _git_folder(w)
    os.rename(f"{folder}/hooks", f"{folder}/hooks-before")
    os.rename(f"{folder}/hooks-before", f"{folder}/hooks")
    return True


@case(needs="pins")
def move_the_repository_away(w: World) -> object:
    folder = _git_folder(w)
    os.rename(folder, f"{w.workspace}/git-before")
    os.rename(f"{w.workspace}/git-before", folder)
    return True


@case(needs="pins")
def take_the_pins_out(w: World) -> object:
    """As root of a namespace of its own, where there is one."""
    folder = _git_folder(w)
    for path in (f"{folder}/hooks", f"{folder}/config", folder):
        attempt(lambda path=path: umount(path), lambda path=path: mount("", path, None, 32 | 4096))
    return write(f"{folder}/hooks/post-checkout", "#!/bin/sh\n")
