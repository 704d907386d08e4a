"""What every price is the price of: a model on some GPUs under an engine, and who drafts for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance, Conditions, acceptance_rate, branch, matches
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.model import DraftHead, LinearLayer, ModelSpec
from strategies.base import DraftPass, DraftStrategy, Figure, Tree

if TYPE_CHECKING:
    from perfmodel.acceptance.file import MeasuredAcceptance

__all__ = ["WHOLE", "Deployment", "Drafter", "Stage", "shares", "stages_of"]

GREEDY = Conditions()


@dataclass(frozen=True)
class Stage:
    """What one stage of a pipeline holds: a share of the layers, and which ends of the model. [0..1]

    layers : share of the layers, of every kind alike. first, last : 1 where it has the embedding, the output
    layer; a tied output layer is a copy of the embedding.
    """

    layers: Numeric = 1.0
    first: Numeric = 1.0
    last: Numeric = 1.0


WHOLE = Stage()


def stages_of(model: ModelSpec, pipeline_parallel: Numeric) -> tuple[Stage, Stage, Stage]:
    """Return the first, a middle and the last of so many stages; one of them is the fullest.

    Of L layers over p stages each has ``floor(L / p)``; those that are left go to the stages before the last,
    backwards, as vLLM deals them (``get_pp_indices``), so the first has one only where all but the last do.
    """
    stages, layers = np.asarray(pipeline_parallel, dtype=float), model.num_layers
    fewest = np.floor(layers / stages)
    left = layers - fewest * stages
    only = np.where(stages > 1.0, 0.0, 1.0)
    first = fewest + ((left > 0.0) & (left >= stages - 1.0))
    return (
        Stage(first / layers, 1.0, only),
        Stage((fewest + (left > 0.0)) / layers, only, only),
        Stage(fewest / layers, only, 1.0),
    )


def shares(
    layer: LinearLayer, tensor_parallel: Numeric, expert_parallel: bool | Numeric, data_parallel: Numeric
) -> tuple[Numeric, Numeric]:
    """GPUs that split each matrix of a product, and GPUs that deal its experts out. [GPUs], [GPUs]

    Routed experts are shared over the GPUs of all data-parallel groups, all else over those of one.
    """
    gpus = np.multiply(tensor_parallel, data_parallel) if layer.experts else tensor_parallel
    return layer.shares(gpus, expert_parallel)


@dataclass(frozen=True)
class Deployment:
    """A model on some GPUs under an engine: what every price is the price of.

    Parameters
    ----------
    hardware : the accelerator; array fields are many accelerators, or many draws of one.
    model : what runs. A draft model is the same deployment with another model.
    engine : the software between the kernels, as its preset for that family of accelerators.
    tensor_parallel : GPUs that share every layer; of attention, those of one data-parallel group. [GPUs]
    expert_parallel : whether they deal out the experts whole, in place of a slice of each to every GPU.
    pipeline_parallel : stages that the layers are dealt out over; each has GPUs of its own. [1]
    data_parallel : groups of GPUs that each hold attention and whatever is dense, for sequences of their
        own; the routed experts are shared over the GPUs of all groups. [1]
    """

    hardware: HardwareProfile
    model: ModelSpec
    engine: EngineOverhead
    tensor_parallel: Numeric = 1.0
    expert_parallel: bool | Numeric = False
    pipeline_parallel: Numeric = 1.0
    data_parallel: Numeric = 1.0

    @property
    def gpus(self) -> Numeric:
        """All its GPUs. [GPUs]"""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def expert_gpus(self) -> Numeric:
        """GPUs that share the routed experts of a layer: those of all data-parallel groups. [GPUs]"""
        return np.multiply(self.tensor_parallel, self.data_parallel)

    @property
    def piped(self) -> bool:
        """Whether there is more than one stage anywhere."""
        return bool(np.any(np.greater(self.pipeline_parallel, 1)))

    @property
    def grouped(self) -> bool:
        """Whether there is more than one data-parallel group anywhere."""
        return bool(np.any(np.greater(self.data_parallel, 1)))

    def shares(self, layer: LinearLayer) -> tuple[Numeric, Numeric]:
        """GPUs that split each matrix of a product, and GPUs that deal its experts out. [GPUs], [GPUs]"""
        return shares(layer, self.tensor_parallel, self.expert_parallel, self.data_parallel)

    def group_batch(self, batch: Numeric) -> Numeric:
        """Sequences of the fullest data-parallel group, which the others wait for. [sequences]"""
        return np.ceil(np.divide(batch, self.data_parallel)) if self.grouped else batch

    def in_flight(self, batch: Numeric) -> tuple[Numeric, Numeric, Numeric]:
        """Sequences of a group's micro-batch, of those of all groups, and micro-batches in the pipeline.

        A group's batch is cut into as many as there are stages, so that each stage works on one; with fewer
        sequences than stages there is one each. It is their mean that counts, which need not be whole: stages
        see the larger and the smaller ones in turn. [sequences], [sequences], [1]
        """
        group = self.group_batch(batch)
        micro = np.maximum(np.divide(group, self.pipeline_parallel), 1.0) if self.piped else group
        together = np.minimum(np.multiply(micro, self.data_parallel), batch) if self.grouped else micro
        return micro, together, np.minimum(group, self.pipeline_parallel) if self.piped else 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", self.engine.on(self.hardware))

    @property
    def attention_kernels(self) -> tuple[str, ...]:
        """The attention kernel that runs: the engine's, or the profile's first where it lacks that one.

        The other one follows where the engine leaves open which of them runs and the profile has both.
        """
        engine, kernels = self.engine, self.hardware.attention
        first, other = engine.attention_kernel, engine.other_attention_kernel
        first = self.hardware.attention_name(first)
        either = other in kernels and other != first and np.any(engine.other_kernel_share)
        return (first, other) if either else (first,)

    @property
    def all_reduce(self) -> str:
        """The all-reduce that runs: an engine's own kernels need every GPU linked to every other.

        Over PCIe engines fall back to NCCL: vLLM beyond two GPUs, PyTorch's symmetric memory always.
        """
        wanted, over_pcie = self.engine.all_reduce, self.hardware.link_kind.lower().startswith("pcie")
        return "nccl" if over_pcie and not wanted.startswith("nccl") else wanted

    @property
    def all_gather(self) -> str:
        """The all-gather that runs: NCCL's, as the kernels of engines only reduce."""
        return self.all_reduce if self.all_reduce.startswith("nccl") else "nccl"

    @property
    def label(self) -> str:
        """What runs on what, for a title."""
        gpus = f"{float(self.gpus):.0f} x {self.hardware.name}"
        return f"{self.model.name} on {gpus}{self.layout}, engine {self.engine.label}"

    @property
    def layout(self) -> str:
        """How the GPUs share the work, for people; nothing where all of them share every layer."""
        sizes = (("stages", self.pipeline_parallel), ("data-parallel groups", self.data_parallel))
        parts = [f", {float(size):.0f} {name}" for name, size in sizes if float(size) > 1.0]
        return "".join(parts) + (", experts dealt out whole" if np.any(self.expert_parallel) else "")


