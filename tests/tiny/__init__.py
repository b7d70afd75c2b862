"""Tiny random checkpoints in the Hub's layout, so that tests need no network and no large file."""
