"""Every flag of the commands that ask about a deployment, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.cli.ask.acceptance_flags import AcceptanceFlags
from perfmodel.cli.ask.completion import (
    engine_names,
    hardware_names,
    model_names,
    plan_formats,
    strategy_names,
)
from perfmodel.cli.ask.config import read_config
from perfmodel.cli.ask.flag import flag
from perfmodel.cli.ask.format import Format
from perfmodel.planning.plan import OBJECTIVES

__all__ = ["DeploymentFlags", "ExplainFlags", "OutputFlags", "PlanFlags", "QuestionFlags", "SweepFlags"]

_DEPLOYMENT, _WORKLOAD, _DRAFTING, _ANSWER = "Deployment", "Workload", "Drafting", "Answer"


@dataclass(frozen=True, kw_only=True)
class DeploymentFlags:
    """Which model runs on what."""

    model: str = flag("--model", "--model-path", "NAME|PATH", required=True, complete=model_names,
        panel=_DEPLOYMENT,
        help="Target model: a bundled name, a config.json, a folder that holds one, or a hub id.")
    hardware: str = flag("--hardware", "--system", "NAME|PATH,...", required=True, complete=hardware_names,
        panel=_DEPLOYMENT,
        help="Accelerator: a profile's name or alias, or a YAML file.")
    tp: str = flag("--tp", "--tp-size", "--tensor-parallel-size", "N,...", default="1", panel=_DEPLOYMENT,
        help="GPUs that share every layer.")
    engine: str | None = flag("--engine", "NAME|PATH", complete=engine_names, panel=_DEPLOYMENT,
        help="Serving engine whose overheads count; `generic` where none is named.")
    weight_dtype: str | None = flag("--weight-dtype", "DTYPE", panel=_DEPLOYMENT,
        help="How the target's weights are stored (bf16, fp8, int4, ...); the model's own where absent.")
    kv_cache_dtype: str | None = flag("--kv-cache-dtype", "DTYPE", panel=_DEPLOYMENT,
        help="How the KV cache is stored (bf16, fp8, ...); the model's own where absent.")
    gpu_memory_utilization: str | None = flag("--gpu-memory-utilization", "SHARE", panel=_DEPLOYMENT,
        help="Share of GPU memory that the engine may use; the engine's own where absent.")
    profiles_path: str | None = flag("--profiles-path", "FOLDER", panel=_DEPLOYMENT,
        help="Further folders of hardware and engine files, separated as in PATH.")


@dataclass(frozen=True, kw_only=True)
class QuestionFlags(AcceptanceFlags, DeploymentFlags):
    """A deployment, its workload and what may draft."""

    context: str = flag("--context", "--isl", "--prefix-len", "TOKENS,...", required=True, panel=_WORKLOAD,
        help="Context lengths: 32k is 32000, 32K is 32768; 4k,8k or 1k:128k:x2 or 8k:32k:8k.")
    batch_size: str = flag("--batch-size", "-b", "--bs", "N,...", required=True, panel=_WORKLOAD,
        help="Sequences decoded together: 32,64,128 or 1:256:x2 or 16:256:16.")
    strategy: str | None = flag("--strategy", "NAME,...|all", complete=strategy_names, panel=_DRAFTING,
        help="Drafting strategies to search; those a deployment can start today where absent.")
    draft_model: str | None = flag("--draft-model", "--spec-model", "NAME|PATH,...", complete=model_names,
        panel=_DRAFTING,
        help="Small models that may draft. With --strategy only these do; `self` is the target itself.")
    draft_budget: str | None = flag("--draft-budget", "TOKENS,...", panel=_DRAFTING,
        help="Draft KV budgets to search; each strategy's own where absent.")
    gamma: str | None = flag("--gamma", "--num-speculative-tokens", "--spec-tokens", "N,...", panel=_DRAFTING,
        help="Speculation lengths to search, 0:16:1 where absent. Plain decoding (0) always is.")
    tpot: str | None = flag("--tpot", "--tpot-sla-ms", "MS", panel=_WORKLOAD,
        help="Longest time per output token [ms] that is allowed.")


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """How the answer is written."""

    format: Format | None = flag("--format", panel=_ANSWER,
        help="How to write it; a table, or what the ending of -o says.")
    output: str | None = flag("--output", "-o", "FILE", panel=_ANSWER, help="Write to a file, not to stdout.")
    no_color: bool = flag("--no-color", default=False, panel=_ANSWER,
        help="No colours; so does the variable NO_COLOR.")


@dataclass(frozen=True, kw_only=True)
class PlanFlags(OutputFlags, QuestionFlags):
    """What `plan` takes."""

    format: str | None = flag("--format", "table|json|yaml|csv|ENGINE", complete=plan_formats, panel=_ANSWER,
        help="How to write it; a table, or as -o ends. An engine (vllm, sglang, ...): one deployment, in "
        "that engine's own words.")  # type: ignore[assignment]  # fmt: skip
    objective: str = flag("--objective", "WHAT,RISK", default="speedup", panel=_ANSWER,
        help=f"What decides among GPUs and their number ({', '.join(OBJECTIVES)}), and at which "
        "acceptance: expected, quantile:0.2, or worst (quantile:0.05).")
    one_deployment: bool = flag("--one-deployment", default=False, panel=_ANSWER,
        help="One drafter and draft KV budget for all cells, as a running engine has; gamma may vary.")
    lossy: bool = flag("--lossy", default=False, panel=_ANSWER,
        help="Price lossy alternatives beside it: quantised weights or KV, pruned weights. Never chosen.")
    pruned: str = flag("--pruned", "SHARE,...", default="50%", panel=_ANSWER,
        help="Shares of the weights that pruning takes away, for --lossy: 25%,50%.")
    config: str | None = flag("--config", "FILE", is_eager=True, callback=read_config, panel=_ANSWER,
        help="YAML file of these flags, such as batch_size: [32, 64] or gamma: '1:8:1'. Flags given win.")


@dataclass(frozen=True, kw_only=True)
class ExplainFlags(OutputFlags, QuestionFlags):
    """What `explain` takes."""


@dataclass(frozen=True, kw_only=True)
class SweepFlags(QuestionFlags):
    """What `sweep` takes."""

    output: str | None = flag("--output", "-o", "FILE", panel=_ANSWER,
        help="Write to a file that ends on .csv, .csv.gz, .npz or .parquet; CSV to stdout where absent.")
    jobs: int = flag("--jobs", "-j", default=1, min=0, max=1024, panel=_ANSWER,
        help="Worker processes; 0: one a core.")
