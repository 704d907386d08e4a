"""What of a deployment's parallelism goes together, and what it means for the nodes that it fills."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from perfmodel.deployment import Deployment, Drafter
from perfmodel.errors import SpecError
from perfmodel.files.units import format_quantity
from perfmodel.latency.all_reduce import nodes_of
from perfmodel.model import ModelSpec
from perfmodel.workload import MOST_GPUS

__all__ = [
    "MOST_GPUS", "attention_gpus", "check_parallelism", "check_tensor_parallel", "describe_parallelism",
    "in_one_stage",
]  # fmt: skip

NO_DRAFTS = (
    "releases of vLLM do not draft in a pipeline (issues 14089 and 57755), SGLang refuses it at its start, "
    "and what a round takes there is not modelled"
)


def check_parallelism(deployments: Iterable[Deployment], drafters: Sequence[Drafter | None] = ()) -> None:
    """Refuse what engines could not start; each check is told the whole.

    Parameters
    ----------
    deployments : each that is asked about.
    drafters : who may draft in them.

    Raises
    ------
    SpecError
        Naming the first thing that does not go together with another, and what does.
    """
    drafting = [drafter for drafter in drafters if drafter is not None]
    for deployment in deployments:
        for check in CHECKS:
            check(deployment, drafting)


def check_tensor_parallel(model: ModelSpec, tensor_parallel: int) -> None:
    """Refuse a number of GPUs that cannot share the model's attention heads evenly.

    Raises
    ------
    SpecError
        Naming the numbers that can.
    """
    heads = [mixer.heads for mixer, _ in model.token_mixers]
    if 1 <= tensor_parallel <= MOST_GPUS and all(count % tensor_parallel == 0 for count in heads):
        return
    allowed = [gpus for gpus in range(1, MOST_GPUS + 1) if all(count % gpus == 0 for count in heads)]
    raise SpecError.single(
        "", "tensor_parallel", f"found {tensor_parallel}: {model.name} has {min(heads)} attention heads",
        f"Give a number of GPUs that divides them: {', '.join(map(str, allowed))}",
    )  # fmt: skip


def _check_heads(deployment: Deployment, drafters: Sequence[Drafter]) -> None:  # noqa: ARG001
    check_tensor_parallel(deployment.model, int(deployment.tensor_parallel))


def _check_experts(deployment: Deployment, drafters: Sequence[Drafter]) -> None:  # noqa: ARG001
    """Refuse expert parallelism for a model that has no experts, as engines do."""
    if deployment.expert_parallel and not deployment.model.experts:
        raise SpecError.single(
            "", "expert_parallel", f"is asked for, but {deployment.model.name} has no experts", "Leave it out"
        )


def _check_stages(deployment: Deployment, drafters: Sequence[Drafter]) -> None:
    """Refuse more stages than layers, and drafts in a pipeline."""
    stages, layers = int(deployment.pipeline_parallel), deployment.model.num_layers
    if not 1 <= stages <= layers:
        raise SpecError.single(
            "", "pipeline_parallel", f"found {stages}: {deployment.model.name} has {layers} layers",
            f"Give from 1 to {layers} stages",
        )  # fmt: skip
    if stages > 1 and drafters:
        raise SpecError.single(
            "", "pipeline_parallel", f"is {stages} and {drafters[0].label} drafts: {NO_DRAFTS}",
            "Plan plain decoding there, --gamma 0, or share the layers with --tp alone",
        )  # fmt: skip


def _check_gpus(deployment: Deployment, drafters: Sequence[Drafter]) -> None:  # noqa: ARG001
    """Refuse no group at all, and more GPUs than anybody has."""
    if deployment.data_parallel < 1:
        raise SpecError.single(
            "", "data_parallel", f"found {deployment.data_parallel}", "Give at least 1 group"
        )
    if deployment.gpus > MOST_GPUS:
        raise SpecError.single(
            "", "tensor_parallel, pipeline_parallel, data_parallel",
            f"ask for {deployment.gpus:.0f} GPUs", f"Give numbers whose product is at most {MOST_GPUS}",
        )  # fmt: skip


def _check_drafts(deployment: Deployment, drafters: Sequence[Drafter]) -> None:
    """Refuse a draft model whose attention heads its GPUs cannot share evenly."""
    gpus = int(deployment.tensor_parallel)
    for drafter in drafters:
        if (model := drafter.draft_model) is None:
            continue
        heads = math.gcd(*(mixer.heads for mixer, _ in model.token_mixers))
        shared = min(drafter.draft_tensor_parallel or gpus, gpus)
        if heads % shared:
            allowed = [str(count) for count in range(1, gpus + 1) if heads % count == gpus % count == 0]
            raise SpecError.single(
                "", "draft_tensor_parallel",
                f"{model.name} has {heads} attention heads, which {shared} GPUs do not divide",
                f"Run it on fewer of the {gpus} GPUs: --draft-tp {' or '.join(allowed)}",
            )  # fmt: skip


CHECKS = (_check_heads, _check_experts, _check_stages, _check_gpus, _check_drafts)


def attention_gpus(model: ModelSpec, tensor_parallel: int, data_parallel: int) -> int:
    """Return the GPUs of a data-parallel group where those of all are counted, as in SGLang. [GPUs]

    Raises
    ------
    SpecError
        Where the groups do not divide the GPUs, or the model has no experts for them to share.
    """
    if not model.experts:
        raise SpecError.single(
            "", "dp_attention",
            f"counts the GPUs of all groups, but {model.name} has no experts for these to share",
            "Leave --enable-dp-attention out: --dp alone makes plain replicas",
        )  # fmt: skip
    if tensor_parallel % data_parallel:
        raise SpecError.single(
            "", "data_parallel", f"found {data_parallel}, which does not divide the {tensor_parallel} GPUs",
            "With --enable-dp-attention --tp counts all GPUs: give groups that divide them",
        )  # fmt: skip
    return tensor_parallel // data_parallel


def in_one_stage(pipeline_parallel: int) -> str:
    """Say why nobody drafts over several stages; empty for one."""
    return f"--pp {pipeline_parallel}: plain decoding only, {NO_DRAFTS}" if pipeline_parallel > 1 else ""


def describe_parallelism(deployment: Deployment) -> list[str]:
    """Say what the parallelism of a deployment takes for granted: nodes and their network, groups."""
    hardware, sentences = deployment.hardware, []
    groups = f"{float(deployment.data_parallel):.0f}"
    gpus, in_node = float(deployment.gpus), float(np.asarray(hardware.link_gpus))
    if gpus > in_node and not _separate(deployment):
        sentences.append(
            f"{gpus:.0f} x {hardware.name} fill {float(nodes_of(hardware, gpus)):.0f} nodes of {in_node:.0f}"
            f"; between them {_say(deployment, 'network.bandwidth')} a GPU, and a hop takes "
            f"{_say(deployment, 'network.latency')}"
        )
    if deployment.grouped and not deployment.model.experts:
        sentences.append(
            f"{deployment.model.name} has no experts: {groups} data-parallel groups are plain replicas, and "
            "the batch is that of all of them together"
        )
    elif deployment.grouped:
        sentences.append(
            f"{groups} data-parallel groups of {float(deployment.tensor_parallel):.0f} GPUs take even shares "
            "of the batch; one with more sequences, or longer ones, makes all others wait"
        )
    if deployment.piped:
        sentences.append(
            f"{float(deployment.pipeline_parallel):.0f} stages work on as many micro-batches at once, and "
            "each is a forward pass of its own to the engine"
        )
    return sentences


def _separate(deployment: Deployment) -> bool:
    """Whether only replicas without experts in common are on other nodes."""
    group = float(deployment.tensor_parallel * deployment.pipeline_parallel)
    return not deployment.model.experts and group <= float(np.asarray(deployment.hardware.link_gpus))


def _say(deployment: Deployment, path: str) -> str:
    """Return a figure of the network with its range, kind and source."""
    quantity = deployment.hardware.quantities[path]
    dimension = "bytes_per_s" if path.endswith("bandwidth") else "seconds"
    value, low, high = (
        format_quantity(float(np.asarray(end)), dimension)
        for end in (quantity.value, quantity.low, quantity.high)
    )
    return f"{value} ({low} to {high}, {quantity.kind}: {quantity.source})"
