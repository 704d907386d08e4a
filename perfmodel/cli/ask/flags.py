"""The flags that several commands share, declared once: acceptance, deployment, question, traffic."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.cli.ask.completion import engine_names, hardware_names, model_names, strategy_names
from perfmodel.cli.ask.flag import ALLOW_CODE, flag
from perfmodel.cli.ask.format import OutputFlags
from perfmodel.cli.ask.gpus import read_gpus
from perfmodel.cli.ask.hub import leave_hub_out
from perfmodel.cli.ask.served import read_served

__all__ = [
    "BATCH", "CONTEXT", "EXECUTOR", "HARDWARE", "JOBS", "OUTPUT_TOKENS", "TP", "AcceptanceFlags",
    "DeploymentFlags", "QuestionFlags", "TrafficFlags",
]  # fmt: skip

HARDWARE = ("--hardware", "--system", "--gpu")
TP = ("--tp", "-tp", "--tp-size", "--tensor-parallel-size")
CONTEXT = ("--context", "--context-length", "--input-len", "--isl", "--prefix-len")
OUTPUT_TOKENS = ("--output-tokens", "--output-len", "--osl")
BATCH = ("--batch-size", "-b", "--batch", "--bs")
"""Spellings of flags that commands declare anew, with other defaults."""

_ACCEPTANCE, _DEPLOYMENT, _WORKLOAD, _DRAFTING = "Acceptance", "Deployment", "Workload", "Drafting"
_TRAFFIC, _SERVING = "Traffic", "Serving"
JOBS = flag("--jobs", "-j", default=1, min=0, max=1024, panel="Answer",
    help="Worker processes; 0: one a core.")
EXECUTOR = flag("--executor", "local:N|dask:ADDRESS|MODULE:NAME", panel="Answer",
    help="Worker processes (local:4; local:0 is one a core), a Dask scheduler (dask:tcp://host:8786) or what "
    "makes an executor (package.module:name). With -o, what is done survives any end, and the same command "
    "goes on.")


@dataclass(frozen=True, kw_only=True)
class AcceptanceFlags:
    """What was measured of acceptance, and what the published laws are asked under."""

    acceptance: str | None = flag("--acceptance", "--acceptance-file", "FILE", panel=_ACCEPTANCE,
        help="Acceptance measured on your own traffic, from `draftplan acceptance fit -o FILE`.")
    acceptance_rate: str | None = flag("--acceptance-rate", "ALPHA", panel=_ACCEPTANCE,
        help="Measured chance that a drafted token is accepted, given all before it were; 0 to 1. Replaces "
        "the published laws of all strategies.")
    acceptance_length: str | None = flag("--acceptance-length", "TOKENS[@GAMMA]", panel=_ACCEPTANCE,
        help="Measured tokens per round, bonus token included, and the speculation length they were "
        "measured at: 3.2@4. Without @GAMMA, --gamma must name one.")
    temperature: str | None = flag("--temperature", "T", panel=_ACCEPTANCE,
        help="Sampling temperature, greedy where absent. It costs small models and heads acceptance.")
    far_share: str | None = flag("--far-share", "SHARE", panel=_ACCEPTANCE,
        help="Share of tokens that need content from anywhere in the context, 0 where absent: little in "
        "prose and reasoning, much in retrieval, where windows fail and choosing by the query does "
        "not.")
    match_share: str | None = flag("--match-share", "SHARE", panel=_ACCEPTANCE,
        help="Share of rounds in which a lookup (ngram) finds a match and drafts: near 1 in edits and "
        "summaries, 0.1 to 0.4 in chat; assumed with a wide range where absent.")
    trained_length: str | None = flag("--trained-length", "TOKENS", panel=_ACCEPTANCE,
        help="Context that a drafting head was trained to read; each strategy's own where absent.")


@dataclass(frozen=True, kw_only=True)
class DeploymentFlags:
    """Which model runs on what."""

    model: str = flag("--model", "-m", "--model-path", "NAME|PATH", required=True, complete=model_names,
        panel=_DEPLOYMENT,
        help="Target model: a bundled name, a config.json, a folder that holds one, or a hub id.")
    hardware: str = flag(*HARDWARE, "NAME|PATH,...", required=True, complete=hardware_names,
        panel=_DEPLOYMENT,
        help="Accelerator: what people call it (h100, 'NVIDIA H100 80GB HBM3'), or a YAML file.")
    gpus: str | None = flag("--gpus", "--num-gpus", "NxNAME|N", complete=hardware_names, panel=_DEPLOYMENT,
        is_eager=True, callback=read_gpus,
        help="Accelerator and number in one: 8xH200; or the number beside --hardware. All stages and groups "
        "count.")
    tp: str = flag(*TP, "N,...", default="1", panel=_DEPLOYMENT,
        help="GPUs that share every layer.")
    expert_parallel: bool = flag("--expert-parallel", "--enable-expert-parallel", "--ep", default=False,
        panel=_DEPLOYMENT,
        help="The GPUs deal out the experts whole, in place of a slice of each to every GPU.")
    pp: int = flag("--pp", "-pp", "--pp-size", "--pipeline-parallel-size", default=1, min=1,
        panel=_DEPLOYMENT,
        help="Stages that the layers are dealt out over, each on --tp GPUs of its own.")
    dp: int = flag("--dp", "-dp", "--dp-size", "--data-parallel-size", default=1, min=1,
        panel=_DEPLOYMENT,
        help="Groups of --tp GPUs that each hold attention for sequences of their own and share the routed "
        "experts; --batch-size counts the sequences of all groups.")
    dp_attention: bool = flag("--dp-attention", "--enable-dp-attention", default=False, panel=_DEPLOYMENT,
        help="Read --tp as SGLang does, as the GPUs of all --dp groups together.")
    engine: str | None = flag("--engine", "NAME|PATH", complete=engine_names, panel=_DEPLOYMENT,
        help="Serving engine whose overheads count, with its release where it is an older one (vllm@0.11.0); "
        "`generic` where none is named.")
    weight_dtype: str | None = flag("--weight-dtype", "--quantization", "-q", "DTYPE", panel=_DEPLOYMENT,
        help="How the target's weights are stored (bf16, fp8, int4, ...); the model's own where absent.")
    kv_cache_dtype: str | None = flag("--kv-cache-dtype", "DTYPE", panel=_DEPLOYMENT,
        help="How the KV cache is stored (bf16, fp8, ...); the model's own where absent.")
    gpu_memory_utilization: str | None = flag("--gpu-memory-utilization", "SHARE", panel=_DEPLOYMENT,
        help="Share of GPU memory that the engine may use; the engine's own where absent.")
    profiles_path: str | None = flag("--profiles-path", "FOLDER", panel=_DEPLOYMENT,
        help="Further folders of hardware and engine files, separated as in PATH.")
    offline: bool = flag("--offline", default=False, is_eager=True, callback=leave_hub_out, panel=_DEPLOYMENT,
        help="Ask no hub for a model that is not here; so does HF_HUB_OFFLINE=1.")


@dataclass(frozen=True, kw_only=True)
class QuestionFlags(AcceptanceFlags, DeploymentFlags):
    """A deployment, its workload and what may draft."""

    served: str | None = flag("--from", "FILE|COMMAND", is_eager=True, callback=read_served,
        panel=_DEPLOYMENT,
        help="Ask what a deployment implies: a command line of vLLM, SGLang or trtllm-serve, in quotes or in "
        "a file (script, compose, Kubernetes; FILE:NAME of several), or vLLM's YAML. Flags given win.")
    context: str = flag(*CONTEXT, "TOKENS,...", required=True, panel=_WORKLOAD,
        help="Context lengths: 32k is 32000, 32K is 32768; 4k,8k or 4k-128k (doubling, ends included) or "
        "8k:32k:8k or 1k:128k:x2; 32,000 is one number.")
    output_tokens: str = flag(*OUTPUT_TOKENS, "TOKENS", default="512", panel=_WORKLOAD,
        help="Tokens that a sequence puts out after that context, mean. What is priced is the mean step of "
        "the whole generation, what must fit is its end; 0 is a step at that very context.")
    batch_size: str = flag(*BATCH, "--concurrency", "--max-concurrency", "N,...", required=True,
        panel=_WORKLOAD,
        help="Sequences decoded together: 32,64,128 or 1-256 (doubling) or 16:256:16.")
    strategy: str | None = flag("--strategy", "NAME,...|all", complete=strategy_names, panel=_DRAFTING,
        help="Drafting strategies to search; those a deployment can start today where absent.")
    draft_model: str | None = flag("--draft-model", "--spec-model", "--speculative-model",
        "--speculative-draft-model-path", "NAME|PATH,...", complete=model_names, panel=_DRAFTING,
        help="Small models that may draft. With --strategy only these do; `self` is the target itself.")
    draft_tp: str | None = flag("--draft-tp", "--draft-tensor-parallel-size", "N", panel=_DRAFTING,
        help="GPUs that share a draft model; all of the target's where absent.")
    draft_budget: str | None = flag("--draft-budget", "TOKENS,...", panel=_DRAFTING,
        help="Draft KV budgets to search, `all` for the whole cache; each strategy's own where absent.")
    gamma: str | None = flag("--gamma", "--num-speculative-tokens", "--spec-tokens",
        "--speculative-num-steps", "--max-draft-len", "N,...", panel=_DRAFTING,
        help="Speculation lengths to search, 0-16 where absent: 1-8 is every length. Plain decoding (0) "
        "always is.")
    tree: str | None = flag("--tree", "STEPS,TOPK,NODES[;...]", panel=_DRAFTING,
        help="Trees to search in place of chains: 5,4,16 or 3,2,6;8,10,60, nodes with the root. `chain` "
        "among them searches chains too, `usual` a few trees that people serve. Heads and draft models "
        "draft trees; SGLang and TensorRT-LLM verify them.")
    topk: int | None = flag("--topk", "--speculative-eagle-topk", "K", panel=_DRAFTING, min=1, max=32,
        help="Candidates at every step of a tree, whose steps --gamma says; 1 is a chain.")
    nodes: int | None = flag("--nodes", "--speculative-num-draft-tokens", "N", panel=_DRAFTING, min=2,
        max=256, help="Tokens of a tree of --topk that are verified, the root included.")
    tpot: str | None = flag("--tpot", "--itl", "--tpot-sla-ms", "MS", panel=_WORKLOAD,
        help="Longest time per output token [ms] that is allowed.")


@dataclass(frozen=True, kw_only=True)
class TrafficFlags(OutputFlags, QuestionFlags):
    """What is served under which targets, within which limits of the scheduler."""

    executor: str | None = EXECUTOR
    allow_code: bool = ALLOW_CODE
    ttft: str | None = flag("--ttft", "MS", panel=_TRAFFIC,
        help="Longest time to first token that counts as good: milliseconds, or with a unit (2s).")
    max_batch: int | None = flag("--max-batch", "--max-num-seqs", "--max-running-requests", min=1,
        panel=_SERVING,
        help="Sequences in the running batch; 256 where absent.")
    max_step_tokens: int | None = flag("--max-step-tokens", "--max-num-batched-tokens", "--max-num-tokens",
        "--chunked-prefill-size", min=1, panel=_SERVING,
        help="Tokens of one step, prefill chunks included; 8192 where absent.")
    scheduler: str = flag("--scheduler", "mixed|prefill-first|in-flight|SOFTWARE", default="",
        panel=_SERVING,
        help="How steps are made up: chunks of prompts beside decoding (vLLM), prefill in steps of its own "
        "(SGLang), or whole prompts in flight (TensorRT-LLM); as the engine's software does where absent. "
        "vllm, sglang and tensorrt-llm also take their own limits where none are given.")
    seed: int = flag("--seed", default=0, min=0, panel=_TRAFFIC, help="Of everything that is drawn.")
