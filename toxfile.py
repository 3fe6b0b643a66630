"""Read by tox: every interpreter of pyenv can be found, also those that its global version leaves out.

A shim of pyenv for Python 3.12 ends with an error while the global version is 3.11, and tox would skip py312.
"""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
_FOLDERS = [str(folder) for folder in sorted(_ROOT.glob("versions/3.*/bin"), reverse=True)]
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *_FOLDERS])
