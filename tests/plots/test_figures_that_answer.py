"""Figures that answer a question show a plan's own numbers, and their captions are true of them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

import perfmodel
import strategies
from perfmodel import plots
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.bottleneck import layers_in_words, price_bottleneck
from perfmodel.planning.captions import (
    bottleneck_in_words,
    engines_in_words,
    needed_in_words,
    pareto_in_words,
    sensitivity_in_words,
)
from perfmodel.planning.choose import Constraints
from perfmodel.planning.engine_maps import compare_engines
from perfmodel.planning.needed import price_needed
from perfmodel.planning.pareto import EVERYTHING, PLAIN, knee, price_fronts
from perfmodel.planning.planner import default_drafters
from perfmodel.planning.price import SearchSpace
from perfmodel.planning.sensitivity import influences
from perfmodel.plots.style import figure_bytes, short_tokens
from perfmodel.speculation import Drafter
from perfmodel.workload import Workload

H100, TARGET = HardwareProfile.load("h100-sxm-80gb"), ModelSpec.load("llama-3.1-8b")
GAMMAS = range(9)
WORKLOAD = Workload([1, 16, 64], [8000, 32_000], output_tokens=512)
ONE_CONTEXT = Workload([1, 2, 4, 8, 16, 32, 64], [32_000], output_tokens=512)


def engine(name):
    return EngineOverhead.load(name)


def plan_of(name, workload, drafters=None, **more):
    return perfmodel.plan(
        H100, TARGET, more.pop("served", engine(name)), workload, drafters=drafters, gammas=GAMMAS,
        tensor_parallel=8, draws=0, **more,
    )  # fmt: skip


def place_of(cell):
    return WORKLOAD.batch_sizes.index(cell.batch_size), WORKLOAD.context_lens.index(cell.context_len)


def maps_of(*names):
    drafters = [default_drafters(TARGET, engine=engine(name)) for name in names]
    plans = [plan_of(name, WORKLOAD, own) for name, own in zip(names, drafters, strict=True)]
    served = [Deployment(H100, TARGET, engine(name), 8) for name in names]
    space = SearchSpace([], sorted(GAMMAS))
    return compare_engines(plans, served, drafters, WORKLOAD, space, Constraints())


def fronts_of(name, gpus=(8,)):
    drafters = default_drafters(TARGET, engine=engine(name))
    served = [Deployment(H100, TARGET, engine(name), count) for count in gpus]
    return price_fronts(served, ONE_CONTEXT, SearchSpace([None, *drafters], range(1, 9)))


def needed_of(name):
    drafters = default_drafters(TARGET, engine=engine(name))
    space = SearchSpace(drafters, range(1, 9))
    return price_needed(Deployment(H100, TARGET, engine(name), 8), WORKLOAD, space, Constraints())


def bottlenecks(*names, batch=32):
    return [
        price_bottleneck(Deployment(H100, ModelSpec.load(name), engine("generic"), 8), batch, CONTEXTS, 512)
        for name in names
    ]


def doubts(name, batch, context):
    workload = Workload([batch], [context], output_tokens=512)
    drafters = default_drafters(TARGET, engine=engine(name))
    [cell] = plan_of(name, workload, drafters).cells
    space = SearchSpace([None, *drafters], sorted(GAMMAS))
    served = Deployment(H100, TARGET, engine(name), 8)
    return cell, influences(served, workload, space, Constraints(), cell)


CONTEXTS = [1000, 8000, 32_000, 128_000]
MAPS = maps_of("vllm", "magicdec-h100")
FRONTS = fronts_of("vllm", (4, 8))
NEEDED = needed_of("generic")
MODELS = bottlenecks("llama-3.1-8b", "gemma-3-27b", "qwen3-next-80b-a3b", "deepseek-v2-lite")
CELL, DOUBTS = doubts("vllm", 16, 8000)
FIGURES = {
    "engines": lambda: plots.plot_engine_maps(MAPS),
    "pareto": lambda: [plots.plot_throughput_against_tpot(FRONTS, "some GPUs", tpot=0.01)],
    "needed": lambda: plots.plot_acceptance_needed(NEEDED, "some GPUs"),
    "bottleneck": lambda: plots.plot_kv_bottleneck(MODELS, 32, "some GPUs"),
    "sensitivity": lambda: plots.plot_sensitivity(CELL, DOUBTS, "some GPUs"),
}


# How they look.


@pytest.mark.parametrize("kind", FIGURES)
def test_no_word_of_a_figure_is_outside_it_or_on_another(kind):
    drawn = FIGURES[kind]()
    figure = drawn[0].get_figure(root=True)
    figure.canvas.draw()
    assert figure.get_size_inches()[0] * figure.dpi == 800
    texts = [*figure.texts]
    for ax in drawn:
        texts += [ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
    for legend in [*figure.legends, *filter(None, (ax.get_legend() for ax in drawn))]:
        texts += legend.get_texts()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text().strip()]
    for words, box in boxes:
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, words
        assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, words
    for place, (words, box) in enumerate(boxes):
        for other_words, other in boxes[place + 1 :]:
            wide = min(box.x1, other.x1) - max(box.x0, other.x0)
            high = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert not (wide > 2 and high > 3), (words, other_words)


@pytest.mark.parametrize("kind", FIGURES)
def test_a_caption_is_one_or_two_sentences_that_the_figure_shows(kind):
    drawn = FIGURES[kind]()
    figure = drawn[0].get_figure(root=True)
    caption = plots.caption_of(drawn)
    assert caption.endswith(".") and 1 <= len(re.findall(r"\.(?: [A-Z]|$)", caption)) <= 3
    texts = [text for ax in drawn for text in ax.texts] + figure.texts
    shown = " ".join(" ".join(text.get_text().split()) for text in texts)
    assert caption in shown


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_a_figure_with_several_panels_has_the_same_bytes_at_each_run(ending):
    assert figure_bytes(FIGURES["needed"](), ending) == figure_bytes(FIGURES["needed"](), ending)


# Engines side by side.


def test_a_map_is_the_plan_of_its_engine_and_its_loss_what_any_of_them_would_gain_on_its_step_times():
    names = ("vllm", "magicdec-h100")
    ways = [way for name in names for way in default_drafters(TARGET, engine=engine(name))]
    for name, each in zip(names, MAPS, strict=True):
        plan = plan_of(name, WORKLOAD)
        free = replace(engine(name).on(H100), software="", presets=())
        anyone = plan_of(name, WORKLOAD, ways, served=free)
        assert [cell.tpot_s for cell in each.plan.cells] == [cell.tpot_s for cell in plan.cells]
        for cell in plan.cells:
            place = place_of(cell)
            could = anyone.cell(cell.batch_size, cell.context_len).tpot_s
            lost = 1.0 - could / cell.tpot_s
            assert each.loss[place] == pytest.approx(lost if lost > Constraints().near_tie else 0.0, abs=5e-3)


@pytest.mark.parametrize("names", [("vllm", "magicdec-h100"), ("sglang", "generic"), ("vllm",)])
def test_the_caption_of_engines_names_who_loses_most_where_and_how_much(names):
    maps = maps_of(*names)
    said = engines_in_words(maps)
    most = max(maps, key=lambda each: np.nanmax(each.loss))
    if most.worst is None:
        assert said.startswith("Nothing is lost")
        return
    cell, could = most.worst
    assert said.startswith(f"{most.name} loses most, up to {np.nanmax(most.loss):.0%}")
    assert f"batch {cell.batch_size}, context {short_tokens(cell.context_len)}" in said
    assert f"{could.speedup:.2f}x" in said and could.tpot_s < cell.tpot_s
    for each in maps:
        if each.worst is None:
            assert re.search(rf"{re.escape(each.name)}.* nothing", said)


def test_a_strategy_has_one_colour_in_all_maps():
    maps = maps_of("magicdec-h100", "generic")
    faces = {}
    for ax, each in zip(plots.plot_engine_maps(maps), maps, strict=True):
        filled = [patch for patch in ax.patches if patch.get_fill()]
        cells = {(cell.batch_size, cell.context_len): cell for cell in each.plan.cells}
        places = [(batch, context) for batch in WORKLOAD.batch_sizes for context in WORKLOAD.context_lens]
        for patch, place in zip(filled, places, strict=True):
            if place in cells and cells[place].speculates:
                faces.setdefault(cells[place].strategy, set()).add(patch.get_hatch())
    assert faces
    assert all(len(hatches) == 1 for hatches in faces.values())


# Throughput against latency.


@pytest.mark.parametrize("name", ["vllm", "generic"])
def test_the_points_of_a_front_are_the_cells_of_a_plan(name):
    best, plan = fronts_of(name)[-1], plan_of(name, ONE_CONTEXT)
    assert best.label == EVERYTHING
    for tpot, rate, batch, gamma in zip(best.tpot, best.throughput, best.batch, best.gamma, strict=True):
        cell = plan.cell(int(batch), 32_000)
        assert (tpot, rate, gamma) == pytest.approx(
            (cell.tpot_s, cell.throughput_tokens_per_s / cell.gpus, cell.gamma)
        )
    assert best.tpot.size + best.beaten.shape[1] == len(plan.cells)


def test_the_knee_is_the_point_furthest_above_the_line_between_the_ends():
    best = FRONTS[-1]
    bend = knee(best)
    slope = (best.throughput[-1] - best.throughput[0]) / (best.tpot[-1] - best.tpot[0])
    above = best.throughput - best.throughput[0] - slope * (best.tpot - best.tpot[0])
    assert bend is not None and bend.place == int(np.argmax(above))
    assert above[bend.place] > 0.0


def test_a_front_that_bends_the_other_way_has_no_knee():
    place = slice(None, 3)
    line = replace(
        FRONTS[-1], tpot=np.array([1.0, 2.0, 3.0]), throughput=np.array([1.0, 1.5, 3.0]),
        batch=FRONTS[-1].batch[place], gamma=FRONTS[-1].gamma[place],
    )  # fmt: skip
    assert knee(line) is None


@pytest.mark.parametrize("name", ["vllm", "generic", "sglang"])
@pytest.mark.parametrize("limit", [None, 1e-6, 0.004, 0.01, 1.0])
def test_the_caption_of_a_front_is_true_of_it(name, limit):
    fronts = fronts_of(name)
    best, plain = fronts[-1], next(front for front in fronts if front.label == PLAIN)
    said = pareto_in_words(fronts, limit)
    if limit is not None and not np.any(best.tpot <= limit):
        assert "Nothing keeps" in said
        return
    bend = knee(best)
    place = best.most_within(limit) if limit else bend.place if bend else best.tpot.size - 1
    assert f"{best.throughput[place]:,.0f} tokens/s per GPU" in said
    if best.drafters[place] == PLAIN:
        assert "plain decoding is best" in said
        return
    allowed = plain.throughput[plain.tpot <= (limit or best.tpot[place])]
    if allowed.size:
        assert f"{best.throughput[place] / allowed.max():.2f} times" in said
    else:
        assert "at no batch size" in said


# Acceptance needed and known.


def test_what_is_needed_and_known_is_what_a_plan_of_that_drafter_says():
    compared = 0
    for each in NEEDED:
        plan = plan_of("generic", WORKLOAD, [Drafter(strategies.load(each.label))])
        for cell in plan.cells:
            row, column = place_of(cell)
            if cell.speculates:
                compared += 1
                assert each.gamma[row, column] == cell.gamma
                assert each.needed[row, column] == pytest.approx(cell.break_even_alpha)
                assert each.known[row, column] == pytest.approx(cell.alpha)
                assert each.speedup[row, column] == pytest.approx(cell.speedup)
    assert compared


@pytest.mark.parametrize("name", ["generic", "vllm"])
def test_it_pays_where_more_is_known_than_needed_and_the_caption_counts_that(name):
    every = needed_of(name)
    said = needed_in_words(every)
    for each in every:
        allowed = np.isfinite(each.needed)
        assert np.array_equal(each.pays[allowed], each.speedup[allowed] > 1.0)
        low, known, high = each.low[allowed], each.known[allowed], each.high[allowed]
        assert np.all(low <= known) and np.all(known <= high)
        pays, surely = each.pays.sum(), each.surely_pays.sum()
        assert re.search(rf"\b{pays}(?: of \d+)? with {re.escape(each.label)} \({surely}", said)
    gaps = [np.nanmin(np.abs(each.known - each.needed)) for each in every]
    assert f"Closest: {every[int(np.argmin(gaps))].label} at" in said


def test_a_question_in_which_no_drafter_is_allowed_is_refused():
    served = Deployment(H100, TARGET, engine("generic"), 8)
    space = SearchSpace(default_drafters(TARGET), GAMMAS[1:])
    with pytest.raises(InfeasibleError):
        price_needed(served, Workload([10_000], [100_000]), space, Constraints())


# Where the KV bottleneck is.


def test_the_share_of_the_cache_is_that_of_a_plan():
    for name in ("llama-3.1-8b", "qwen3-next-80b-a3b"):
        model = ModelSpec.load(name)
        [bottleneck] = bottlenecks(name, batch=4)
        plan = perfmodel.plan(
            H100, model, engine("generic"), Workload([4], CONTEXTS, output_tokens=512), gammas=[0],
            tensor_parallel=8, draws=0,
        )  # fmt: skip
        assert bottleneck.cache_share == pytest.approx([cell.cache_share for cell in plan.cells])
        assert bottleneck.state_share == pytest.approx([cell.state_share for cell in plan.cells])


def test_the_cache_passes_the_weights_where_it_is_said_to():
    for model in MODELS:
        before, beyond = (model.read_ratio[sign] for sign in (
            model.context_lens < 0.98 * model.passes_at, model.context_lens > 1.02 * model.passes_at
        ))
        assert np.all(before < 1.0) and np.all(beyond >= 1.0)


def test_the_ratio_of_full_attention_is_cache_bytes_over_weight_bytes():
    [bottleneck] = bottlenecks("llama-3.1-8b")
    middle = np.array(CONTEXTS) + 256.0
    cache = 32 * np.asarray(TARGET.kv_bytes(middle))
    assert bottleneck.read_ratio == pytest.approx(cache / float(TARGET.weight_bytes_read(32.0)), rel=0.02)


@pytest.mark.parametrize("batch", [1, 32, 256])
def test_the_caption_of_the_bottleneck_names_the_extremes(batch):
    models = bottlenecks("llama-3.1-8b", "gemma-3-27b", "qwen3-next-80b-a3b", batch=batch)
    said = bottleneck_in_words(models, batch)
    most = max(models, key=lambda model: model.cache_share[-1])
    assert f"{most.cache_share[-1]:.0%} of a step of {most.name}" in said
    never = [model.name for model in models if not np.isfinite(model.passes_at)]
    assert all(name in said.split("not up to")[-1] for name in never) or "none of them" in said
    assert ("not up to" in said or "none of them" in said) == bool(never)


def test_layers_are_said_by_kind():
    assert layers_in_words(TARGET) == "full attention 32"
    assert layers_in_words(ModelSpec.load("gemma-3-27b")) == "sliding window 52, full attention 10"
    assert layers_in_words(ModelSpec.load("deepseek-v3")) == "latent 61; experts"


# What could change a decision.


@pytest.mark.parametrize("asked", [("vllm", 16, 8000), ("generic", 64, 32_000), ("generic", 1, 8000)])
def test_bars_are_the_influences_and_the_caption_says_the_first(asked):
    cell, every = doubts(*asked)
    [ax] = plots.plot_sensitivity(cell, every, "some GPUs")
    said = sensitivity_in_words(cell, every)
    ends = sorted({round(bar.get_x() + bar.get_width(), 9) for bar in ax.patches})
    shown = every[:10]
    wanted = {round(value, 9) for each in shown for value in (each.speedup_low, each.speedup_high)}
    assert ends == pytest.approx(sorted(wanted))
    assert every[0].name.split(" (")[0] in said
    if any(each.decides for each in every):
        assert every[0].command in said
        assert (every[0].instead_low or every[0].instead_high) in said
    else:
        assert "No figure alone changes the decision" in said
