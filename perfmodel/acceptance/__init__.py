"""How often drafted tokens are accepted: laws, tokens of a round, inverses; logs and posteriors beside."""

from __future__ import annotations

from perfmodel.acceptance.inverse import alpha_from_mean_length
from perfmodel.acceptance.laws import Conditions, acceptance_rate, budget_shape, matches, missed
from perfmodel.acceptance.rates import Acceptance, branch, expected_tokens
from perfmodel.acceptance.tokens import survival, tokens_from_first_rest, tokens_per_round

__all__ = [
    "Acceptance", "Conditions", "acceptance_rate", "alpha_from_mean_length", "branch", "budget_shape",
    "expected_tokens", "matches", "missed", "survival", "tokens_from_first_rest", "tokens_per_round",
]  # fmt: skip
