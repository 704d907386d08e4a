"""What a deployment keeps resident in GPU memory, and the largest batch that fits."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from perfmodel.deployment import WHOLE, Deployment, Stage, shares, stages_of
from perfmodel.engine import EngineOverhead
from perfmodel.files.numbers import as_floats
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.model import BYTES, ModelSpec

__all__ = [
    "MAX_PASS_TOKENS", "WHOLE", "ResidentMemory", "Stage", "count_memory", "kv_bytes_per_gpu",
    "largest_batch", "resident_memory", "stages_of", "state_bytes_per_gpu", "weight_bytes_per_gpu",
]  # fmt: skip

MAX_PASS_TOKENS = 8192
"""Tokens that one pass holds activations for: engines split longer prefills into chunks of it. [tokens]"""


@dataclass(frozen=True)
class ResidentMemory:
    """Resident bytes on each GPU; every field broadcasts against the others. [B]

    ``states`` are the recurrent states of all sequences, of target and draft, ``kept_states`` those that are
    kept beside them until drafts are accepted. ``in_doubt`` are bytes that engines were seen to keep on top
    of all these: what fits by less may not start. ``target_entry`` are the bytes of one sequence's cache,
    ``entry_with_slots`` with those of drafted tokens, which ``sequences`` have, ``draft_entry`` those of its
    draft cache, which ``drafted`` sequences have. [1]
    """

    weights: Numeric
    draft_weights: Numeric
    sequences: Numeric
    target_entry: Numeric
    entry_with_slots: Numeric
    drafted: Numeric
    draft_entry: Numeric
    states: Numeric
    kept_states: Numeric
    activations: Numeric
    fixed: Numeric
    usable: Numeric
    in_doubt: Numeric = 0.0

    @property
    def target_kv(self) -> Numeric:
        """Bytes of all target caches. [B]"""
        return self.sequences * self.target_entry

    @property
    def lookahead_kv(self) -> Numeric:
        """Bytes of the slots for drafted tokens. [B]"""
        return self.sequences * self.entry_with_slots - self.target_kv

    @property
    def draft_kv(self) -> Numeric:
        """Bytes of all draft caches. [B]"""
        return self.drafted * self.draft_entry

    @property
    def beside_caches(self) -> Numeric:
        """Bytes that are resident whatever the caches hold. [B]"""
        return self.weights + self.draft_weights + self.activations + self.fixed

    @property
    def total(self) -> Numeric:
        """Bytes that must be resident on each GPU. [B]"""
        caches = self.target_kv + self.draft_kv + self.lookahead_kv
        return self.beside_caches + caches + self.states + self.kept_states

    @property
    def left(self) -> Numeric:
        """Usable bytes that are left. [B]"""
        return self.usable - self.total

    @property
    def fits(self) -> np.ndarray:
        """Whether the total is at most the usable memory, per element."""
        return np.asarray(self.total <= self.usable)


FOUR_BITS = 0.75
"""Elements stored in fewer bytes are of four bits or less, which engines repack for their kernels. [B]"""


def weight_bytes_per_gpu(
    model: ModelSpec,
    tensor_parallel: Numeric,
    repacking: Numeric = 1.0,
    expert_parallel: bool | Numeric = False,
    data_parallel: Numeric = 1.0,
    stage: Stage = WHOLE,
) -> Numeric:
    """Resident weight bytes on each of `tensor_parallel` GPUs. [B]

    Embedding and output layer are split by vocabulary. Every GPU has a copy of what is not split: norms, the
    router of experts, the down projections of latent attention; and beyond ``kv_heads`` GPUs the matrices of
    keys and values are copied too. Weights of four bits take `repacking` times what they take on disk. Under
    `expert_parallel` experts are dealt out whole, and it is the fullest GPU's. Routed experts are shared over
    the GPUs of all `data_parallel` groups, of which each has all else. Of a pipeline it is one `stage`'s.
    """
    gpus = np.asarray(tensor_parallel, dtype=float)
    size = BYTES[model.base_dtype]
    embeds = stage.first if model.owns_lm_head else np.maximum(stage.first, stage.last)
    ends = model.embedding_parameters / gpus * embeds + model.other_parameters * stage.last
    held: Numeric = ends * size + model.table_bytes
    outputs = {layer.name for layer in model.outputs}
    for layer in model.linears:
        if model.owns_lm_head or layer.name != "lm_head":
            grown = repacking if layer.stored_bytes < FOUR_BITS else 1.0
            split, dealt = shares(layer, gpus, expert_parallel, data_parallel)
            matrix = layer.elements_per_gpu(split) * layer.stored_bytes * grown
            share = stage.last if layer.name in outputs else stage.layers
            matrices = layer.count * share * layer.matrices_held(dealt)
            held = held + matrices * (matrix + layer.vectors * size)
    return held


def _weights(
    deployment: Deployment, model: ModelSpec, gpus: Numeric, repacking: Numeric, stage: Stage
) -> Numeric:
    """Weight bytes of a model on each of `gpus` GPUs of a deployment's stage. [B]"""
    return weight_bytes_per_gpu(
        model, gpus, repacking, deployment.expert_parallel, deployment.data_parallel, stage
    )


