"""What the presets share."""

from __future__ import annotations

import json

EDIT, RUN, RESUME = "edit", "execute", "resume"


def as_json(value: object) -> str:
    """The content of a file of settings."""
    return json.dumps(value, indent=2) + "\n"
