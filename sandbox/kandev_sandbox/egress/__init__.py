"""The way out of a jail with an allowlist: a proxy in the host that listens *inside* the jail's network namespace."""
