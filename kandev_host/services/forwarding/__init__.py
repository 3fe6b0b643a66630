"""The host's own end of an agent's git: the log-in is added here, outside of every jail."""
