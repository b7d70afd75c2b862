"""Comparisons that need a workstation: torch and transformers beside the runtime. No part of the installed package."""
