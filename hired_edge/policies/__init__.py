"""The selection policies by name. A new one is a file here and an entry in `POLICIES`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hired_edge.errors import InputError
from hired_edge.policies.ablations import ABLATIONS
from hired_edge.policies.divprune import DIVPRUNE
from hired_edge.policies.full import FULL
from hired_edge.policies.hired import HIRED, HIRED_PLACED
from hired_edge.policies.hired_2024 import HIRED_2024
from hired_edge.policies.hired_covering import HIRED_COVERING
from hired_edge.policies.hired_merging import HIRED_MERGING
from hired_edge.policies.holov import HOLOV
from hired_edge.policies.policy import Policy
from hired_edge.policies.prumerge import PRUMERGE, PRUMERGE_PLUS
from hired_edge.policies.random import RANDOM
from hired_edge.policies.scope import SCOPE
from hired_edge.policies.spatial_pooling import SPATIAL_POOLING
from hired_edge.policies.top_cls import TOP_CLS
from hired_edge.policies.uniform import UNIFORM
from hired_edge.policies.vispruner import VISPRUNER

_ALL = (
    *(HIRED, HIRED_PLACED, HIRED_2024, FULL, RANDOM, UNIFORM, TOP_CLS),
    *(SPATIAL_POOLING, SCOPE, VISPRUNER, DIVPRUNE, HOLOV, PRUMERGE, PRUMERGE_PLUS),
    *(*ABLATIONS, HIRED_COVERING, HIRED_MERGING),
)
POLICIES: Mapping[str, Policy] = MappingProxyType({policy.name: policy for policy in _ALL})


def policy_named(name: str) -> Policy:
    """A policy by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in POLICIES:
        raise InputError(f"selection policy {name!r}", expected=", ".join(POLICIES), fix="pass another --policy")
    return POLICIES[name]


__all__ = ["POLICIES", "Policy", "policy_named"]