def _in_doubt(deployment: Deployment, stage: Stage) -> Numeric:
    """Bytes between what an engine's own memory and repacking are taken to be, and the most they may be."""
    engine = deployment.engine

    def above(path: str) -> float:
        quantity = engine.quantities.get(path)
        value = getattr(engine, path)
        return 0.0 if quantity is None or np.ndim(value) else max(float(quantity.high) - float(value), 0.0)

    doubt: Numeric = np.asarray(above("fixed_memory"))
    if more := above("repacking"):
        grown, stored = (
            _weights(deployment, deployment.model, deployment.tensor_parallel, factor, stage)
            for factor in (1.0 + more, 1.0)
        )
        doubt = doubt + grown - stored
    return doubt


def kv_bytes_per_gpu(
    model: ModelSpec, kv_tokens: Numeric, tensor_parallel: Numeric, *, growing: bool = False
) -> Numeric:
    """Cache bytes of one sequence on each GPU; beyond ``kv_heads`` GPUs every further GPU holds a copy. [B]

    Sliding-window layers hold at most their window, and nothing where only caches that grow count; all
    arguments broadcast.
    """
    size = BYTES[model.kv_dtype]
    total: Numeric = np.zeros(())
    for cache, count in model.caches:
        if growing and cache.window is not None:
            continue
        held = count * cache.elements_per_gpu(tensor_parallel) * size
        total = total + held * cache.entries(kv_tokens)
    return total


def state_bytes_per_gpu(model: ModelSpec, tensor_parallel: Numeric, *, kept: bool = False) -> Numeric:
    """Bytes of one copy of a sequence's states on each GPU, which share them by heads. [B]

    kept : count only those that a verification keeps for every draft.
    """
    gpus = np.asarray(tensor_parallel, dtype=float)
    total: Numeric = np.zeros(())
    for mixer, count in model.token_mixers:
        if (state := mixer.state) is not None and (state.kept or not kept):
            total = total + count * state.bytes(model.base_dtype) / np.minimum(gpus, state.heads)
    return total


def count_memory(
    deployment: Deployment,
    *,
    batch: Numeric,
    context_len: Numeric,
    gamma: Numeric = 0.0,
    draft: ModelSpec | None = None,
    draft_tensor_parallel: Numeric | None = None,
    draft_resident_kv_tokens: Numeric = 0.0,
    draft_kv_fraction: Numeric = 1.0,
    draft_weight_fraction: Numeric = 0.0,
    draft_states: Numeric = 0.0,
) -> ResidentMemory:
    """Count the resident bytes per GPU of target, draft and caches; arguments as in `resident_memory`. [B]

    Of a pipeline it is the fullest stage's; what drafts is in its last one.

    draft_states : copies of its states that a target which drafts for itself works on. [1]
    """
    batch, context_len, gamma = as_floats(batch, context_len, gamma)

    def of_stage(stage: Stage) -> ResidentMemory:
        return _count_stage(
            deployment, stage, batch=batch, context_len=context_len, gamma=gamma, draft=draft,
            draft_tensor_parallel=draft_tensor_parallel, draft_resident_kv_tokens=draft_resident_kv_tokens,
            draft_kv_fraction=draft_kv_fraction, draft_weight_fraction=draft_weight_fraction,
            draft_states=draft_states,
        )  # fmt: skip

    if not deployment.piped:
        return of_stage(WHOLE)
    stages = [of_stage(stage) for stage in stages_of(deployment.model, deployment.pipeline_parallel)]
    totals = np.broadcast_arrays(*(stage.total for stage in stages))
    fullest = np.argmax(np.stack(totals), axis=0)
    return ResidentMemory(
        **{
            field.name: np.choose(fullest, [getattr(stage, field.name) for stage in stages])
            for field in fields(ResidentMemory)
        }
    )


