"""What agents are given of the user's log-ins, and how the host uses them for an agent without giving them away."""
