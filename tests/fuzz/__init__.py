"""Hostile inputs for everything that is read from a file or a network: `python -m tests.fuzz` (docs/reliability.md)."""
