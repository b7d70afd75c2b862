"""What a data set is answered with: a policy, a budget and alpha; and which of them come to the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hired_edge.budget import Budget, parse_alpha, parse_budget
from hired_edge.errors import InputError
from hired_edge.policies import policy_named


class Key(NamedTuple):
    """What a setting comes to: settings of one key have the same answers, so they are made once.

    Args:
        policy, budget: as `POLICIES` and `Budget` write them.
        alpha: an exact fraction ("1/2"), or None where it makes no difference.
    """

    policy: str
    budget: str
    alpha: str | None

    @property
    def parsed_budget(self) -> Budget:
        return parse_budget(self.budget)


STOCK = Key("full", "100%", None)
"""Every policy's key at 100 %: the stock sequence."""


@dataclass(frozen=True)
class Setting:
    """One way to choose visual tokens.

    Args:
        policy: a name in `POLICIES`.
        budget: as `parse_budget` reads it. Policy "full" keeps everything: its budget is "100%" whatever is given.
        alpha: the base picture's share; ignored by policies that do not use it.

    Raises:
        InputError: one of them is none.
    """

    policy: str
    budget: str = "100%"
    alpha: float | str = 0.5

    def __post_init__(self) -> None:
        parse_alpha(self.alpha)
        parse_budget(self.budget)
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
            return STOCK
        alpha = str(parse_alpha(self.alpha)) if policy_named(self.policy).uses_alpha else None
        return Key(self.policy, str(self.parsed_budget), alpha)

    @property
    def name(self) -> str:
        """For a table: "hired", or "hired, alpha 0.3" where alpha is not the paper's."""
        alpha = self.shown_alpha
        return self.policy if alpha in (None, 0.5) else f"{self.policy}, alpha {alpha:g}"


def settings_grid(policies: Sequence[str], budgets: Sequence[str], alphas: Sequence[float | str]) -> list[Setting]:
    """Every combination that makes a difference, policies first, then alphas, then budgets, each as it was given.

    Raises:
        InputError: nothing was given, or something that is no policy, budget or alpha.
    """
    for name, given in (("policies", policies), ("budgets", budgets), ("alpha", alphas)):
        if not given:
            raise InputError(f"no {name}", expected="at least one", fix=f"pass --{name} with a value, or leave it out")
    grid = [Setting(policy, budget, alpha) for policy in policies for alpha in alphas for budget in budgets]
    first: dict[tuple[str, str, float | None], Setting] = {}
    for setting in grid:
        first.setdefault((setting.policy, str(setting.parsed_budget), setting.shown_alpha), setting)
    return list(first.values())