@dataclass(frozen=True)
class Drafter:
    """Who drafts and which entries it reads: a strategy and, unless the target itself drafts, a model.

    Parameters
    ----------
    strategy : which entries a draft reads.
    draft_model : a model of its own that drafts, if one does.
    measured : acceptance measured on real traffic; with it the strategy's law is only the prior.
    conditions : those that the law is asked under.
    draft_tensor_parallel : GPUs that share the draft model; those of the target where None. [GPUs]
    tree : shape of a draft that branches; a chain where None.
    whole_cache : whether it reads all of the cache because what serves it cannot bound that.
    """

    strategy: DraftStrategy
    draft_model: ModelSpec | None = None
    measured: tuple[MeasuredAcceptance, ...] = ()
    conditions: Conditions = GREEDY
    draft_tensor_parallel: int | None = None
    tree: Tree | None = None
    whole_cache: bool = False

    def __post_init__(self) -> None:
        if self.strategy.needs_draft_model and self.draft_model is None:
            raise SpecError.single(
                "request",
                "draft_model",
                f"{self.strategy.name} drafts with a model of its own, none is named",
                "name one, e.g. --draft-model llama-3.2-1b",
            )
        head = self.head
        if head is not None and head.strategy != self.strategy.name:
            raise SpecError.single(
                "request",
                "draft_model",
                f"{head.label} drafts as {head.strategy}, not as {self.strategy.name}",
                f"name --strategy {head.strategy}, or no strategy",
            )
        if self.draft_model is not None and head is None and "draft" not in self.strategy.drafters:
            raise SpecError.single(
                "request",
                "draft_model",
                f"{self.strategy.name} does not take a draft model",
                "leave the draft model out, or choose streaming_llm or full_kv",
            )

    @property
    def head(self) -> DraftHead | None:
        """What drafts, where it is a head from a file of its own."""
        return self.draft_model.drafts if self.draft_model is not None else None

    @property
    def kind(self) -> Literal["self", "draft", "head", "none"]:
        """Whose weights draft: ``draft``, ``self``, ``head`` or ``none``."""
        if self.draft_model is not None:
            return "draft" if self.head is None else "head"
        return self.strategy.drafters[0]

    def needs(self, target: ModelSpec) -> str:
        """What must exist before it can draft for a target; empty where it is there. """
        shipped = self.strategy.drafters == ("head",) and self.strategy.head.comes_with_a_model
        return "" if self.head is not None or (shipped and target.draft_layers > 0) else self.strategy.needs

    @property
    def label(self) -> str:
        """Short name for people: ``streaming_llm``, ``full_kv(llama-3.2-1b)``, ``eagle tree 5,4,16``."""
        tree = f" tree {self.tree.label}" if self.tree else ""
        return self.strategy.name + (f"({self.draft_model.name})" if self.draft_model else "") + tree

    @property
    def default_budgets(self) -> tuple[float, ...]:
        """Draft KV budgets to choose among; a head's, with what it is said to be trained on. [tokens]"""
        own, trained = self.strategy.default_budgets, self.conditions.trained_length
        if self.whole_cache and own:
            return (np.inf,)
        return tuple(sorted({*own, trained})) if trained and self.kind == "head" else own

    def budgets(self, target: ModelSpec) -> tuple[float, ...]:
        """Draft KV budgets that change what it does for a target. [tokens]

        There are none where no cache of a head grows: one that is compressed or has a window is read as it is
        under any budget.
        """
        own = self.extra_model(target) if self.kind == "head" else None
        return () if own is not None and not own.grows else self.default_budgets

    def plays(self, strategy: str, draft_model: str | None, tree: Tree | None = None) -> bool:
        """Whether a plan means it by these two names and its tree."""
        model = self.draft_model.name if self.draft_model else None
        return (self.strategy.name, model, self.tree) == (strategy, draft_model, tree)

    def gpus(self, deployment: Deployment) -> Numeric:
        """How many of a deployment's GPUs share what drafts: never more than there are. [GPUs]"""
        if self.draft_tensor_parallel is None or self.draft_model is None:
            return deployment.tensor_parallel
        return np.minimum(self.draft_tensor_parallel, deployment.tensor_parallel)

    def runs(self, deployment: Deployment, model: ModelSpec) -> Deployment:
        """Return the deployment of the model that drafts, beside the target's: of one stage."""
        return replace(
            deployment, model=model, tensor_parallel=self.gpus(deployment), pipeline_parallel=1.0
        )

    def count(self, *, context_len: Numeric, kv_budget: Numeric, gamma: Numeric) -> DraftPass:
        """Count one draft pass, of a head from a file by its own shape; arguments broadcast. [tokens]"""
        strategy = self.strategy
        if self.head is not None:
            strategy = replace(strategy, head=self.head.shape)  # type: ignore[type-var]
        counts = strategy.draft_pass(
            context_len=context_len, kv_budget=kv_budget, gamma=gamma, drafter=self.kind
        )
        return counts if self.tree is None else self.tree.widen(counts, gamma)

    def verified(self, gamma: Numeric) -> Numeric:
        """Drafts that the target verifies in a round of ``gamma`` steps; as many in a chain. [tokens]"""
        return gamma if self.tree is None else self.tree.verified(gamma)

    def may_draft(self, gamma: Numeric) -> NDArray[np.bool_]:
        """Whether it may draft at a length: a tree at its own steps, anything else at any. [tokens]"""
        return np.asarray(np.greater(gamma, 0) if self.tree is None else np.equal(gamma, self.tree.steps))

    @property
    def branches(self) -> bool:
        """Whether it can draft a tree: a head that ranks its guesses, or a small model."""
        shape = self.head.shape if self.head is not None else self.strategy.head
        return self.kind == "draft" or (self.kind == "head" and shape.branches)

    def longest(self, target: ModelSpec) -> float:
        """Tokens that a round drafts at most: a block, or modules of which each predicts one. [tokens]"""
        if self.head is not None:
            return self.head.shape.longest
        shape = self.strategy.head
        if self.kind != "head":
            return np.inf
        return shape.longest if shape.own_attention or target.draft_layers < 2 else target.draft_layers

    def weights(self, target: ModelSpec, draft_pass: DraftPass) -> ModelSpec | None:
        """The model whose layers one draft pass runs through, or None where nothing is run.

        Of several modules that each predict one further token a pass runs one.
        """
        if draft_pass.weights == "none":
            return None
        if self.draft_model is not None:
            modules = self.head is not None and not self.head.shape.own_attention
            return self.draft_model.one_module() if modules else self.draft_model
        if draft_pass.weights == "head":
            shape = self.strategy.head
            return target.head(shape.layers, shape=shape)
        return target.keep_layers(float(draft_pass.layer_fraction))

    def acceptance(self, target: ModelSpec, *, context_len: Numeric, kv_budget: Numeric) -> Acceptance:
        """What is believed of the acceptance of its drafts for this target; arguments broadcast. [0..1]"""
        model = self.draft_model
        believed: Callable[..., Acceptance] = acceptance_rate
        if self.measured:
            from perfmodel.acceptance.posterior import posterior_acceptance

            believed = partial(posterior_acceptance, self.measured)
        if self.kind == "head":  # one whose layer has a window reads no farther
            context_len = np.minimum(context_len, self.reach(target))
        acceptance = believed(
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
            match_share=self.conditions.match_share,
        )
        return self.shaped(replace(acceptance, longest=self.longest(target)))

    def shaped(self, acceptance: Acceptance) -> Acceptance:
        """Return what is believed of a chain as what is believed of its tree, less surely."""
        if self.tree is None or self.tree.topk == 1:
            return acceptance
        return branch(acceptance, self.tree)

    def match(self, target: ModelSpec) -> Figure:
        """Match share, the share of its rounds that draft at all: stated, counted in logs, or assumed."""
        if self.measured:
            from perfmodel.acceptance.posterior import posterior_share

            share = posterior_share(
                self.measured, self.strategy, drafter=self.kind, target_name=target.name,
                draft_name=self.draft_model.name if self.draft_model else "",
                match_share=self.conditions.match_share,
            )  # fmt: skip
            if share is not None:
                return share
        return matches(self.strategy.acceptance, self.conditions.match_share)

    def given(self, alpha: Numeric | Acceptance, target: ModelSpec) -> Acceptance:
        """Return what is stated of its acceptance in place of its law, within what a round of it can be.

        Parameters
        ----------
        alpha : a rate, which is that of rounds that draft and leaves their share to the strategy, or a whole
            `Acceptance`. [0..1]
        target : the model that verifies.
        """
        if not isinstance(alpha, Acceptance):
            match = self.match(target)
            alpha = replace(Acceptance.given(alpha), match=match.value, match_sd=match.sd)
        return self.shaped(replace(alpha, longest=self.longest(target)))

    def reach(self, target: ModelSpec) -> float:
        """Tokens that a head looks back at most; infinite where its cache grows. [tokens]"""
        model = self.extra_model(target)
        windows = [cache.window or np.inf for cache, _ in model.caches] if model else []
        return float(max(windows, default=np.inf))

    def extra_model(self, target: ModelSpec) -> ModelSpec | None:
        """The model whose weights must be loaded beside the target's, or None."""
        if self.draft_model is not None or self.kind != "head":
            return self.draft_model
        shape = self.strategy.head
        return target.head(shape.layers if shape.own_attention else max(target.draft_layers, 1), shape=shape)
