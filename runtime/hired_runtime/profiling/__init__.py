"""How fast and how large a bundle is on this machine, at several visual-token budgets.

from hired_runtime.profiling import Plan, profile

result = profile(Plan(Path("bundle"), images=("table.jpg",), budgets=("100%", "40%", "20%")))
print(result.budgets[0].timings_ms["ttft"].median)

Nothing here needs matplotlib; only `plots` imports it, when it draws.
"""

from __future__ import annotations

from hired_runtime.profiling.runner import NEW_TOKENS, PROMPT, Plan, profile
from hired_runtime.profiling.schema import Profile, read

__all__ = ["NEW_TOKENS", "PROMPT", "Plan", "Profile", "profile", "read"]
