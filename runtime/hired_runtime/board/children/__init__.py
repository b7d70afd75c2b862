"""Scripts for processes of their own: what they try may crash or hang, and must not take `doctor` with it.

Each is run by its path, imports nothing of ours, and prints one JSON object.
"""
