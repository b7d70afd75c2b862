"""Activation-aware weight quantisation (AWQ; Lin et al., 2023): calibration inputs, the search, and what it changes."""
