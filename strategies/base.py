"""What a drafting idea has to say: what a draft pass counts, which entries it keeps, how it is accepted.

A strategy knows no hardware and no model: it counts tokens. Bytes, FLOPs and seconds are made of these counts
elsewhere. All arguments of every method broadcast against each other; none branches on a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Numeric = float | NDArray[np.float64]
Drafter = Literal["self", "draft", "head", "none"]
Weights = Literal["target", "draft", "head", "none"]
Kind = Literal["measured", "published", "assumed", "given"]

WEIGHTS_OF: Mapping[Drafter, Weights] = MappingProxyType(
    {"self": "target", "draft": "draft", "head": "head", "none": "none"}
)
SELECTION_LAUNCHES = 2.0
"""Launches in a layer that chooses: its entries are scored, then the best are taken. Assumed. [launches]"""
POWERS_OF_TWO_BUDGETS = (128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, kw_only=True)
class DraftPass:
    """Count what ONE draft pass does for ONE sequence; all fields broadcast.

    "Entry" means one token's keys and values in all layers of the model that ``weights`` names, in its own
    cache dtype, before ``layer_fraction`` and ``kv_fraction`` are applied.

    Attributes
    ----------
    weights : whose weights the pass reads: the target's, a draft model's, a head's, or none.
    passes : forward passes per round [count]; ``gamma`` unless drafting is free or runs in parallel.
    kv_tokens : cache entries read per pass and sequence, mean over the passes of a round [tokens].
    layer_fraction : share of the model's layers that run [0..1]; the output layer always runs.
    weight_fraction : bytes of weights read per pass relative to the model's dtype.
    kv_fraction : bytes per entry read relative to the model's cache dtype.
    selection_kv_tokens : reads per pass for choosing the entries, in equivalent entries [tokens].
    query_tokens : tokens that enter each pass [tokens].
    resident_kv_tokens : entries held in memory beyond the target's own cache, per sequence [tokens]; each
        weighs ``kv_fraction`` of an entry.
    resident_weight_fraction : bytes of weights held beyond those of the named model, relative to that model.
    prefill_kv_tokens : one-off reads and writes at the end of the prompt, in equivalent entries [tokens].
    selection_launches : kernels launched in every layer of every pass for choosing the entries [launches]:
        scoring and taking the best are two, which is assumed; 0 where a pass chooses nothing.
    lookup_tokens : tokens of a sequence's text that the host searches in a pass [tokens]; where ``weights``
        is none that is all of the pass.
    """

    weights: Weights
    passes: Numeric
    kv_tokens: Numeric
    layer_fraction: Numeric = 1.0
    weight_fraction: Numeric = 1.0
    kv_fraction: Numeric = 1.0
    selection_kv_tokens: Numeric = 0.0
    query_tokens: Numeric = 1.0
    resident_kv_tokens: Numeric = 0.0
    resident_weight_fraction: Numeric = 0.0
    prefill_kv_tokens: Numeric = 0.0
    selection_launches: Numeric = 0.0
    lookup_tokens: Numeric = 0.0


@dataclass(frozen=True)
class Figure:
    """A number with its standard deviation, where it comes from and how far to trust it."""

    value: float
    sd: float = 0.0
    kind: Kind = "assumed"
    source: str = ""


EXACT = Figure(1.0, 0.0, "published", "same weights, same cache: the draft distribution is the target's")
NOTHING = Figure(0.0, 0.0, "published", "the whole cache is read")
ALWAYS = Figure(1.0, 0.0, "published", "every round drafts")


@dataclass(frozen=True, kw_only=True)
class AcceptanceLaw:
    """Parameters of the default acceptance law of one strategy.

    The acceptance of a drafted token is ``full * (1 - miss)``, where ``full`` is what the drafter reaches
    with its whole cache and ``miss`` what it loses by reading ``B`` of ``S`` entries::

        miss(B, S) = level * (level_budget / B)**eta * L / (1 + L),   L = ln(S / B)    for B < S, else 0

    so a budget that covers the context loses nothing, and more budget never accepts less. A trained head that
    reads more than ``trained_length`` entries falls from ``full`` to ``beyond``, which is reached at
    ``transition`` times that length, so for it the second holds up to ``trained_length`` only: a budget of so
    many entries keeps what a larger one or the whole cache loses. Where that length is assumed the fall
    begins ``trained_range`` times earlier and ends as much later: no answer hangs on what nobody stated.

    Attributes
    ----------
    first, rest : ``full`` for the first drafted token and for every later one, drafter other than a draft
        model.
    level, level_budget, eta : parameters of ``miss``; ``level_budget`` in tokens.
    levels : ``level`` where it was observed for a named target model.
    far : acceptance of tokens that need content from outside the kept entries (the task term).
    match : match share, the share of rounds that draft at all; the rates are those of these rounds.
    temperature_slope : change of logit(acceptance) per unit of sampling temperature.
    trained_length : entries that a trained head has learned to read [tokens].
    trained_range : by what factor ``trained_length`` may be off, either way, where nobody states it [1].
    beyond : ``full`` of every drafted token far past ``trained_length``.
    transition : how many times ``trained_length`` a head reads where it has fallen to ``beyond`` [1].
    scatter : run-to-run standard deviation that remains when all parameters are known, at an acceptance near
        .8.
    unseen : standard deviation added where the target is not among ``levels``, at an acceptance near .8.
    """

    first: Figure = EXACT
    rest: Figure = EXACT
    level: Figure = NOTHING
    level_budget: float = 512.0
    eta: Figure = NOTHING
    levels: Mapping[str, Figure] = field(default_factory=dict)
    far: Figure = Figure(1.0, 0.0, "assumed", "reads everything")
    match: Figure = ALWAYS
    temperature_slope: Figure = Figure(
        0.0,
        0.2,
        "published",
        "same weights: TriForce .923 to .890 for T = 0 to 1.2, SPIRe reproduction +.02 for 0 to 1",
    )
    trained_length: Figure = Figure(np.inf, 0.0, "assumed", "no limit of its own")
    trained_range: float = 1.0
    beyond: Figure = EXACT
    transition: Figure = Figure(
        2.0,
        0.7,
        "assumed",
        "Qwen3-8B EAGLE-3 yields 2.30 tokens a round at 2K, 1.69 at 8K, 1.40 at 10K, 1.09 at 16K",
    )
    scatter: float = 0.02
    unseen: float = 0.03


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    """What a head is made of, and how a round of it goes; its hidden size is ``h``.

    The defaults are a layer that the model was pre-trained with (arXiv 2412.19437 section 2.2).

    Attributes
    ----------
    layers : layers that one pass runs through.
    own_attention : whether these are plain attention of grouped heads and a dense MLP; otherwise they are
        like the target's last one, with its experts.
    features : hidden states that one product fuses to the hidden size, ``[features h, h]``; 0 for none.
    fuses_once : whether they are the target's alone: then the product runs in a round's first pass only.
    normed : whether it has norms of its own before the attention and after the last layer; EAGLE's first
        version has a bias of its product instead.
    inputs : hidden states that the attention of its first layer reads, ``[inputs h, ...]``.
    draft_vocabulary : tokens that an output layer of its own chooses among [tokens]; where None it reads the
        target's.
    mlp_width : width of its MLP over ``h`` where the target has experts and the layers are its own.
    quantized : whether it is stored in the target's weight dtype; otherwise unquantised.
    parallel : whether one pass drafts all tokens of a round; otherwise there is one pass for each.
    block : tokens that enter a pass which drafts in parallel [tokens]; as many as are drafted where None.
    longest : tokens that a round drafts at most [tokens].
    output_heads : blocks of ``[h, h]``, each with an output layer of its own (Medusa).
    markov_rank : rank of a table by which each draft moves the logits of the next, ``[V, r] [r, V]``.
    gru_width, gru_embedding : of a recurrent unit that does so, and of the way from it to the vocabulary.
    """

    layers: int = 1
    own_attention: bool = False
    features: int = 2
    fuses_once: bool = False
    normed: bool = True
    inputs: int = 1
    draft_vocabulary: int | None = None
    mlp_width: float = 6.0
    quantized: bool = True
    parallel: bool = False
    block: int | None = None
    longest: float = np.inf
    output_heads: int = 0
    markov_rank: int = 0
    gru_width: int = 0
    gru_embedding: int = 0

    @property
    def comes_with_a_model(self) -> bool:
        """Whether such a head is a layer that models are pre-trained with, not one trained apart."""
        return self.features > 0 and not self.own_attention

    def query_tokens(self, gamma: Numeric) -> Numeric:
        """Return the tokens that enter a pass of a round of ``gamma`` drafts [tokens]."""
        if not self.parallel:
            return 1.0
        return np.maximum(gamma, 1.0) if self.block is None else float(self.block)


    @property
    def branches(self) -> bool:
        """Whether it can draft a tree: it ranks its guesses at every step, or has a head for every step."""
        return not self.parallel or self.output_heads > 0


PRETRAINED_HEAD = HeadShape()
MOST_NODES = 256
"""Nodes of a tree, as in the largest trees that are published (Sequoia, OPT-Tree: 256). [tokens]"""
MOST_TOPK = 32


@dataclass(frozen=True)
class Tree:
    """A draft that branches: several candidates for every position, one path of which may be accepted.

    Each step but the first continues the ``topk`` best drafts so far, each by its ``topk`` best next tokens;
    of all of them the ``nodes - 1`` best are verified beside the last known token, the root. These are
    ``--speculative-num-steps``, ``--speculative-eagle-topk``, ``--speculative-num-draft-tokens`` of SGLang.
    With ``topk`` 1 it is a chain, whatever ``nodes`` says (EAGLE-2, arXiv 2406.16858, section 4).

    Attributes
    ----------
    steps : draft passes of a round, and the most drafts that are accepted [tokens].
    topk : candidates that every step takes [tokens].
    nodes : tokens that are verified, the root included [tokens].
    """

    steps: int
    topk: int
    nodes: int

    def __post_init__(self) -> None:
        """Refuse a tree that cannot be; ValueError says what would do."""
        if self.steps < 1 or not 1 <= self.topk <= MOST_TOPK or not 2 <= self.nodes <= MOST_NODES:
            raise ValueError(
                f"steps are at least 1, topk 1 to {MOST_TOPK}, nodes 2 to {MOST_NODES}, not {self.label}"
            )
        if self.topk > 1 and self.nodes > 1 + self.pool(self.steps):
            raise ValueError(
                f"{self.steps} steps of topk {self.topk} draft {self.pool(self.steps)} tokens: with the root "
                f"there are at most {1 + self.pool(self.steps)} nodes, not {self.nodes}"
            )
        if self.topk == 1:
            object.__setattr__(self, "nodes", self.steps + 1)

    @property
    def label(self) -> str:
        """Its steps, topk and nodes."""
        return f"{self.steps},{self.topk},{self.nodes}"

    def pool(self, steps: Numeric) -> Numeric:
        """Return the drafts to choose among, ``topk + (steps - 1) topk**2`` [tokens]."""
        return self.topk + (steps - 1) * self.topk**2

    def verified(self, steps: Numeric) -> Numeric:
        """Return the drafts that are verified in a round of so many steps, the root not counted [tokens]."""
        drafted = np.asarray(steps, dtype=float)
        if self.topk == 1:
            return drafted
        return np.where(drafted > 0.0, np.minimum(self.nodes - 1.0, self.pool(drafted)), 0.0)

    def widen(self, counts: DraftPass, steps: Numeric) -> DraftPass:
        """Return a pass of a chain as one of the tree, mean over its steps.

        The first step drafts from the root, each later one from ``topk`` tokens; what the drafts before them
        left in the cache is ``topk`` times as much. What was kept of the context is read once for all.
        """
        if self.topk == 1 or counts.weights == "none":
            return counts
        drafted = np.maximum(steps, 1.0)
        every_step = np.equal(counts.passes, steps)  # else one pass drafts all
        more = np.where(every_step, self.topk - 1.0, 0.0)
        return replace(
            counts,
            query_tokens=counts.query_tokens * (1.0 + more * (drafted - 1.0) / drafted),
            kv_tokens=counts.kv_tokens + more * drafted_so_far(steps),
            resident_kv_tokens=counts.resident_kv_tokens + more * np.asarray(steps, dtype=float),
        )


Moment = Literal["position", "prompt", "pass"]


class KVSelector(Protocol):
    """Which entries of the cache a draft may read.

    ``moment`` says when the choice is made: ``position`` (a fixed rule), ``prompt`` (once, at the end of the
    prompt; later tokens are always kept) or ``pass`` (again in every draft pass). ``needs_scores`` says
    whether ``keep`` must be given the importance of every entry.
    """

    @property
    def moment(self) -> Moment: ...

    @property
    def needs_scores(self) -> bool: ...

    def keep(
        self, context_len: int, kv_budget: float, scores: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return the kept positions, ascending, within ``[0, context_len)``, the latest among them.

        Parameters
        ----------
        context_len : entries in the cache [tokens].
        kv_budget : entries that may be kept [tokens]; everything is kept where it covers the context.
        scores : importance of every entry, shape ``[..., context_len]``; leading axes (layers, heads,
            sequences) are chosen for separately, so the result has shape ``[..., kept]``.

        Raises
        ------
        ValueError : scores are needed and missing, or their last axis is not ``context_len`` long.
        """
        ...


