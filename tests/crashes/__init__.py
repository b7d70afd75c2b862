"""Commands are killed at random moments, or find the disk full: what is there then, and does the same command finish?

    python -m tests.crashes --kills 200         # a table; with --page, into docs/reliability.md

The commands are real ones, in processes of their own, on tiny models with random weights.
"""
