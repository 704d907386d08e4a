"""Flags to a question that the planner can answer, with every fault of the flags at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import typer

from perfmodel.cli.ask.belief import read_belief, read_share
from perfmodel.cli.ask.counts import read_counts, read_number
from perfmodel.cli.ask.flags import DeploymentFlags, QuestionFlags
from perfmodel.cli.ask.machines import read_machines
from perfmodel.cli.ask.reading import Reading, read_flag
from perfmodel.cli.ask.served import remarks_on_served, unset_faults
from perfmodel.cli.ask.traffic import seconds
from perfmodel.cli.ask.trees import read_trees
from perfmodel.deployment import Deployment
from perfmodel.engine import DEFAULT_ENGINE, EngineOverhead
from perfmodel.errors import SpecError, nearest_name
from perfmodel.files.units import format_seconds
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.model.names import guess_model
from perfmodel.planning.drafters import (
    applicable,
    check_drafters,
    describe_measured_heads,
    drafters_among,
    grow,
    is_self,
    passed_over,
)
from perfmodel.planning.parallelism import (
    MOST_GPUS,
    attention_gpus,
    check_parallelism,
    check_tensor_parallel,
    in_one_stage,
)
from perfmodel.planning.planner import DEFAULT_GAMMAS, OBJECTIVES, Constraints, search_drafters
from perfmodel.planning.price import SearchSpace
from perfmodel.planning.served import check_served, serve
from perfmodel.speculation import Drafter
from perfmodel.workload import MAX_CONTEXT, Workload
from strategies.base import Tree

__all__ = [
    "MOST_CELLS", "Nouns", "Question", "read_drafters", "read_objective", "read_question", "read_shares",
]  # fmt: skip

PADDING = 1024
"""Entries by which vocabularies of one tokenizer differ: they are padded to multiples. [tokens]"""

T = TypeVar("T")
MOST_CELLS = 1_000_000
RISKS = {"expected": None, "worst": 0.05}
"""Names of the acceptance at which a configuration is chosen: its expectation, or a quantile of it."""


@dataclass(frozen=True)
class Nouns:
    """What the names in a question are looked up by: functions of a name, and of further folders of files.

    By default a name is whatever `load` takes: a path, and of a model an id of a hub, too.
    """

    model: Callable[[str], ModelSpec] = ModelSpec.load
    hardware: Callable[[str, str | None], HardwareProfile] = HardwareProfile.load
    engine: Callable[[str, str | None], EngineOverhead] = EngineOverhead.load


ANY_NOUNS = Nouns()


@dataclass(frozen=True)
class Question:
    """One deployment, its workload and what may draft."""

    hardware: list[HardwareProfile]
    target: ModelSpec
    engine: EngineOverhead
    tensor_parallel: list[int]
    workload: Workload
    drafters: list[Drafter]
    kv_budgets: list[float] | None
    gammas: list[int]
    alpha: float | None
    tpot: float | None
    remarks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    expert_parallel: bool = False
    pipeline_parallel: int = 1
    data_parallel: int = 1

    @property
    def deployments(self) -> list[Deployment]:
        """Every hardware with every number of GPUs."""
        return [
            Deployment(profile, self.target, self.engine, gpus, **self.layout)
            for profile in self.hardware
            for gpus in self.tensor_parallel
        ]

    @property
    def layout(self) -> dict[str, Any]:
        """How the GPUs share the work beside their number, by the names of `Deployment`."""
        return {
            "expert_parallel": self.expert_parallel,
            "pipeline_parallel": self.pipeline_parallel,
            "data_parallel": self.data_parallel,
        }

    @property
    def speculative_gammas(self) -> list[int]:
        """The speculation lengths above 0. [tokens]"""
        return [gamma for gamma in self.gammas if gamma > 0]

    @property
    def planned(self) -> dict[str, Any]:
        """What `perfmodel.plan` takes beside what is `deployed` and the workload."""
        return {
            "drafters": self.drafters,
            "kv_budgets": self.kv_budgets,
            "gammas": self.gammas,
            "tensor_parallel": self.tensor_parallel,
            **self.layout,
            "alpha": self.alpha,
            "constraints": self.constraints,
        }

    @property
    def constraints(self) -> Constraints:
        """What an answer keeps to."""
        return Constraints(tpot=self.tpot)

    @property
    def space(self) -> SearchSpace:
        """What `perfmodel.plan` chooses among."""
        lengths = sorted({0, *self.gammas})
        drafters = self.drafters if self.speculative_gammas else []
        return SearchSpace([None, *drafters], lengths, self.kv_budgets, self.alpha)

    @property
    def deployed(self) -> tuple[list[HardwareProfile], ModelSpec, EngineOverhead]:
        """What `perfmodel.plan` takes first: hardware, target and engine."""
        return self.hardware, self.target, self.engine

    def only_deployment(self, remedy: str = "Name one of each") -> Deployment:
        """Return the one deployment asked about. Raises SpecError where there are several."""
        if len(self.deployments) != 1:
            raise SpecError.single("", "--hardware, --tp", "name several deployments", remedy)
        return self.deployments[0]

    @property
    def cells(self) -> int:
        """How many (batch, context) cells it asks for."""
        return len(self.workload.batch_sizes) * len(self.workload.context_lens)


def read_question(
    ctx: typer.Context, flags: QuestionFlags, *, most_cells: int | None = MOST_CELLS,
    nouns: Nouns = ANY_NOUNS,
) -> Question:
    """Return the question that the flags ask.

    Parameters
    ----------
    most_cells : that it may have; any number where None. [1]
    nouns : what a name is looked up by.

    Raises
    ------
    SpecError
        Listing every wrong flag.
    """
    reading = Reading(ctx)
    reading.faults += unset_faults(ctx)
    flags = read_machines(reading, flags)
    hardware, engine, target = _deployment(reading, flags, nouns)
    tensor_parallel = reading.read("tp", partial(_read_tensor_parallel, target, flags), flags.tp)
    batches = reading.counts("batch_size", flags.batch_size, 1)
    contexts = reading.counts("context", flags.context, 1, contexts=True)
    output_tokens = reading.read(
        "output_tokens", partial(read_number, least=0, most=MAX_CONTEXT), flags.output_tokens
    )
    draft_gpus = reading.read(
        "draft_tp", partial(read_number, least=1, most=MOST_GPUS, of=" of GPUs"), flags.draft_tp
    )
    budgets = reading.budgets("draft_budget", flags.draft_budget)
    gammas = reading.counts("gamma", flags.gamma, 0, 64, by_one=True)
    trees, chains = read_trees(reading, flags.tree, flags.topk, flags.nodes, gammas)
    belief = read_belief(reading, flags, gammas, trees)
    tpot = reading.read("tpot", seconds, flags.tpot)
    small, named = read_drafters(reading, flags.model, flags.strategy, flags.draft_model, nouns)
    reading.finish()
    assert target is not None and engine is not None and hardware and tensor_parallel and batches and contexts
    if most_cells is not None and len(batches) * len(contexts) > most_cells:
        raise SpecError.single(
            "", "--batch-size, --context", f"ask for {len(batches) * len(contexts)} cells",
            f"At most {most_cells} in one plan: use wider steps, or `draftplan sweep`",
        )  # fmt: skip
    if named is None and not small and (why := in_one_stage(flags.pp)):
        named = [], [why]
    budgets, whole = _bounding(budgets, contexts)
    drafters, remarks = named if named is not None else search_drafters(target, small, engine, budgets)
    if "all" in _names((flags.strategy or "").lower() or "-"):
        drafters, left_out = applicable(drafters, target, belief.measured)
        drafters, unserved = serve(drafters, engine, budgets)
        remarks += left_out + unserved
    drafters, without = grow(drafters, trees, chains)
    if len(trees) > 1:  # of several, those that are too deep for a drafter are left out
        fit, too_deep = applicable(drafters, target, belief.measured)
        drafters, without = (fit, [*without, *too_deep]) if fit else (drafters, without)
    remarks = [*remarks_on_served(ctx, flags), *reading.remarks, *whole, *remarks, *without]
    check_drafters(drafters, target, (gammas or ()) if chains else (), belief.measured)
    drafters = [
        replace(
            drafter,
            measured=belief.measured,
            conditions=belief.conditions,
            draft_tensor_parallel=draft_gpus if drafter.draft_model else None,
        )
        for drafter in drafters
    ]
    remarks += describe_measured_heads(drafters, target)
    remarks += _about_draft_gpus(draft_gpus, drafters, tensor_parallel)
    drafters = check_served(drafters, engine, budgets, tensor_parallel)
    remarks += passed_over(belief.measured, [(drafter, target) for drafter in drafters])
    if flags.engine is None:
        remarks.append(f"no --engine is named: the overheads of a {engine.name} one are assumed")
    remarks += [sentence for profile in hardware for sentence in _describe_preset(engine, profile)]
    if flags.engine is None and named is None and drafters:
        remarks.append(
            "searched is what nothing has to be made for: --strategy all, or the --engine that serves, "
            "searches heads and lookups too"
        )
    remarks += [sentence for drafter in drafters for sentence in _describe_head(drafter, max(contexts))]
    strange = [sentence for drafter in drafters for sentence in _describe_vocabulary(drafter, target)]
    warnings = [*dict.fromkeys(strange)]
    remarks += _describe_name(flags.model, target)
    longest = max(contexts) + (output_tokens or 0)
    if longest > target.max_position:
        warnings.append(
            f"{target.name} was made for contexts up to {target.max_position} tokens, not for {longest}"
        )
    remarks += warnings
    question = Question(
        hardware=hardware,
        target=target,
        engine=engine,
        tensor_parallel=tensor_parallel,
        expert_parallel=flags.expert_parallel,
        pipeline_parallel=flags.pp,
        data_parallel=flags.dp,
        workload=Workload(batches, contexts, output_tokens=output_tokens or 0),
        drafters=drafters,
        kv_budgets=budgets,
        gammas=_lengths(gammas, trees, chains),
        alpha=belief.alpha,
        tpot=tpot,
        remarks=remarks,
        warnings=warnings,
    )
    check_parallelism(question.deployments, drafters if question.speculative_gammas else ())
    return question


def _bounding(budgets: list[float] | None, contexts: list[int]) -> tuple[list[float] | None, list[str]]:
    """Return the draft KV budgets that bound something, and a remark on those that are whole caches.

    Raises
    ------
    SpecError
        Where every budget is.
    """
    longest = max(contexts)
    whole = [f"{budget:.0f}" for budget in budgets or () if longest <= budget < float("inf")]
    kept = [budget for budget in budgets or () if not longest <= budget < float("inf")]
    if whole and not kept:
        raise SpecError.single(
            "", "--draft-budget", f"{', '.join(whole)} is the whole cache at contexts up to {longest}",
            "Give less, or `all` for the whole cache",
        )  # fmt: skip
    left_out = [f"--draft-budget {', '.join(whole)} is left out: the whole cache at contexts up to {longest}"]
    shorter = [f"{budget:.0f}" for budget in kept if min(contexts) <= budget < longest]
    partly = [f"at contexts up to its number a draft KV budget ({', '.join(shorter)}) is the whole cache"]
    return kept if whole else budgets, left_out * bool(whole) + partly * bool(shorter)


def _about_draft_gpus(gpus: int | None, drafters: list[Drafter], tensor_parallel: list[int]) -> list[str]:
    """Say where --draft-tp is without effect. Raises SpecError where it is more GPUs than there are."""
    if gpus is None:
        return []
    if gpus > max(tensor_parallel):
        raise SpecError.single(
            "", "--draft-tp", f"found {gpus}: the target runs on {max(tensor_parallel)}",
            f"Give 1 to {max(tensor_parallel)}, or leave it out",
        )  # fmt: skip
    if not any(drafter.draft_model for drafter in drafters):
        return ["--draft-tp is without effect: no --draft-model drafts, and heads run on the target's GPUs"]
    return []


def _lengths(gammas: list[int] | None, trees: Sequence[Tree], chains: bool) -> list[int]:
    """Return the speculation lengths to search: those of chains, and the steps of trees. [tokens]"""
    own = {0, *(tree.steps for tree in trees)}
    if not chains:
        return sorted(own)
    named = list(DEFAULT_GAMMAS) if gammas is None else gammas
    return sorted({*named, *own}) if trees else named


def _describe_preset(engine: EngineOverhead, profile: HardwareProfile) -> list[str]:
    """Say whose figures stand for an engine on an accelerator, and what that assumes."""
    spent = []
    for older in engine.older:
        figures = " and ".join(f"{path} {format_seconds(more)}" for path, more in older.more.items())
        spent.append(f"{engine.label}: {figures} longer than in releases of today: {older.reason}")
    return _describe_family(engine, profile) + spent


def _describe_family(engine: EngineOverhead, profile: HardwareProfile) -> list[str]:
    if engine.families and profile.family not in engine.families:
        fitted = " and ".join(engine.families)
        return [
            f"{engine.name} was fitted on {fitted} accelerators, which {profile.name} is not: its ranges do "
            "not cover that"
        ]
    if not engine.presets:
        return []
    preset = engine.on(profile)
    if preset.name == engine.name:
        return [
            f"no steps of {engine.name} were measured on accelerators like {profile.name}: figures of all "
            "others stand for it, with wider ranges"
        ]
    fitted = f"fitted on {profile.family} accelerators to {preset.fitted_to}"
    return [f"{engine.name} on {profile.name}: figures of {preset.name}, {fitted}"]


def _describe_name(typed: str, target: ModelSpec) -> list[str]:
    """Say under which name a model stands in the answer, where it is not the one that was typed."""
    asked, known = (re.sub(r"[^a-z0-9]+", "", name.lower()) for name in (typed, target.name))
    if known in asked or guess_model(typed) is None:
        return []
    return [f"{typed} has the shape of {target.name}, under whose name it stands here"]


def _describe_vocabulary(drafter: Drafter, target: ModelSpec) -> list[str]:
    """Say where a draft model has another vocabulary; one that is padded differently is the same."""
    model = drafter.draft_model
    if drafter.kind != "draft" or model is None or abs(model.vocab_size - target.vocab_size) <= PADDING:
        return []
    return [
        f"{model.name} has a vocabulary of {model.vocab_size:,} tokens, {target.name} of "
        f"{target.vocab_size:,}: drafts are verified by token, so engines refuse such pairs or translate"
    ]


def _describe_head(drafter: Drafter, longest: int) -> list[str]:
    """Say what a draft head from a file is planned as, and what was assumed of it."""
    model, head = drafter.draft_model, drafter.head
    if model is None or head is None:
        return []
    sentences = [f"{model.name} is {head.article} {head.kind} head: planned as {head.strategy}"]
    if longest > model.max_position:
        reach = f"contexts up to {model.max_position} tokens, not for {longest}"
        sentences.append(f"{model.name} was made for {reach}")
    return sentences + [f"{model.name}: {sentence}" for sentence in model.assumed]


def _deployment(
    reading: Reading, flags: DeploymentFlags, nouns: Nouns
) -> tuple[list[HardwareProfile] | None, EngineOverhead | None, ModelSpec | None]:
    def load_profiles(text: str) -> list[HardwareProfile]:
        return [nouns.hardware(name, flags.profiles_path) for name in _names(text)]

    def load_engine(text: str) -> EngineOverhead:
        return nouns.engine(text, flags.profiles_path)

    engine = reading.read("engine", load_engine, flags.engine or DEFAULT_ENGINE)
    if engine is not None and (
        share := reading.read("gpu_memory_utilization", _some, flags.gpu_memory_utilization)
    ):
        engine = engine.with_values({"memory_utilization": share}, source="--gpu-memory-utilization")
    target = reading.read("model", nouns.model, flags.model)
    if target is not None:
        weights = reading.read("weight_dtype", partial(_dtype, target, "weights"), flags.weight_dtype)
        kv = reading.read("kv_cache_dtype", partial(_dtype, target, "kv"), flags.kv_cache_dtype)
        target = target.with_dtypes(weights or None, kv or None)
    return reading.read("hardware", load_profiles, flags.hardware), engine, target


def read_drafters(
    reading: Reading, model: str, strategy: str | None, draft_model: str | None, nouns: Nouns = ANY_NOUNS
) -> tuple[list[ModelSpec], tuple[list[Drafter], list[str]] | None]:
    """Return the small models that may draft, and the drafters with remarks where strategies are named.

    Parameters
    ----------
    model, strategy, draft_model : what --model, --strategy and --draft-model say.
    nouns : what a name is looked up by.
    """

    def load_draft_models(text: str) -> tuple[list[ModelSpec], bool]:
        names = _names(text)
        small = [name for name in names if not is_self(name, model)]
        return [nouns.model(name) for name in small], len(small) < len(names)

    small, itself = reading.read("draft_model", load_draft_models, draft_model) or ([], True)
    return small, reading.read(
        "strategy",
        lambda text: drafters_among(_names(text), small, itself=draft_model is None or itself),
        strategy,
    )


def _read_tensor_parallel(target: ModelSpec | None, flags: DeploymentFlags, text: str) -> list[int]:
    """Return the numbers of GPUs that share every layer of a group."""
    counts = read_counts(text, least=1)
    if target is not None:
        if flags.dp_attention:
            counts = [attention_gpus(target, gpus, flags.dp) for gpus in counts]
        for gpus in counts:
            check_tensor_parallel(target, gpus)
    return counts


def _some(text: str) -> float:
    value = read_share(text)
    if value <= 0.0:
        raise SpecError.single("", "", f"found {text}", "Give a share above 0, such as 0.9")
    return value


def _dtype(target: ModelSpec, which: str, text: str) -> str:
    """Return a dtype that the model can be stored in; empty for ``auto``, the model's own."""
    if text.lower() == "auto":
        return ""
    changed = target.with_dtypes(**{which: text})
    return changed.weight_dtype if which == "weights" else changed.kv_dtype


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise SpecError.single("", "", "names nothing", "Give at least one name")
    return names


