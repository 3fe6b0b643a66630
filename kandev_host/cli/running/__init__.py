"""The parts of `kandev-host run`: the conversation with the host, what is shown, and what is asked."""