def _count_stage(
    deployment: Deployment,
    stage: Stage,
    *,
    batch: Numeric,
    context_len: Numeric,
    gamma: Numeric,
    draft: ModelSpec | None,
    draft_tensor_parallel: Numeric | None,
    draft_resident_kv_tokens: Numeric,
    draft_kv_fraction: Numeric,
    draft_weight_fraction: Numeric,
    draft_states: Numeric,
) -> ResidentMemory:
    """Count the resident bytes on each GPU of one stage; arguments as in `count_memory`. [B]"""
    target, gpus = deployment.model, deployment.tensor_parallel
    draft_gpus = gpus if draft_tensor_parallel is None else draft_tensor_parallel
    engine, drafted = deployment.engine, np.asarray(gamma, dtype=float)
    micro, _, _ = deployment.in_flight(batch)
    largest = np.ceil(micro) if deployment.piped else micro
    batch = deployment.group_batch(batch)
    weights = _weights(deployment, target, gpus, engine.repacking, stage)
    slots = np.where(np.asarray(gamma) > 0, np.asarray(gamma, dtype=float) + 1.0, 0.0)
    entry_bytes = kv_bytes_per_gpu(  # a target that drafts for itself copies entries of what grows
        draft or target, draft_resident_kv_tokens, draft_gpus, growing=draft is None
    )
    sequences = np.asarray(batch) * stage.layers
    one_state = state_bytes_per_gpu(target, gpus) * stage.layers
    draft_state = state_bytes_per_gpu(draft, draft_gpus) * stage.last if draft else 0.0
    kept = np.where(drafted > 0, engine.kept_states * (drafted + engine.state_trips), 0.0)
    undone = state_bytes_per_gpu(target, gpus, kept=True) * stage.layers
    kept_states = (kept + np.where(drafted > 0, draft_states, 0.0)) * undone
    if draft is not None:  # what it drafted and the target did not take is undone in its states too
        undone_by_draft = state_bytes_per_gpu(draft, draft_gpus, kept=True) * stage.last
        kept_states = kept_states + kept * undone_by_draft
    return ResidentMemory(
        weights=weights,
        draft_weights=draft_weight_fraction * weights
        if draft is None
        else _weights(deployment, draft, draft_gpus, engine.repacking, WHOLE) * stage.last,
        sequences=sequences,
        target_entry=kv_bytes_per_gpu(target, context_len, gpus),
        entry_with_slots=kv_bytes_per_gpu(target, np.asarray(context_len) + slots, gpus),
        drafted=np.asarray(batch) * draft_kv_fraction,
        draft_entry=entry_bytes * (stage.layers if draft is None else stage.last),
        states=np.asarray(batch) * (one_state + draft_state),
        kept_states=np.asarray(batch) * kept_states,
        activations=_activation_bytes(deployment, stage, batch=largest, gamma=gamma),
        fixed=engine.fixed_memory,
        in_doubt=_in_doubt(deployment, stage),
        usable=deployment.hardware.memory_capacity * deployment.engine.memory_utilization,
    )


