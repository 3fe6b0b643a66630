"""Finding a command as its user has it, and the narrow trees that it needs inside the jail.

A program is rarely one file: `~/.local/bin/agent` is a link into a venv, whose script names an interpreter, which is
a link to a Python of pyenv or uv. Each of them is followed; each tree is bound read-only at its own path, and nothing
around it. A user's home is never bound.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from kandev_sandbox import elf, trees
from kandev_sandbox.errors import ProgramMissing, ProgramNotFound, ProgramRefused
from kandev_sandbox.policy import SYSTEM_PATH, Bind

_MAX_LINKS = 40
_SHEBANG_BYTES = 4096
# Programs that stand for another one, chosen by folder or environment: how to ask them for the real one.
_SHIMS = {"mise": "mise which", "asdf": "asdf which", "volta-shim": "volta which", "rtx": "rtx which"}


@dataclass(frozen=True, slots=True)
class Program:
    """`argv` starts it inside the jail; `path_entries` go before the system's PATH, `trees` are bound read-only."""

    argv: tuple[str, ...]
    path_entries: tuple[str, ...]
    trees: tuple[Path, ...]

    @property
    def binds(self) -> tuple[Bind, ...]:
        return tuple(Bind(tree) for tree in self.trees)


@dataclass(slots=True)
class _Needs:
    search: str
    trees: dict[Path, None] = field(default_factory=dict)
    entries: dict[str, None] = field(default_factory=dict)
    seen: set[Path] = field(default_factory=set)


def resolve(command: str, *args: str, search: str | None = None) -> Program:
    """Find `command` on `search` (a PATH; the caller's own by default) or at its path, and what it needs.

    Blocks (reads some files). Raises `ProgramMissing` and `ProgramRefused`, with the fix.
    """
    needs = _Needs(search if search is not None else os.environ.get("PATH", os.defpath))
    start = _visit(_find(command, needs.search), needs)
    outer = [tree for tree in needs.trees if not any(tree != other and _holds(other, tree) for other in needs.trees)]
    entries = tuple(entry for entry in needs.entries if entry not in SYSTEM_PATH)
    return Program((str(start), *args), entries, tuple(outer))


def _holds(outer: Path, inner: Path) -> bool:
    """`inner` is in `outer` as well in truth: a folder reached through a link lies elsewhere."""
    return inner.is_relative_to(outer) and Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(outer))


def _find(command: str, search: str) -> Path:
    if os.sep in command:
        path = Path(os.path.abspath(os.path.expanduser(command)))
        if not path.is_file():
            raise ProgramNotFound(f"There is no file {command}.", "install it, or name its path")
        if not os.access(path, os.X_OK):
            raise ProgramMissing(f"{command} is no executable file.", f"chmod +x {shlex.quote(str(path))}")
    else:
        found = shutil.which(command, path=search)
        if found is None:
            raise ProgramNotFound(f"{command} is not on the PATH.", f"install {command}, or name its path")
        path = Path(os.path.abspath(found))
    return _through_pyenv(path, search)


def _through_pyenv(path: Path, search: str) -> Path:
    """A shim of pyenv only asks which version is meant: answer that here (global version or PYENV_VERSION)."""
    root = path.parent.parent
    if path.parent.name != "shims" or not (root / "versions").is_dir():
        return path
    chosen = os.environ.get("PYENV_VERSION", "")
    if not chosen and (root / "version").is_file():
        chosen = (root / "version").read_text()
    for version in re.split(r"[:\s]+", chosen.strip()):
        real = root / "versions" / version / "bin" / path.name
        if version and real.is_file():
            return real
    rest = os.pathsep.join(entry for entry in search.split(os.pathsep) if Path(entry) != path.parent)
    found = shutil.which(path.name, path=rest)
    if found is None:
        raise ProgramMissing(
            f"pyenv knows no {path.name} for its version.", f"pyenv global VERSION that has {path.name}"
        )
    return Path(found)


