"""A scripted ACP agent without a model: it looks at the workspace, plans, asks, edits, runs, and says what it used.

It shows the whole way of a task to a new user and to tests, with no key and no network. It needs nothing but the
standard library and imports nothing of kandev-host: inside a jail only this folder and a Python are there.
"""
