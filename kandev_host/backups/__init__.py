"""Backups of the store as single files, and its contents as portable lines.

Blocking throughout, but for what reads or writes an opened store: callers run it in threads.
"""

from __future__ import annotations