def read_shares(ctx: typer.Context, text: str) -> list[float]:
    """Return the shares that --pruned names. Raises SpecError."""
    return read_flag(ctx, "pruned", lambda given: [_inner_share(part) for part in _names(given)], text) or []


def read_objective(ctx: typer.Context, text: str | None) -> tuple[str | None, float | None]:
    """Return what --objective names: what decides, and a quantile of acceptance; None for the default."""
    known = [*OBJECTIVES, *RISKS]

    def parse(given: str) -> tuple[str | None, float | None]:
        objective, risk = None, None
        for name in _names(given.lower()):
            if name in OBJECTIVES:
                objective = name
            elif name in RISKS:
                risk = RISKS[name]
            elif name.startswith("quantile:"):
                risk = _inner_share(name.removeprefix("quantile:"))
            else:
                allowed = f"Choose one of {', '.join(known)}, quantile:0.2"
                raise SpecError.single("", "", f"found {name[:60]!r}", allowed, nearest_name(name, known))
        return objective, risk

    return read_flag(ctx, "objective", parse, text) or (None, None)


def _inner_share(text: str) -> float:
    value = _some(text)
    if value >= 1.0:
        raise SpecError.single("", "", f"found {text}", "Give shares above 0 and below 1, such as 25%,50%")
    return value
