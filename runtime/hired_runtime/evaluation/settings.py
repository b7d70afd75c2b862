"""What a data set is answered with: a policy, a budget, alpha and more; and which of them come to the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from hired_edge.budget import Budget, parse_alpha, parse_budget
from hired_edge.errors import InputError
from hired_edge.manifest import Manifest
from hired_edge.packing import check_newlines, newline_policy
from hired_edge.policies import policy_named
from hired_edge.selection import check_needs, check_partitions
from hired_edge.tiling import TilingRules, tile
from hired_runtime.positions import check_positions, positions_in_force


class Key(NamedTuple):
    """What a setting comes to: settings of one key have the same answers, so they are made once.

    Args:
        policy, budget: as `POLICIES` and `Budget` write them.
        alpha: an exact fraction ("1/2"), or None where it makes no difference.
        newlines: as asked for; None = the policy's or the family's own.
        partitions, positions: as `Request` has them.
    """

    policy: str
    budget: str
    alpha: str | None
    newlines: str | None = None
    partitions: str = "all"
    positions: str = "compact"

    @property
    def parsed_budget(self) -> Budget:
        return parse_budget(self.budget)

    def max_tokens(self, rules: TilingRules) -> int:
        """Visual positions for the largest picture."""
        return self.parsed_budget.max_tokens(rules if self.partitions == "all" else rules.base_picture)


STOCK = Key("full", "100%", None)
"""Every policy's key at 100 %: the stock sequence, in which nothing is renumbered and every row has its newline."""


@dataclass(frozen=True)
class Setting:
    """One way to choose visual tokens.

    Args:
        policy: a name in `POLICIES`.
        budget: as `parse_budget` reads it. Policy "full" keeps everything: its budget is "100%" whatever is given.
        alpha: the base picture's share; ignored by policies that do not use it.
        newlines: newline policy; None = the policy's or the family's own.
        partitions: "all", or "base" for the base picture alone: a percentage is then of its patches.
        positions: "compact" or "original", see `hired_runtime.positions`; None = the policy's own.

    Raises:
        InputError: one of them is none.
    """

    policy: str
    budget: str = "100%"
    alpha: float | str = 0.5
    newlines: str | None = None
    partitions: str = "all"
    positions: str | None = None

    def __post_init__(self) -> None:
        parse_alpha(self.alpha)
        parse_budget(self.budget)
        check_newlines(self.newlines)
        check_partitions(self.partitions)
        check_positions(self.positions)
        if policy_named(self.policy).stock:
            object.__setattr__(self, "budget", "100%")

    @property
    def parsed_budget(self) -> Budget:
        return parse_budget(self.budget)

    @property
    def shown_alpha(self) -> float | None:
        """For a report: None where the policy does not use it."""
        return float(parse_alpha(self.alpha)) if policy_named(self.policy).uses_alpha else None

    @property
    def key(self) -> Key:
        if self.parsed_budget.is_stock:
            return STOCK._replace(partitions=self.partitions)
        # One tile has no sub-images to share with, no rows to end and nothing to choose a share of.
        alone = self.partitions == "base"
        alpha = str(parse_alpha(self.alpha)) if policy_named(self.policy).uses_alpha and not alone else None
        newlines = None if alone and self.newlines == "none" else self.newlines
        return Key(
            self.policy,
            str(self.parsed_budget),
            alpha,
            newlines,
            self.partitions,
            positions_in_force(self.policy, self.positions),
        )

    def check(self, manifest: Manifest) -> None:
        """Raises InputError for what the bundle's family or its vision graph does not have: newlines, keys."""
        rules = manifest.vision.tiling
        newline_policy(tile(1, 1, rules if self.partitions == "all" else rules.base_picture), self.newlines)
        if not self.parsed_budget.is_stock:
            check_needs(policy_named(self.policy), keys=manifest.vision.keys is not None)

    @property
    def name(self) -> str:
        """For a table: "hired", and behind it whatever is not the paper's ("hired, alpha 0.3, original positions")."""
        alpha, own = self.shown_alpha, policy_named(self.policy).positions
        parts = [
            self.policy,
            *([] if alpha in (None, 0.5) else [f"alpha {alpha:g}"]),
            *([] if self.newlines is None else [f"newlines {self.newlines}"]),
            *([] if self.partitions == "all" else ["base picture alone"]),
            *([] if self.positions in (None, own) else [f"{self.positions} positions"]),
        ]
        return ", ".join(parts)


def settings_grid(
    policies: Sequence[str],
    budgets: Sequence[str],
    alphas: Sequence[float | str],
    newlines: Sequence[str | None] = (None,),
    positions: Sequence[str | None] = (None,),
    partitions: str = "all",
) -> list[Setting]:
    """Every combination that makes a difference, policies first, budgets last, each as it was given.

    Raises:
        InputError: nothing was given, or something that is no policy, budget or alpha.
    """
    for name, given in (("policies", policies), ("budgets", budgets), ("alpha", alphas)):
        if not given:
            raise InputError(f"no {name}", expected="at least one", fix=f"pass --{name} with a value, or leave it out")
    grid = [
        Setting(policy, budget, alpha, rows, partitions, places)
        for policy, alpha, rows, places, budget in product(policies, alphas, newlines, positions, budgets)
    ]
    first: dict[tuple, Setting] = {}
    for setting in grid:
        stock = policy_named(setting.policy).stock  # nothing but its name makes a difference
        others = () if stock else (setting.newlines, setting.positions)
        first.setdefault((setting.policy, str(setting.parsed_budget), setting.shown_alpha, *others), setting)
    return list(first.values())
