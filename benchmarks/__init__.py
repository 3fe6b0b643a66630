"""Every figure of docs/benchmarks.md is one row here: `python -m benchmarks --only ROW`."""