def _visit(path: Path, needs: _Needs) -> Path:
    """Collect what this file needs. Returns the path under which it is to be executed inside."""
    for _ in range(_MAX_LINKS):
        if trees.is_system(path):
            return path
        tree = trees.find(path)
        if tree is not None:
            _add_tree(tree, needs)
            _contents(path, needs)
            return path
        if not path.is_symlink():
            break
        path = Path(os.path.normpath(path.parent.resolve() / os.readlink(path)))
    if path.name in _SHIMS:
        raise ProgramRefused(f"{path} only stands for the real program.", f"name what `{_SHIMS[path.name]} …` prints")
    if not path.is_file():
        raise ProgramMissing(f"{path} does not exist.", "install it again")
    _refuse_user_site(path)
    needs.trees[path] = None
    needs.entries[str(path.parent)] = None
    _contents(path, needs)
    return path


def _add_tree(tree: trees.Tree, needs: _Needs) -> None:
    if tree.root in needs.trees:
        return
    needs.trees[trees.check(tree.root)] = None
    needs.entries[str(tree.programs)] = None
    for interpreter in tree.python:
        _follow(interpreter, needs)


def _contents(path: Path, needs: _Needs) -> None:
    """What the file itself names: the links it stands for, its interpreter, its loader and libraries."""
    if path in needs.seen:
        return
    needs.seen.add(path)
    if path.is_symlink():
        _follow(path, needs)
        return
    binary = elf.read(path)
    if binary is None:
        _shebang(path, needs)
        return
    if binary.interpreter is not None and not trees.is_system(binary.interpreter):
        _folder(Path(os.path.realpath(binary.interpreter)).parent, needs)
    for folder in binary.run_paths:
        if folder.is_dir():
            _folder(Path(os.path.realpath(folder)), needs)


def _follow(link: Path, needs: _Needs) -> None:
    """The next place a link leads to; it may itself lie in a tree, or behind a linked folder."""
    if not link.is_symlink():
        return
    target = Path(os.path.normpath(link.parent / os.readlink(link)))
    if not target.exists():
        raise ProgramMissing(f"{link} leads to {target}, which does not exist.", "install the program again")
    _visit(target, needs)
    real = Path(os.path.realpath(target))
    if real != target:
        _visit(real, needs)


def _folder(folder: Path, needs: _Needs) -> None:
    covered = any(folder.is_relative_to(tree) for tree in needs.trees)
    if not trees.is_system(folder) and not covered:
        needs.trees[trees.check(folder)] = None


def _shebang(path: Path, needs: _Needs) -> None:
    with path.open("rb") as file:
        lines = file.read(_SHEBANG_BYTES).decode(errors="replace").splitlines()
    if not lines or not lines[0].startswith("#!"):
        return
    words = lines[0][2:].split()
    if not words:
        return
    # pip and uv write this second line where the interpreter's path is too long or holds a space.
    long_form = re.match(r"^'''exec' (?:\"([^\"]+)\"|(\S+)) ", lines[1]) if len(lines) > 1 else None
    if long_form is not None:
        _interpreter(long_form[1] or long_form[2], path, needs)
    elif Path(words[0]).name == "env":
        named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        if named:
            _interpreter(named[0], path, needs)
    else:
        _interpreter(words[0], path, needs)


def _interpreter(name: str, script: Path, needs: _Needs) -> None:
    # As inside: what lies beside the program (the node of its nvm prefix) comes before the user's PATH.
    search = os.pathsep.join((*needs.entries, needs.search))
    try:
        found = _visit(_find(name, search), needs)
    except ProgramMissing as error:
        raise ProgramMissing(f"{script} needs {name}: {error.reason}", error.fix) from error
    if os.sep not in name:
        needs.entries[str(found.parent)] = None


def _refuse_user_site(path: Path) -> None:
    """A script of `pip install --user` imports from the user's ~/.local/lib, which no jail sees."""
    if path.parent.name == "bin" and any(path.parent.parent.glob("lib/python3*/site-packages")):
        with path.open("rb") as file:
            if b"python" in file.readline(_SHEBANG_BYTES):
                raise ProgramRefused(
                    f"{path} was installed with pip --user; its packages are mixed with all others of the user.",
                    f"pipx install it, or: uv tool install {path.name}",
                )
