"""The one place that holds the version; hatchling reads it, and so does `kandev-host --version`."""

__version__ = "0.1.0"
