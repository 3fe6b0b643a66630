"""What runtimes of this machine share: the folders of workspaces, their owners, their use of the disk, network notes.

A library, no plugin: it provides nothing to the host by itself. It imports the host's root and kandev_sandbox.
"""
