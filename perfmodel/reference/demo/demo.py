"""The loop closed on one machine: measure, calibrate, predict, plan, run, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
from perfmodel.reference.demo.trials import PLAIN, Config, Field, Runs, side_by_side
from perfmodel.reference.sequences import prefill
from perfmodel.reference.timing.bench import Bench, Job
from perfmodel.reference.timing.machines import DEMO_GRID, bench_decoder, grid_for
from perfmodel.reference.timing.measure import measure
from perfmodel.reference.timing.stopwatch import Stopwatch, machine_of, one_thread, stopwatch_for
from perfmodel.reference.timing.subjects import pass_job, round_job, subjects
from perfmodel.speculation import Drafter, price_round
from perfmodel.workload import Workload

__all__ = ["Demo", "run_demo"]

STRATEGY = "streaming_llm"
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

Say = Callable[[str], None]


@dataclass(frozen=True)
class Demo:
    """What was found: the machine, the engine that ran, and the comparisons."""

    machine: FittedMachine
    engine: Calibration
    comparisons: tuple[Comparison, ...]
    seconds: Mapping[str, float]


def run_demo(
    device: torch.device, *, alpha: float = 0.88, seconds: float = 75.0, say: Say | None = None
) -> Demo:
    """Run the whole loop.

    Parameters
    ----------
    device : CPU, on one thread, or a CUDA GPU.
    alpha : acceptance to dial on the random weights, and to plant in the texts of the induction weights.
    seconds : wall time that measuring and running may take together, about.
    say : called with a line about what is going on.
    """
    say = say or _nothing
    clock = _Clock()
    with one_thread():
        stopwatch = stopwatch_for(device)
        say("measuring kernels, passes and rounds on this machine")
        bench, dtype = _bench(device, stopwatch)
        with clock.part("measure"):
            bench.choose_kernels()
            points = measure(
                subjects(bench, dtype),
                stopwatch=stopwatch,
                machine=machine_of(device),
                seconds=SHARES["measure"] * seconds,
                enough=6,
            )
        say("fitting a hardware profile and the engine that ran")
        with clock.part("fit"):
            machine, engine = fit_machine_and_engine(points, "this-machine", "this-decoder")
        arena = _Arena(machine.profile, engine.engine, stopwatch, seconds, alpha, say)
        with clock.part("dial"):
            comparisons = [arena.dialled(bench)]
        if device.type == "cpu":
            bench.forget()
            with clock.part("induction"):
                comparisons.append(arena.planted())
    return Demo(machine, engine, tuple(comparisons), clock.seconds)


def _nothing(text: str) -> None:
    del text


class _Clock:
    """Wall seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def part(self, name: str) -> _Part:
        return _Part(self.seconds, name)


class _Part:
    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._name] = time.monotonic() - self._begun


def _bench(device: torch.device, stopwatch: Stopwatch) -> tuple[Bench, str]:
    decoder, dtype = bench_decoder(device)
    grid = DEMO_GRID if device.type == "cpu" else grid_for(device, decoder)
    return Bench(decoder, grid, stopwatch, machine_of(device).l2_bytes), dtype


