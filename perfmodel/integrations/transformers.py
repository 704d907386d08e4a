"""transformers: self-speculation with sinks and a window, driven by a plan. Run with 5.23.0 and 5.24.0.

``generate(model, input_ids, policy, max_new_tokens=256)`` drafts with the model itself on a cut copy of its
cache. There is no public argument for a candidate generator: one private method of the model is replaced
while it generates. What goes wrong in a draft leaves that round without one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from transformers import DynamicCache
from transformers.generation.candidate_generator import CandidateGenerator

import strategies
from perfmodel.errors import SpecError
from perfmodel.integrations.guard import Guard
from perfmodel.policy import Decision, SpeculationPolicy

__all__ = ["PlannedGenerator", "drafting", "generate"]

CACHE_NAMES = ("cache", "past_key_values")
"""What the cache is called among a model's arguments: since 5.24, and before (which warns until 5.40)."""

logger = logging.getLogger("draftplan")


class Selector(Protocol):
    """Which cache entries a draft keeps; see `strategies.base.KVSelector`."""

    def keep(self, context_len: int, kv_budget: float) -> Any: ...


class PlannedGenerator(CandidateGenerator):  # type: ignore[misc]
    """Drafts greedily with the model's own weights; the plan says how many tokens and from how many entries.

    `decisions` holds what was decided in every round, `kept` the cache entries that its drafts read at first.
    """

    requires_model_outputs = True
    model_kwargs_overrides: dict[str, Any] = {}  # noqa: RUF012  (the engine's own name and form)

    def __init__(self, model: Any, policy: SpeculationPolicy, selector: Selector | None = None) -> None:
        strategy = next((cell.strategy for cell in policy.plan.cells if cell.speculates), "streaming_llm")
        self.model, self.policy = model, policy
        self.guard = Guard(policy, logger, "transformers")
        self.selector = selector or strategies.load(strategy).selector
        if getattr(self.selector, "needs_scores", False):
            raise SpecError.single(
                "plan", "strategy", f"{strategy} chooses entries by scores that the model does not hand out",
                "plan with --strategy streaming_llm",
            )  # fmt: skip
        self.decisions: list[Decision] = []
        self.kept: list[int] = []
        self._drafted = 0

    def get_candidates(self, input_ids: Any, *args: Any, **kwargs: Any) -> tuple[Any, None]:
        """The sequence with this round's drafts behind it; none in the first round, which fills the cache."""
        self._drafted = 0
        with self.guard("draft"):
            return self._candidates(input_ids, *args, **kwargs)
        self._drafted = 0
        return input_ids, None

    def _candidates(
        self, input_ids: Any, *, model_kwargs: dict[str, Any], is_first_iteration: bool = False, **unused: Any
    ) -> tuple[Any, None]:
        del unused
        length = int(input_ids.shape[1])
        name = next(name for name in CACHE_NAMES if name in model_kwargs)
        cache = model_kwargs[name]
        cached = int(cache.get_seq_length())
        if is_first_iteration and cached == 0:
            return input_ids, None
        decision = self.guard.decide(1, length, length)
        self.decisions.append(decision)
        if decision.gamma == 0:
            return input_ids, None
        draft, kept = self._cut(cache, cached, decision.kv_budget)
        self.kept.append(kept)
        fed, drafted = input_ids[:, cached:], input_ids
        for _ in range(decision.gamma):
            first = drafted.shape[1] - fed.shape[1]
            positions = fed.new_tensor([range(first, drafted.shape[1])])
            logits = self.model(input_ids=fed, position_ids=positions, use_cache=True, **{name: draft}).logits
            fed = logits[:, -1:].argmax(dim=-1)
            longer = drafted.new_empty((1, drafted.shape[1] + 1))
            longer[:, :-1], longer[:, -1:] = drafted, fed
            drafted = longer
        self._drafted = decision.gamma
        return drafted, None

    def update_candidate_strategy(self, *args: Any, **kwargs: Any) -> None:
        """Count the round's acceptance where the policy can learn from it."""
        with self.guard("observation"):
            self._count(*args, **kwargs)

    def _count(self, input_ids: Any, scores: Any, num_matches: int) -> None:
        del scores
        if self._drafted:
            matches = min(int(num_matches), self._drafted)
            self.policy.observe(self._drafted, matches, 1, 1, int(input_ids.shape[1]))

    def _cut(self, cache: Any, cached: int, kv_budget: int | None) -> tuple[Any, int]:
        """A copy of the cache that holds the chosen entries only, and how many these are."""
        kept = cached if kv_budget is None else min(kv_budget, cached)
        draft = DynamicCache()
        positions = None
        for index, layer in enumerate(cache.layers):
            keys, values = layer.keys, layer.values
            if kept < cached:
                if positions is None:
                    chosen = self.selector.keep(cached, kept)
                    positions = keys.new_tensor(chosen.tolist()).long()
                keys, values = keys.index_select(-2, positions), values.index_select(-2, positions)
            draft.update(keys, values, index)
        return draft, kept


@contextmanager
def drafting(model: Any, policy: SpeculationPolicy) -> Iterator[PlannedGenerator]:
    """Let `model.generate(..., prompt_lookup_num_tokens=1)` draft as planned while the context is open."""
    generator = PlannedGenerator(model, policy)
    model._get_candidate_generator = lambda *_, **__: generator
    try:
        yield generator
    finally:
        vars(model).pop("_get_candidate_generator", None)


def generate(model: Any, input_ids: Any, policy: SpeculationPolicy, **options: Any) -> Any:
    """`model.generate` with planned self-speculation: the same greedy output, one sequence at a time.

    Raises
    ------
    SpecError
        For more than one sequence: transformers assists batches of one.
    """
    if input_ids.shape[0] != 1:
        raise SpecError.single(
            "request", "input_ids", "transformers assists one sequence at a time", "call it once for each"
        )
    with drafting(model, policy):
        return model.generate(input_ids, prompt_lookup_num_tokens=1, **options)
