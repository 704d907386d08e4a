"""The loop closed on one machine: measure, calibrate, predict, plan, run, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

import strategies
from perfmodel.engine import EngineOverhead
from perfmodel.evidence.calibration.calibrate import Calibration
from perfmodel.evidence.machine.fit import FittedMachine
from perfmodel.evidence.machine.steps import fit_machine_and_engine
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.planner import plan
from perfmodel.reference.cache import KVCache
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.demo.comparison import Comparison, Trial
from perfmodel.reference.demo.induction import induction_architecture, induction_weights, planted_text
from perfmodel.reference.demo.trials import PLAIN, Config, Runs, Setup, run_side_by_side
from perfmodel.reference.sequences import prefill
from perfmodel.reference.timing.bench import Bench, Job
from perfmodel.reference.timing.machines import DEMO_GRID, bench_decoder, grid_for
from perfmodel.reference.timing.measure import measure
from perfmodel.reference.timing.stopwatch import Stopwatch, machine_of, one_thread, stopwatch_for
from perfmodel.reference.timing.subjects import STRATEGY, pass_job, round_job, subjects
from perfmodel.speculation import Drafter, price_round
from perfmodel.workload import Workload

__all__ = ["Demo", "run_demo"]

BUDGETS = (256, 512, 1024)
GAMMAS = tuple(range(1, 9))
OUTPUT = 32
"""Tokens decoded per run. [tokens]"""
SHAPE = (4, 16384)
"""Batch and context whose steps are nearly all reading of the cache."""
PLANTED = ((8, 4096), 1024, 150, 96)
"""Batch and context of the planted texts, the window, symbols, tokens to decode."""
GPU_SHAPES = ((16, 32768), (64, 8192), (4, 32768), (1, 32768))
SHARES = {"measure": 0.36, "dial": 0.34, "induction": 0.12}
"""What each part may take of the time; starting torch, the first runs and the fits take the rest."""

Say = Callable[[str], object]


@dataclass(frozen=True)
class Demo:
    """What came out: the machine, the engine that ran, the comparisons, and wall seconds by part."""

    machine: FittedMachine
    engine: Calibration
    comparisons: tuple[Comparison, ...]
    seconds: Mapping[str, float]


def run_demo(device: torch.device, *, say: Say, alpha: float = 0.88, seconds: float = 75.0) -> Demo:
    """Run the whole loop.

    Parameters
    ----------
    device : CPU, on one thread, or a CUDA GPU.
    say : called with a line about what is going on.
    alpha : acceptance to dial on the random weights, and to plant in the texts of the induction weights.
        [0..1]
    seconds : wall time that measuring and running may take together, about. [s]
    """
    spent: dict[str, float] = {}
    stopwatch, here = stopwatch_for(device), machine_of(device)
    with one_thread():
        say("measuring kernels, passes and rounds on this machine")
        decoder, dtype = bench_decoder(device)
        grid = DEMO_GRID if device.type == "cpu" else grid_for(device, decoder)
        bench = Bench(decoder, grid, stopwatch, here.l2_bytes)
        with _clock(spent, "measure"):
            bench.choose_kernels()
            points = measure(
                subjects(bench, dtype), stopwatch=stopwatch, machine=here,
                seconds=SHARES["measure"] * seconds, enough=6,
            )  # fmt: skip
        say("fitting a hardware profile and the engine that ran")
        with _clock(spent, "fit"):
            machine, engine = fit_machine_and_engine(points, "this-machine", "this-decoder")
        comparer = _Comparer(machine.profile, engine.engine, stopwatch, seconds, alpha, say)
        with _clock(spent, "dial"):
            comparisons = [comparer.compare_dialled(bench)]
        if device.type == "cpu":
            bench.forget()
            with _clock(spent, "induction"):
                comparisons.append(comparer.compare_planted())
    return Demo(machine, engine, tuple(comparisons), spent)


@contextmanager
def _clock(spent: dict[str, float], part: str) -> Iterator[None]:
    """Note the wall seconds of a part."""
    begun = time.monotonic()
    yield
    spent[part] = time.monotonic() - begun


@dataclass(frozen=True)
class _Comparer:
    """Plans, runs and compares with one calibrated machine."""

    hardware: HardwareProfile
    engine: EngineOverhead
    stopwatch: Stopwatch
    seconds: float
    alpha: float
    say: Say

    def compare_dialled(self, bench: Bench) -> Comparison:
        """Compare on the shape that was measured, with the acceptance dialled."""
        cells, decoder = bench.grid.cells, bench.decoder
        shape = next((shape for shape in (SHAPE, *GPU_SHAPES) if shape in cells), cells[0])
        batch, context_len = shape
        spec = decoder.architecture.spec
        chosen, configs = self._plan(spec, shape, BUDGETS, self.alpha)
        if decoder.device.type == "cuda":
            runs = _time_jobs(bench, shape, configs, self.stopwatch)
        else:
            bench.forget()
            capacity = context_len + OUTPUT + 3 * max(GAMMAS) + 4
            cache = KVCache(
                decoder.architecture, batch, capacity, dtype=decoder.dtype, attention=bench.attention
            )
            cache.fill_randomly(context_len)
            tokens = torch.zeros(batch, capacity, dtype=torch.long)
            setup = Setup(decoder, cache, torch.arange(batch), tokens, OUTPUT, self.alpha)
            seconds = SHARES["dial"] * self.seconds
            runs = run_side_by_side(setup, configs, stopwatch=self.stopwatch, seconds=seconds)
        return self._compare("acceptance dialled", spec, shape, self.alpha, chosen, runs)

    def compare_planted(self) -> Comparison:
        """Compare on induction weights, whose drafts are accepted where the answer stands in the window."""
        shape, window, symbols, count = PLANTED
        batch, context_len = shape
        architecture = induction_architecture(symbols, context=4 * context_len)
        decoder = Decoder(architecture, induction_weights(architecture))
        text = planted_text(
            symbols=symbols, context_len=context_len, window=window, coverage=self.alpha, batch=batch,
            output_len=count, ahead=2 * max(GAMMAS) + 4,
        )  # fmt: skip
        self.say("reading texts with planted answers")
        sequences, logits = prefill(decoder, text.prompts.tolist(), count + 3 * max(GAMMAS) + 4)
        setup = Setup(decoder, sequences.cache, logits.argmax(-1), sequences.tokens, count)
        spec = architecture.spec.with_dtypes(weights="fp32", kv="fp32")
        chosen, configs = self._plan(spec, shape, (window,), text.coverage)
        seconds = SHARES["induction"] * self.seconds
        runs = run_side_by_side(setup, configs, stopwatch=self.stopwatch, seconds=seconds, most_turns=3)
        return self._compare("answers planted", spec, shape, text.coverage, chosen, runs)

    def _plan(
        self, spec: ModelSpec, shape: tuple[int, int], budgets: Sequence[int], alpha: float
    ) -> tuple[Config, list[Config]]:
        """Return the recommended configuration, and it with its neighbours, which are to be run."""
        (cell,) = plan(
            self.hardware, spec, self.engine, Workload(shape[:1], shape[1:]),
            drafters=[Drafter(strategies.load(STRATEGY))], kv_budgets=budgets, gammas=GAMMAS, alpha=alpha,
        ).cells  # fmt: skip
        chosen = Config(STRATEGY, cell.kv_budget or 0, cell.gamma) if cell.speculates else PLAIN
        configs = _list_neighbours(chosen, budgets)
        self.say(f"running {', '.join(config.label for config in configs)}")
        return chosen, configs

    def _compare(
        self,
        title: str,
        spec: ModelSpec,
        shape: tuple[int, int],
        alpha: float,
        chosen: Config,
        runs: Mapping[Config, Runs],
    ) -> Comparison:
        """Price what was run, and put it beside what was measured."""
        configs, step_s = [config for config in runs if config != PLAIN], runs[PLAIN].round_s
        priced = price_round(
            self.hardware, spec, self.engine, Drafter(strategies.load(STRATEGY)),
            batch=float(shape[0]), context_len=float(shape[1]), alpha=alpha,
            kv_budget=np.array([float(config.kv_budget) for config in configs]),
            gamma=np.array([float(config.gamma) for config in configs]),
        )  # fmt: skip
        terms = np.broadcast_arrays(priced.round_s, priced.tokens_per_round, priced.speedup)
        trials = []
        for config, row in zip(configs, np.stack(terms, axis=-1), strict=True):
            predicted_round_s, expected, predicted_speedup = row.tolist()
            round_s, tokens = runs[config].round_s, runs[config].tokens_per_round or expected
            speedup = step_s * tokens / round_s
            trials.append(
                Trial(config, predicted_round_s, round_s, expected, tokens, predicted_speedup, speedup)
            )
        predicted_step_s = float(np.ravel(priced.baseline.total)[0])
        differing = sum(measured.differing for measured in runs.values())
        return Comparison(title, *shape, alpha, step_s, predicted_step_s, tuple(trials), chosen, differing)


def _list_neighbours(chosen: Config, budgets: Sequence[int]) -> list[Config]:
    """Return the recommended configuration and those around it; where none is, a few short drafts."""
    kv_budget, gamma = (chosen.kv_budget, chosen.gamma) if chosen.gamma else (budgets[0], 2)
    place = list(budgets).index(kv_budget)
    others = [budgets[index] for index in (place - 1, place + 1) if 0 <= index < len(budgets)]
    gammas = [near for near in (gamma, gamma - 1, gamma + 1, gamma - 2) if 1 <= near <= max(GAMMAS)]
    around = [Config(STRATEGY, kv_budget, near) for near in gammas]
    return around + [Config(STRATEGY, other, gamma) for other in others]


def _time_jobs(
    bench: Bench, shape: tuple[int, int], configs: Sequence[Config], stopwatch: Stopwatch
) -> dict[Config, Runs]:
    """Time passes and rounds from a fixed start, as CUDA graphs; tokens are taken as expected."""
    jobs = {PLAIN: pass_job(bench, *shape, 1)}
    jobs |= {config: round_job(bench, *shape, config.kv_budget, config.gamma) for config in configs}
    ready = {config: Job(stopwatch.ready(job.work), job.host, job.after) for config, job in jobs.items()}
    runs = {config: Runs() for config in jobs}
    for _ in range(12):
        for config, job in ready.items():
            runs[config].seconds.append(stopwatch.seconds(job.work, 1, job.host))
            if job.after is not None:
                job.after()
    return runs
