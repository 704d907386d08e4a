"""Who drafts: a strategy, the weights it runs, and what is believed of its acceptance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from perfmodel.acceptance import Acceptance, Conditions, acceptance_rate
from perfmodel.errors import SpecError
from perfmodel.hardware import Numeric
from perfmodel.model import ModelSpec
from strategies.base import DraftPass, DraftStrategy

if TYPE_CHECKING:
    from perfmodel.acceptance.file import MeasuredAcceptance

GREEDY = Conditions()


@dataclass(frozen=True)
class Drafter:
    """Who drafts and which entries it reads: a strategy and, unless the target itself drafts, a model.

    `measured` is acceptance measured on real traffic; with it the strategy's law is only the prior.
    `conditions` are those that the law is asked under.
    """

    strategy: DraftStrategy
    draft_model: ModelSpec | None = None
    measured: tuple[MeasuredAcceptance, ...] = ()
    conditions: Conditions = GREEDY

    def __post_init__(self) -> None:
        if self.strategy.needs_draft_model and self.draft_model is None:
            raise SpecError.single(
                "request",
                "draft_model",
                f"{self.strategy.name} drafts with a model of its own, none is named",
                "name one, e.g. --draft-model llama-3.2-1b",
            )
        if self.draft_model is not None and "draft" not in self.strategy.drafters:
            raise SpecError.single(
                "request",
                "draft_model",
                f"{self.strategy.name} does not take a draft model",
                "leave the draft model out, or choose streaming_llm or full_kv",
            )

    @property
    def kind(self) -> Literal["self", "draft", "head", "none"]:
        """Whose weights draft: ``draft``, ``self``, ``head`` or ``none``."""
        return "draft" if self.draft_model is not None else self.strategy.drafters[0]

    @property
    def label(self) -> str:
        """Short name for people, e.g. ``streaming_llm`` or ``streaming_llm(llama-3.2-1b)``."""
        return f"{self.strategy.name}({self.draft_model.name})" if self.draft_model else self.strategy.name

    def weights(self, target: ModelSpec, draft_pass: DraftPass) -> ModelSpec | None:
        """The model whose layers one draft pass runs through, or None where nothing is run."""
        if self.kind == "draft":
            return self.draft_model
        if draft_pass.weights == "head":
            return target.head()
        if draft_pass.weights == "none":
            return None
        return target.keep_layers(float(draft_pass.layer_fraction))

    def acceptance(self, target: ModelSpec, *, context_len: Numeric, kv_budget: Numeric) -> Acceptance:
        """What is believed of the acceptance of its drafts for this target; arguments broadcast. [0..1]"""
        model = self.draft_model
        believed: Callable[..., Acceptance] = acceptance_rate
        if self.measured:
            from perfmodel.acceptance.file import posterior_acceptance

            believed = partial(posterior_acceptance, self.measured)
        return believed(
            self.strategy,
            drafter=self.kind,
            context_len=context_len,
            kv_budget=kv_budget,
            target_name=target.name,
            draft_name=model.name if model else "",
            size_ratio=model.parameters / target.parameters if model else None,
            temperature=self.conditions.temperature,
            far_share=self.conditions.far_share,
            trained_length=self.conditions.trained_length,
        )

    def extra_model(self, target: ModelSpec) -> ModelSpec | None:
        """The model whose weights must be loaded beside the target's, or None."""
        if self.kind == "head":
            return target.head()
        return self.draft_model
