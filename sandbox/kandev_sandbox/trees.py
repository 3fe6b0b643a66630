"""Recognising the narrow folder that a program lives in: a venv, a Python or Node prefix, a node_modules."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kandev_sandbox.errors import ProgramRefused

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


@dataclass(frozen=True, slots=True)
class Tree:
    """`root` is bound as a whole; `programs` goes on the PATH; `python` are the interpreters a venv builds on."""

    root: Path
    programs: Path
    python: tuple[Path, ...] = ()


def is_system(path: Path) -> bool:
    """Every jail sees it already."""
    return any(path.is_relative_to(folder) for folder in SYSTEM)


def find(path: Path) -> Tree | None:
    """The tree that holds this file by its place; None when the file stands alone."""
    return _node_modules(path) or _venv(path) or _prefix(path)


def check(root: Path) -> Path:
    """Refuse what is no narrow tree. Raises `ProgramRefused` for /, a home, or a folder that holds a home."""
    real = Path(os.path.realpath(root))
    for home in _homes():
        if home.is_relative_to(real):
            raise ProgramRefused(
                f"The program's folder is {root}, which holds the whole home {home}.",
                "install the program in a folder of its own (npm --prefix, pipx, uv tool, python -m venv)",
            )
    if len(real.parts) < 3:
        raise ProgramRefused(f"The program's folder is {root}, which is far more than a program.")
    return root


def _node_modules(path: Path) -> Tree | None:
    """The outermost node_modules: Node looks for packages from inner to outer ones."""
    if "node_modules" not in path.parts:
        return None
    root = Path(*path.parts[: path.parts.index("node_modules") + 1])
    return Tree(root, root / ".bin")


def _venv(path: Path) -> Tree | None:
    root = path.parent.parent
    configuration = root / "pyvenv.cfg"
    if not configuration.is_file():
        return None
    lines = (line.partition("=") for line in configuration.read_text(errors="replace").splitlines())
    home = next((value.strip() for key, _, value in lines if key.strip().lower() == "home"), None)
    bases = [root / "bin" / "python"]
    if home is not None:
        bases.append(Path(home) / "python3")
    return Tree(root, root / "bin", tuple(base for base in bases if os.path.lexists(base)))


def _prefix(path: Path) -> Tree | None:
    """A prefix is known by what only an installation of the interpreter holds (PEP 405's landmark, node's headers)."""
    root = path.parent.parent
    python = any(root.glob("lib/python3*/os.py"))
    own = (root / "include" / "node").is_dir() or (root / "lib" / "node_modules").is_dir()
    node = own and (root / "bin" / "node").exists()
    return Tree(root, root / "bin") if path.parent.name == "bin" and (python or node) else None


def _homes() -> Iterator[Path]:
    """The homes of people; system users have / or a folder of /var or /usr."""
    yield Path(os.path.realpath(Path.home()))
    for user in pwd.getpwall():
        if (user.pw_uid == 0 or user.pw_uid >= 1000) and user.pw_dir not in ("/", "/nonexistent"):
            yield Path(os.path.realpath(user.pw_dir))
