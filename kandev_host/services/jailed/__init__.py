"""Programs that run inside a jail, on hostile files: of the standard library and each other, nothing else of the host.

They never run git on the workspace. What they read there, they open without following links and without waiting.
"""
