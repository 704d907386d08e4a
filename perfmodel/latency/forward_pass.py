"""Seconds of one forward pass, by cause: the kernels summed over a model's layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment, stages_of
from perfmodel.engine import EngineOverhead
from perfmodel.files.compiled import compiled
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency.alike import at_distinct_rows
from perfmodel.latency.all_reduce import all_gather, all_reduce, all_to_all, hop
from perfmodel.latency.attention import attention
from perfmodel.latency.linear import NARROW, linear, pass_over
from perfmodel.latency.once import Once, remembering
from perfmodel.latency.recurrence import recurrence
from perfmodel.model import BYTES, ForwardPass, LinearLayer, ModelSpec, TokenMixer
from perfmodel.model.launches import Attend, Launch, Multiply, Recur, Way

__all__ = [
    "CAUSES", "ForwardPass", "StepLatency", "least_eager_s", "prefill_latency", "price_pass", "price_prefill",
    "step_latency",
]  # fmt: skip

CAUSES = ("linear", "attention", "recurrence", "communication", "overhead")


@dataclass(frozen=True)
class StepLatency:
    """Seconds of one forward pass split by cause; every field broadcasts against the others. [s]"""

    linear: Numeric
    attention: Numeric
    communication: Numeric
    overhead: Numeric
    recurrence: Numeric = 0.0

    @cached_property
    def total(self) -> Numeric:
        """Seconds of the whole pass: the causes do not overlap. [s]"""
        return _total_s(self.linear, self.attention, self.recurrence, self.communication, self.overhead)

    @property
    def token_mixing(self) -> Numeric:
        """Seconds of what grows with a sequence or is kept for it: attention and recurrence. [s]"""
        return self.attention + self.recurrence

    @property
    def bound_by(self) -> NDArray[np.str_]:
        """Name of the largest cause, one of `CAUSES`, per element."""
        stacked = np.stack(np.broadcast_arrays(*(getattr(self, cause) for cause in CAUSES)))
        largest: NDArray[np.str_] = np.asarray(CAUSES)[np.argmax(stacked, axis=0)]
        return largest

    def scale(self, factor: Numeric) -> StepLatency:
        """Return the pass with every cause `factor` times as long. [1]"""
        return StepLatency(**{cause: getattr(self, cause) * factor for cause in CAUSES})


@compiled
def _total_s(
    linear: Numeric, attention: Numeric, recurrence: Numeric, communication: Numeric, overhead: Numeric
) -> Numeric:
    return linear + (attention + recurrence) + communication + overhead


def price_pass(deployment: Deployment, forward: ForwardPass, once: Once | None = None) -> StepLatency:
    """Price one forward pass of the deployment's model, by cause. [s]

    The KV cache is read once for all queries of a sequence, the query rows are padded to the attention
    kernel's tile and the linear layers see ``batch * query_tokens`` rows. Terms are broadcast to the joint
    shape only where the causes are added.

    Parameters
    ----------
    deployment, forward : whose model on what, and what it runs through and reads.
    once : what remembers the products that other passes have priced already.

    Notes
    -----
    MagicDec (arXiv 2408.11049) section 3: ``T = T_linear + T_attention``, here with the communication of
    tensor parallelism and the engine's own time, which the paper's model leaves out.
    """
    return _price_layers(deployment, with_states(deployment.engine, forward), forward.query_tokens, once)


def with_states(engine: EngineOverhead, forward: ForwardPass) -> ForwardPass:
    """Return the pass with what the engine keeps of recurrent states until drafts are accepted."""
    return replace(forward, kept_states=engine.kept_states, state_trips=engine.state_trips)


def price_prefill(
    deployment: Deployment, *, batch: Numeric, prompt_tokens: Numeric, kv_tokens: Numeric | None = None
) -> StepLatency:
    """Price a prefill, or one chunk of it, by cause; arguments as in `prefill_latency`. [s]

    Where there are several ways to compute a layer, the faster is taken: latent attention writes keys and
    values out, as its engines do, recurrent layers go by chunks. Layers with experts are launched one by one,
    outside graphs: a prefill takes at least what that does.
    """
    chunk = np.asarray(prompt_tokens, dtype=float)
    history = np.zeros(()) if kv_tokens is None else np.maximum(np.subtract(kv_tokens, chunk), 0.0)

    forward = ForwardPass(batch=batch, query_tokens=chunk, kv_tokens=history + chunk, history=history)
    computed = _price_layers(deployment, forward, 1.0)
    if not np.any(deployment.engine.eager_expert_layer_s):
        return computed
    waited = np.maximum(least_eager_s(deployment) - computed.total, 0.0)
    return replace(computed, overhead=computed.overhead + waited)


def least_eager_s(deployment: Deployment) -> Numeric:
    """Seconds that a pass outside graphs takes at least: launching the layers with experts. [s]"""
    return expert_layers(deployment.model) * deployment.engine.eager_expert_layer_s


def _price_layers(
    deployment: Deployment, forward: ForwardPass, logit_tokens: Numeric, once: Once | None = None
) -> StepLatency:
    """Sum the kernels over the layers.

    Parameters
    ----------
    logit_tokens : tokens of each sequence whose logits are computed. [tokens]
    once : what remembers equal products.
    """
    model, engine = deployment.model, deployment.engine
    micro, together, in_flight = deployment.in_flight(forward.batch)
    everyone = replace(forward, batch=together)  # of all data-parallel groups: what routed experts see
    forward = replace(forward, batch=micro)
    logit_rows = np.multiply(forward.batch, logit_tokens)  # they decode: row figures were fitted to them
    linear_s: Numeric = np.zeros(())
    quantised: Numeric = 0.0
    for layer in model.linears:
        rows, times = (everyone if layer.experts else forward).runs(layer, logit_rows)
        seconds = _price_linear_layer(deployment, layer, forward, rows, once)
        linear_s = linear_s + layer.count * times * seconds
        quantised = quantised + (layer.count * times if layer.dtype in NARROW else 0.0)
    attention_s: list[Numeric] = []
    recurrence_s: list[Numeric] = []
    for mixer, count in model.token_mixers:
        seconds = _between_kernels(deployment, partial(_price_mixer, deployment, mixer, forward, once))
        (attention_s if mixer.reach else recurrence_s).append(count * seconds)
    communication_s = _price_communication(deployment, forward.rows, everyone.rows, logit_rows)
    upkeep = engine.draft_row_layer_s * forward.batch if forward.drafting else 0.0
    row_s = engine.row_layer_s * logit_rows + upkeep
    launched_s = engine.forward_s * (engine.draft_forward if forward.drafting else 1.0)
    overhead_s = launched_s + model.depth * (engine.layer_s + row_s) + engine.quantise_s * quantised
    if model.experts:
        overhead_s = overhead_s + expert_layers(model) * _price_expert_layer(deployment)
    if not forward.drafting:
        overhead_s = overhead_s + engine.row_s * forward.batch
    step = StepLatency(
        linear_s, _added(attention_s), communication_s, overhead_s, _added(recurrence_s)
    )  # fmt: skip
    return _in_stages(deployment, step, forward, logit_rows, in_flight) if deployment.piped else step


def _in_stages(
    deployment: Deployment, step: StepLatency, forward: ForwardPass, logit_rows: Numeric, in_flight: Numeric
) -> StepLatency:
    r"""Return the time between two tokens of a sequence whose micro-batch passes all stages, by cause. [s]

    .. math::
        T = \max(\sum_s t_s + (p - 1) h, \; m \max_s t_s)

    A token comes back when its micro-batch has passed all p stages, h a hop from one to the next, and no
    sooner than the slowest stage has served all m micro-batches. Every stage is a forward pass of its own to
    the engine. The slowest is a middle one or, with the output layer, the last of `stages_of`.

    Parameters
    ----------
    step : one micro-batch through the whole model as if in one stage. [s]
    in_flight : m. [1]

    Notes
    -----
    GPipe (arXiv 1811.06965) section 2.3 without its bubble: decoding never drains the pipeline.
    """
    model, engine, hardware = deployment.model, deployment.engine, deployment.hardware
    stages = np.asarray(deployment.pipeline_parallel, dtype=float)
    last_s: Numeric = np.zeros(())
    for layer in model.outputs:
        rows, times = forward.runs(layer, logit_rows)
        last_s = last_s + layer.count * times * _price_linear_layer(deployment, layer, forward, rows)
    layers_s = np.maximum(step.total - engine.forward_s - last_s, 0.0)
    _, middle, last = stages_of(model, stages)
    slowest = engine.forward_s + np.maximum(middle.layers * layers_s, last.layers * layers_s + last_s)

    gpus = deployment.expert_gpus
    beside = np.maximum(np.floor(hardware.link_gpus / gpus), 1.0)  # stages of one node
    crossings = np.ceil(stages / beside) - 1.0
    carried = np.multiply(forward.rows, 2.0 * model.hidden_size * BYTES["bf16"])  # hidden states and residual
    near, far = (
        hop(hardware, bytes=carried, gpus=deployment.tensor_parallel, across=across)
        for across in (False, True)
    )
    hops = (stages - 1.0 - crossings) * near + crossings * far
    passed = replace(
        step,
        overhead=step.overhead + (stages - 1.0) * engine.forward_s,
        communication=step.communication + hops,
    )
    waited = np.maximum(in_flight * slowest / passed.total, 1.0)
    return passed.scale(np.where(stages > 1.0, waited, 1.0))


def _price_expert_layer(deployment: Deployment) -> Numeric:
    """Price what a layer with experts takes beside its products: routing, sorting, adding up. [s]

    Kernels of four-bit experts find themselves which of them a GPU holds.
    """
    engine = deployment.engine
    wide = any(layer.experts and layer.stored_bytes >= 1.0 for layer in deployment.model.linears)
    dealt = np.where(deployment.expert_parallel, engine.expert_parallel_layer_s, 0.0) if wide else 0.0
    seconds: Numeric = engine.expert_layer_s + dealt
    return seconds


def expert_layers(model: ModelSpec) -> float:
    """Count the layers that have experts. [layers]"""
    return float(sum(count for _, count in model.experts))


@at_distinct_rows
def _price_linear_layer(
    deployment: Deployment,
    layer: LinearLayer,
    forward: ForwardPass,
    rows: Numeric,
    once: Once | None = None,
) -> Numeric:
    """Price one GPU's share of a linear layer; distinct experts are that many products of one launch. [s]

    How many are distinct is an expectation: between two whole numbers of experts seconds are a line. Every
    expert walks its own reduction, so many of them are never faster than those of one token. Where experts
    are dealt out whole the others wait for the busiest GPU.
    """
    split, dealt = deployment.shares(layer)
    n, k = layer.n_per_gpu(split), layer.k_per_gpu(split)
    price = partial(
        remembering(once),
        linear,
        deployment.hardware,
        n=n,
        k=k,
        dtype=layer.dtype,
        weight_fraction=forward.weight_fraction * (layer.stored_bytes / BYTES[layer.dtype]),
        streaming=deployment.engine.streaming,
        cold=True,
    )
    if not layer.experts:
        alone: Numeric = price(tokens=rows)
        return alone
    distinct, visits = layer.distinct_experts(rows, dealt), layer.visits(rows, dealt)
    together = _between_whole(distinct, lambda experts: price(tokens=visits / experts, products=experts))
    one_token = _between_whole(
        layer.distinct_experts(1.0, dealt), lambda experts: price(tokens=1.0, products=experts)
    )
    between = _elements_between(layer, n, k, visits, rows)
    return np.maximum(together, one_token) + pass_over(deployment.hardware, elements=between)


def _between_whole(distinct: Numeric, price: Callable[[Numeric], Numeric]) -> Numeric:
    """Return the seconds of an expected number of experts: a line between the two whole numbers. [s]"""
    fewer = np.maximum(np.floor(distinct), 1.0)
    fewer_s, more_s = price(fewer), price(fewer + 1.0)
    seconds: Numeric = fewer_s + (distinct - fewer) * (more_s - fewer_s)
    return seconds


def _elements_between(
    layer: LinearLayer, n: Numeric, k: Numeric, visits: Numeric, rows: Numeric
) -> Numeric:
    """Count what crosses memory between the products of routed experts, beyond their own operands. [1]

    What a product puts out is read again; of it comes what the row-split one takes in, and after that the sum
    over the experts of each token.
    """
    taken_in = visits * k + rows * n if layer.split == "row" else 0.0
    return visits * n + taken_in


def _between_kernels(deployment: Deployment, price: Callable[[str], Numeric]) -> Numeric:
    """Return seconds with the attention kernel that runs, or between those of two that may. [s]

    .. math::
        T = T_1^{1-share} T_2^{share}

    The first at 0 and the other at 1; between them, whatever grows with both grows.
    """
    seconds, *other = map(price, deployment.attention_kernels)
    if not other:
        return seconds
    share = deployment.engine.other_kernel_share
    between: Numeric = seconds ** np.subtract(1.0, share) * other[0] ** share
    return between


def _price_mixer(
    deployment: Deployment, mixer: TokenMixer, forward: ForwardPass, once: Once | None, kernel: str
) -> Numeric:
    """Price the token mixer of one layer on one GPU, the fastest of the ways to compute it. [s]"""

    def price_way(way: Way) -> Numeric:
        return _added([_price_launch(deployment, launch, forward, once, kernel) for launch in way])

    first, *others = map(price_way, mixer.ways(forward))
    return reduce(np.minimum, others, first)


def _added(seconds: Sequence[Numeric]) -> Numeric:
    """Return the sum of some times, 0 of none; a long array is added to nothing but another. [s]"""
    return reduce(np.add, seconds) if seconds else np.zeros(())


def _price_launch(
    deployment: Deployment, launch: Launch, forward: ForwardPass, once: Once | None, kernel: str
) -> Numeric:
    """Price one launch of a token mixer on one GPU. [s]

    The other layers have flushed its cache entries out of L2 since the last pass, so they are read cold.
    Kernels that choose entries take the ``t_0`` of the attention kernel each, on top of what they read.
    """
    hardware, gpus = deployment.hardware, deployment.tensor_parallel
    if isinstance(launch, Attend):
        heads, kv_heads = launch.heads_per_gpu(gpus)
        attended: Numeric = remembering(once)(
            attention,
            hardware,
            batch=np.multiply(forward.batch, launch.choices),
            query_tokens=launch.query_tokens,
            kv_tokens=launch.kv_tokens,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=launch.key_dim,
            value_dim=launch.value_dim,
            entry_elements=launch.entry_elements,
            kv_dtype=launch.dtype or deployment.model.kv_dtype,
            kv_fraction=forward.kv_fraction if launch.dtype is None else 1.0,
            kernel=kernel,
            cold=True,
        )
        return attended
    if isinstance(launch, Recur):
        shards = launch.shards(gpus)
        return recurrence(
            hardware,
            bytes_moved=np.multiply(forward.batch, launch.bytes_moved(gpus)),
            flops=np.multiply(forward.batch, launch.flops) / shards,
            states=np.multiply(forward.batch, launch.heads) / shards,
            tensor_cores=launch.tensor_cores,
        )
    if isinstance(launch, Multiply):
        rows = np.multiply(forward.batch, launch.tokens)
        priced = _price_linear_layer(deployment, launch.product, forward, rows, once)
        return np.where(rows > 0, priced, 0.0)
    seconds: Numeric = launch.launches * hardware.attention_kernel(kernel).t0
    return seconds


def _price_communication(
    deployment: Deployment, rows: Numeric, all_rows: Numeric, logit_rows: Numeric
) -> Numeric:
    """Price what the GPUs exchange in a pass. [s]

    Every layer reduces its rows after each of its mixers, attention and MLP mostly; the embedding, which is
    split by vocabulary, once; and the logits, split alike, are gathered to be sampled from. GPUs that deal
    out experts reduce too, as each has all rows (vLLM, SGLang), or send rows to the experts and back.
    Data-parallel groups do so, or gather the rows of all groups and scatter the sums.

    Parameters
    ----------
    rows, all_rows, logit_rows : tokens of one data-parallel group, of all of them, and of one whose logits
        are computed. [tokens]
    """
    hardware, model, engine = deployment.hardware, deployment.model, deployment.engine
    gpus = np.asarray(deployment.tensor_parallel, dtype=float)
    reduced = all_reduce(
        hardware,
        bytes=np.multiply(rows, model.hidden_size * BYTES["bf16"]),
        gpus=gpus,
        implementation=deployment.all_reduce,
    )
    vocabulary = sum(layer.count * layer.n for layer in model.linears if layer.name == "lm_head")
    gathered = all_gather(
        hardware,
        bytes=np.multiply(logit_rows, vocabulary * BYTES["bf16"]),
        gpus=gpus,
        implementation=deployment.all_gather,
    )
    total = (model.reductions + 1) * reduced + gathered
    sends = np.any(deployment.expert_parallel) and np.any(engine.expert_all_to_all)
    if not (sends or deployment.grouped):
        return total
    sharing, width = np.asarray(deployment.expert_gpus, dtype=float), BYTES["bf16"]
    instead = np.where(deployment.expert_parallel, engine.expert_all_to_all, 0.0)
    groups = np.greater(deployment.data_parallel, 1)
    for experts, count in model.experts:
        travelling = np.multiply(all_rows, experts.copies_sent(sharing) / sharing)
        one_way = all_to_all(
            hardware,
            bytes=travelling * ((experts.latent or model.hidden_size) * width),
            gpus=sharing,
        )
        total = total + count * instead * (2.0 * one_way - reduced)
        if deployment.grouped:  # a reduce-scatter moves what an all-gather does
            both = 2.0 * all_gather(
                hardware,
                bytes=np.multiply(all_rows, model.hidden_size * width),
                gpus=sharing,
                implementation=deployment.all_gather,
            )
            total = total + count * groups * (1.0 - instead) * (both - reduced)
    return total


def step_latency(
    hardware: HardwareProfile,
    model: ModelSpec,
    engine: EngineOverhead,
    *,
    batch: Numeric,
    query_tokens: Numeric = 1.0,
    kv_tokens: Numeric,
    tensor_parallel: Numeric = 1.0,
    weight_fraction: Numeric = 1.0,
    kv_fraction: Numeric = 1.0,
    selection_kv_tokens: Numeric = 0.0,
    selection_launches: Numeric = 0.0,
    drafting: bool = False,
    expert_parallel: bool | Numeric = False,
    pipeline_parallel: Numeric = 1.0,
    data_parallel: Numeric = 1.0,
) -> StepLatency:
    """Seconds of one forward pass of `model`, by cause; all arguments broadcast. [s]

    Parameters
    ----------
    hardware, model, engine : what runs on what, under which software.
    tensor_parallel : GPUs that share every layer; KV heads are replicated beyond their number. [GPUs]
    expert_parallel : whether they deal out the experts whole.
    pipeline_parallel, data_parallel : stages, and groups of sequences, as in `Deployment`. [1]
    batch, query_tokens, kv_tokens, weight_fraction, kv_fraction, selection_kv_tokens, selection_launches,
    drafting : what the pass runs through and reads, as in `ForwardPass`.
    """
    forward = ForwardPass(
        batch=batch,
        query_tokens=query_tokens,
        kv_tokens=kv_tokens,
        weight_fraction=weight_fraction,
        kv_fraction=kv_fraction,
        selection_kv_tokens=selection_kv_tokens,
        selection_launches=selection_launches,
        drafting=drafting,
    )
    deployment = Deployment(
        hardware, model, engine, tensor_parallel, expert_parallel, pipeline_parallel, data_parallel
    )
    return price_pass(deployment, forward)


def prefill_latency(
    hardware: HardwareProfile,
    model: ModelSpec,
    engine: EngineOverhead,
    *,
    batch: Numeric,
    prompt_tokens: Numeric,
    kv_tokens: Numeric | None = None,
    tensor_parallel: Numeric = 1.0,
    expert_parallel: bool | Numeric = False,
    pipeline_parallel: Numeric = 1.0,
    data_parallel: Numeric = 1.0,
) -> StepLatency:
    """Seconds to prefill, by cause; all arguments broadcast. [s]

    Every query reads itself and all before it, in a sliding-window layer at most the window; logits are
    computed for the last token of each sequence only, as engines do.

    Parameters
    ----------
    hardware, model, engine : what runs on what, under which software.
    batch : sequences. [1]
    prompt_tokens : tokens of each sequence that enter the pass. [tokens]
    kv_tokens : history and this chunk, for one chunk of a chunked prefill; no history where absent. [tokens]
    tensor_parallel : GPUs that share every layer. [GPUs]
    expert_parallel : whether they deal out the experts whole.
    pipeline_parallel, data_parallel : stages, and groups of sequences, as in `Deployment`. [1]
    """
    return price_prefill(
        Deployment(
            hardware, model, engine, tensor_parallel, expert_parallel, pipeline_parallel, data_parallel
        ),
        batch=batch,
        prompt_tokens=prompt_tokens,
        kv_tokens=kv_tokens,
    )
