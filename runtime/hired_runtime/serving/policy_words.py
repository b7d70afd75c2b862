"""The selection policies in a line each, for people who choose one. The README's table says the same at more length."""

from __future__ import annotations

import sys

from hired_edge.policies import POLICIES

_WORDS = {
    "hired": "HiRED: attention shares the budget among the tiles, the best of each stay",
    "hired-placed": "the same tokens, each at its place in the whole sequence",
    "hired-2024": "as the paper's public code did in August 2024",
    "full": "every token, whatever the budget",
    "random": "any tokens",
    "uniform": "every n-th token",
    "top-cls": "by attention, the same share of every tile (FasterVLM)",
    "spatial-pooling": "averages of neighbouring patches",
    "scope": "what covers most of a tile and is attended to (SCOPE)",
    "vispruner": "half by attention, half by removing duplicates (VisPruner)",
    "divprune": "tokens far from each other (DivPrune)",
    "holov": "quotas for sixteen crops (HoloV)",
    "prumerge": "outliers of attention, merged with their likes (PruMerge): its own number",
    "prumerge+": "PruMerge, with patches at even steps added: its own number",
    "hired-even": "HiRED with the same share for every tile: an ablation",
    "hired-allocated-by-last": "HiRED that shares out by the last layer's attention: an ablation",
    "hired-dropped-by-first": "HiRED that ranks patches by the first layer's attention: an ablation",
    "hired-covering": "HiRED, but no near-copies within a tile: an experiment",
    "hired-merging": "HiRED, and what it drops is averaged into what it keeps: an experiment",
}


def summary(name: str) -> str:
    """What a policy keeps: from here, else the first line of the module that defines it."""
    if name in _WORDS:
        return _WORDS[name]
    return (sys.modules[POLICIES[name].prepare.__module__].__doc__ or "").partition("\n")[0]
