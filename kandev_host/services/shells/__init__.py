"""Shells: opened in workspaces by people, beside the agents; what ran in them is the audit."""