def resident_memory(
    hardware: HardwareProfile,
    target: ModelSpec,
    engine: EngineOverhead,
    *,
    batch: Numeric,
    context_len: Numeric,
    gamma: Numeric = 0.0,
    tensor_parallel: Numeric = 1.0,
    draft: ModelSpec | None = None,
    draft_tensor_parallel: Numeric | None = None,
    draft_resident_kv_tokens: Numeric = 0.0,
    draft_kv_fraction: Numeric = 1.0,
    draft_weight_fraction: Numeric = 0.0,
    expert_parallel: bool | Numeric = False,
    pipeline_parallel: Numeric = 1.0,
    data_parallel: Numeric = 1.0,
) -> ResidentMemory:
    """Resident bytes per GPU of target, draft and their caches; all arguments broadcast. [B]

    Parameters
    ----------
    hardware, target, engine : what runs on what, under which software.
    batch, context_len : sequences, and cache entries of each. [1], [tokens]
    gamma : drafted tokens; with the bonus token their entries are held until they are verified. [tokens]
    tensor_parallel : GPUs that share every layer. [GPUs]
    draft : the model whose weights are loaded beside the target's, or None in self-speculation.
    draft_tensor_parallel : GPUs that share what drafts, each of which is counted here; all where None. [GPUs]
    draft_resident_kv_tokens : entries that the drafter keeps beyond the target's, per sequence. [tokens]
    draft_kv_fraction : bytes of such an entry relative to the drafting model's cache dtype. [1]
    draft_weight_fraction : a second copy of the target's weights, relative to the first. [1]
    expert_parallel : whether the GPUs deal out the experts whole.
    pipeline_parallel, data_parallel : stages, and groups of sequences, as in `Deployment`. [1]
    """
    return count_memory(
        Deployment(
            hardware, target, engine, tensor_parallel, expert_parallel, pipeline_parallel, data_parallel
        ),
        batch=batch,
        context_len=context_len,
        gamma=gamma,
        draft=draft,
        draft_tensor_parallel=draft_tensor_parallel,
        draft_resident_kv_tokens=draft_resident_kv_tokens,
        draft_kv_fraction=draft_kv_fraction,
        draft_weight_fraction=draft_weight_fraction,
    )


def _activation_bytes(
    deployment: Deployment, stage: Stage, *, batch: Numeric, gamma: Numeric
) -> Numeric:
    """Peak activation bytes of a GPU: hidden states of a pass, and float32 logits of all verified rows. [B]

    A layer with experts holds residual, input and, for each expert that a token visits, a copy of what its
    products put out and of what the down projection takes in, as the fused kernels of engines lay them out.
    The logits are split by vocabulary while they are computed, and gathered on one GPU to be sampled from.
    """
    model, gpus = deployment.model, np.asarray(deployment.tensor_parallel, dtype=float)
    rows = np.asarray(batch) * (np.asarray(gamma, dtype=float) + 1.0)
    widest = max((layer.n for layer in model.linears if layer.count > 1), default=model.hidden_size)
    dense = 4 * model.hidden_size + widest / gpus
    copies: Numeric = 0.0
    for layer in model.linears:
        if layer.experts:
            split, _ = deployment.shares(layer)
            taken_in = layer.k_per_gpu(split) if layer.split == "row" else 0.0
            copies = copies + layer.experts_per_token * (layer.n_per_gpu(split) + taken_in)
    width = np.maximum(dense, 2 * model.hidden_size + copies)
    hidden = np.maximum(rows, MAX_PASS_TOKENS) * width * 2.0
    logits = rows * model.vocab_size * BYTES["fp32"] * stage.last
    peak: Numeric = hidden + logits
    return peak


def largest_batch(
    hardware: HardwareProfile,
    target: ModelSpec,
    engine: EngineOverhead,
    *,
    context_len: Numeric,
    limit: int = 65536,
    **deployment: Numeric | ModelSpec | None,
) -> np.ndarray:
    """Largest batch whose resident memory fits, 0 where not even one sequence does.

    Bytes grow with the batch, so the answer is found by bisection, all elements at once.

    Parameters
    ----------
    hardware, target, engine, context_len, deployment : as in `resident_memory`.
    limit : no answer exceeds it. [sequences]
    """
    names = ("tensor_parallel", "expert_parallel", "pipeline_parallel", "data_parallel")
    layout = {name: deployment.pop(name) for name in names if name in deployment}
    runs = Deployment(hardware, target, engine, **layout)  # type: ignore[arg-type]

    def fits(batch: np.ndarray) -> np.ndarray:
        return count_memory(runs, batch=batch, context_len=context_len, **deployment).fits  # type: ignore[arg-type]

    shape = fits(np.ones(())).shape
    low, high = np.zeros(shape), np.full(shape, float(limit + 1))
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        enough = fits(np.maximum(middle, 1))
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return low.astype(int)