@dataclass(frozen=True)
class _Arena:
    """Plans, runs and compares with one calibrated machine."""

    hardware: HardwareProfile
    engine: EngineOverhead
    stopwatch: Stopwatch
    seconds: float
    alpha: float
    say: Say

    def dialled(self, bench: Bench) -> Comparison:
        """Compare on the shape that was measured, with the acceptance dialled."""
        cells = bench.grid.cells
        shape = SHAPE if SHAPE in cells else next((one for one in GPU_SHAPES if one in cells), cells[0])
        batch, context_len = shape
        spec = bench.decoder.architecture.spec
        chosen = self._plan(spec, batch, context_len, BUDGETS, self.alpha)
        configs = _neighbours(chosen, BUDGETS)
        self.say(f"running {', '.join(config.label for config in configs)}")
        if bench.decoder.device.type == "cuda":
            runs = _jobs(bench, shape, configs, self.stopwatch)
        else:
            bench.forget()
            room = OUTPUT + 3 * max(GAMMAS) + 4
            cache = KVCache(bench.decoder.architecture, batch, context_len + room, dtype=bench.decoder.dtype)
            cache.attention = bench.attention
            cache.fill(context_len)
            tokens = torch.zeros(batch, cache.capacity, dtype=torch.long)
            field = Field(bench.decoder, cache, torch.arange(batch), tokens, OUTPUT, self.alpha)
            runs = side_by_side(
                field, configs, stopwatch=self.stopwatch, seconds=SHARES["dial"] * self.seconds
            )
        return self._compared("acceptance dialled", spec, shape, self.alpha, chosen, runs)

    def planted(self) -> Comparison:
        """Compare on induction weights, whose drafts are accepted where the answer stands in the window."""
        (batch, context_len), window, symbols, count = PLANTED
        architecture = induction_architecture(symbols, context=4 * context_len)
        decoder = Decoder(architecture, induction_weights(architecture))
        text = planted_text(
            symbols=symbols,
            context_len=context_len,
            window=window,
            coverage=self.alpha,
            batch=batch,
            output_len=count,
            ahead=2 * max(GAMMAS) + 4,
        )
        self.say("reading texts with planted answers")
        sequences, logits = prefill(decoder, text.prompts.tolist(), count + 3 * max(GAMMAS) + 4)
        field = Field(decoder, sequences.cache, logits.argmax(-1), sequences.tokens, count)
        spec = architecture.spec.with_dtypes(weights="fp32", kv="fp32")
        chosen = self._plan(spec, batch, context_len, (window,), text.coverage)
        configs = _neighbours(chosen, (window,))
        self.say(f"running {', '.join(config.label for config in configs)}")
        runs = side_by_side(
            field,
            configs,
            stopwatch=self.stopwatch,
            seconds=SHARES["induction"] * self.seconds,
            most_turns=3,
        )
        return self._compared("answers planted", spec, (batch, context_len), text.coverage, chosen, runs)

    def _plan(
        self, spec: ModelSpec, batch: int, context_len: int, budgets: Sequence[int], alpha: float
    ) -> Config:
        found = plan(
            self.hardware,
            spec,
            self.engine,
            Workload((batch,), (context_len,)),
            drafters=[Drafter(strategies.load(STRATEGY))],
            kv_budgets=budgets,
            gammas=GAMMAS,
            alpha=alpha,
        ).cells[0]
        if not found.gamma:
            return PLAIN
        return Config(STRATEGY, int(found.kv_budget or 0), int(found.gamma))

    def _compared(
        self,
        title: str,
        spec: ModelSpec,
        shape: tuple[int, int],
        alpha: float,
        chosen: Config,
        runs: Mapping[Config, Runs],
    ) -> Comparison:
        step_s = runs[PLAIN].round_s
        trials, predicted_step_s = [], float("nan")
        for config, seen in runs.items():
            if config == PLAIN:
                continue
            priced = price_round(
                self.hardware,
                spec,
                self.engine,
                Drafter(strategies.load(config.strategy)),
                batch=float(shape[0]),
                context_len=float(shape[1]),
                kv_budget=float(config.kv_budget),
                gamma=float(config.gamma),
                alpha=alpha,
            )
            predicted_step_s = float(np.asarray(priced.baseline.total))
            expected = float(np.asarray(priced.tokens_per_round))
            counted = seen.tokens_per_round if seen.tokens else expected
            trials.append(
                Trial(
                    config=config,
                    predicted_round_s=float(np.asarray(priced.round_s)),
                    round_s=seen.round_s,
                    expected_tokens=expected,
                    tokens=counted,
                    predicted_speedup=float(np.asarray(priced.speedup)),
                    speedup=step_s * counted / seen.round_s,
                )
            )
        differing = sum(seen.differing for seen in runs.values())
        return Comparison(title, *shape, alpha, step_s, predicted_step_s, tuple(trials), chosen, differing)


def _neighbours(chosen: Config, budgets: Sequence[int]) -> list[Config]:
    """The recommended configuration and those around it; where none is, a few short drafts."""
    kv_budget, gamma = (chosen.kv_budget, chosen.gamma) if chosen.gamma else (budgets[0], 2)
    place = list(budgets).index(kv_budget)
    others = [budgets[index] for index in (place - 1, place + 1) if 0 <= index < len(budgets)]
    lengths = [length for length in (gamma, gamma - 1, gamma + 1, gamma - 2) if 1 <= length <= max(GAMMAS)]
    around = [Config(STRATEGY, kv_budget, length) for length in lengths]
    return around + [Config(STRATEGY, other, gamma) for other in others]


def _jobs(
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