@runtime_checkable
class DraftStrategy(Protocol):
    """One drafting idea; ``strategies/<name>.py`` exposes one object like this, called ``strategy``."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def lossless(self) -> bool: ...

    @property
    def drafters(self) -> tuple[Drafter, ...]: ...

    @property
    def default_budgets(self) -> tuple[float, ...]: ...

    @property
    def selector(self) -> KVSelector: ...

    @property
    def acceptance(self) -> AcceptanceLaw: ...

    @property
    def needs_draft_model(self) -> bool: ...

    @property
    def needs(self) -> str: ...

    @property
    def head(self) -> HeadShape: ...

    def draft_pass(
        self, *, context_len: Numeric, kv_budget: Numeric, gamma: Numeric, drafter: Drafter | None = None
    ) -> DraftPass: ...


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """The part that drafting ideas share: their label, their choices and their defaults.

    ``default_budgets`` is empty where the idea has no KV budget; such a strategy is priced once, with an
    infinite budget, which reads the whole cache. It is among the budgets of an idea that may do without one.
    ``needs`` says what must exist before it can run, beside a copy of the cache; planners
    search it when it is named. ``head`` is what a head is made of, where one drafts. ``title`` is what people
    call it, where that is not its name.
    """

    name: str
    summary: str
    source: str
    drafters: tuple[Drafter, ...]
    acceptance: AcceptanceLaw
    selector: KVSelector
    default_budgets: tuple[float, ...] = ()
    lossless: bool = True
    needs: str = ""
    head: HeadShape = PRETRAINED_HEAD
    title: str = ""

    @property
    def needs_draft_model(self) -> bool:
        """Whether nothing but a separate draft model can draft."""
        return self.drafters == ("draft",)

    def weights_of(self, drafter: Drafter | None) -> Weights:
        """Return whose weights ``drafter`` reads; the first choice where none is named.

        Raises
        ------
        ValueError : this strategy does not work with that drafter.
        """
        chosen = self.drafters[0] if drafter is None else drafter
        if chosen not in self.drafters:
            allowed = ", ".join(self.drafters)
            raise ValueError(f"{self.name} cannot draft with {chosen!r}; it drafts with: {allowed}")
        return WEIGHTS_OF[chosen]


def needs_budget(strategy: DraftStrategy) -> bool:
    """Return whether it must be told a KV budget: it has some, and the whole cache is not among them."""
    return bool(strategy.default_budgets) and np.inf not in strategy.default_budgets


def drafted_so_far(gamma: Numeric) -> Numeric:
    """Return how many earlier drafts a pass reads, mean over the ``gamma`` passes of a round [tokens].

    Pass ``i`` of ``gamma`` reads the ``i - 1`` entries drafted before it on top of the kept ones: ``(gamma -
    1) / 2``.
    """
    return np.maximum(np.subtract(gamma, 1.0), 0.0) / 2.0


def budget_after(selector: KVSelector, kv_budget: Numeric, generated: Numeric) -> Numeric:
    """Return the draft KV budget once ``generated`` tokens followed the prompt [tokens].

    A choice that is made once, at the end of the prompt, keeps every later token beside it: what may be kept
    grows to ``B + L``. Everywhere else a new token displaces an old one, and the budget stays ``B``.
    """
    return np.add(kv_budget, generated) if selector.moment == "prompt" else kv_budget


def own_cache(weights: Weights, context_len: Numeric, gamma: Numeric) -> Numeric:
    """Return the entries of the whole cache that a draft model keeps to choose from [tokens].

    The target's cache is there anyway, so drafting with its weights adds none.
    """
    return np.add(context_len, gamma) if weights == "draft" else np.multiply(gamma, 0.0)


def checked_scores(scores: NDArray[np.float64] | None, context_len: int, wanted: str) -> NDArray[np.float64]:
    """Return the scores as floats; refuse them where they are missing or do not cover the context.

    Raises
    ------
    ValueError : naming what the scores should be.
    """
    if scores is None:
        raise ValueError(f"scores are needed: {wanted}, shape [..., {context_len}]")
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != context_len:
        raise ValueError(
            f"scores have shape {array.shape}; their last axis must be the context, {context_len}"
        )
    return array


def highest(scores: NDArray[np.float64], count: int, recent: int = 1) -> NDArray[np.int64]:
    """Return the ``count`` best scored positions, ascending; the last ``recent`` always among them."""
    ranked = np.array(scores, dtype=np.float64)
    ranked[..., ranked.shape[-1] - min(recent, count) :] = np.inf
    best = np.argpartition(ranked, ranked.shape[-1] - count, axis=-1)[..., ranked.shape[-1] - count :]
    return np.sort(best, axis=-1).astype(np.int64)


@dataclass(frozen=True)
class WholeCache:
    """Keep every entry."""

    moment: Moment = "position"
    needs_scores: bool = False

    def keep(
        self,
        context_len: int,
        kv_budget: float = np.inf,  # noqa: ARG002
        scores: NDArray[np.float64] | None = None,  # noqa: ARG002
    ) -> NDArray[np.int64]:
        """Return ``0 .. context_len - 1`` whatever the budget and the scores."""
        return np.arange(context_len, dtype=np.int64)


WHOLE_CACHE = WholeCache()
