"""Figures show what was priced, say it with units, stay apart without colour and are the same at each run."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from matplotlib.colors import to_rgb

import perfmodel
import strategies
from perfmodel import plots
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.evidence.published import measurements
from perfmodel.evidence.published.curves import price_measured
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.breakdown import break_down, cause_bars
from perfmodel.planning.choose import Constraints
from perfmodel.planning.operations import operations
from perfmodel.planning.pareto import EVERYTHING, PLAIN, pareto, price_fronts
from perfmodel.planning.price import SearchSpace, price_drafters
from perfmodel.planning.speedup_map import price_surface, surface_of
from perfmodel.plots.style import CAUSE_LOOKS, family, figure_bytes, looks, short_tokens
from perfmodel.speculation import Drafter, price_round
from perfmodel.workload import Workload

HARDWARE = HardwareProfile.load("h100-sxm-80gb")
TARGET = ModelSpec.load("llama-3.1-8b")
ENGINE = EngineOverhead.load("generic")
WINDOW = Drafter(strategies.load("streaming_llm"))
BATCHES, CONTEXTS = (1, 16, 256), (1000, 8000, 128_000)
DEPLOYMENT = Deployment(HARDWARE, TARGET, ENGINE, 8)
WORKLOAD, SPACE = Workload(BATCHES, CONTEXTS), SearchSpace([None, WINDOW], [1, 3, 5], [512, 2048])
SURFACE = price_surface(DEPLOYMENT, WORKLOAD, WINDOW, SPACE, draws=50)
PLAN = perfmodel.plan(
    HARDWARE, TARGET, ENGINE, WORKLOAD, drafters=[WINDOW], gammas=range(6), tensor_parallel=8, draws=50
)
BREAKDOWN = break_down(
    HARDWARE, TARGET, ENGINE, batch_size=64, context_len=32_000, drafters=[WINDOW], tensor_parallel=8
)
ROUND = {
    "batch": np.array([1.0, 64.0]),
    "context_len": 32_000.0,
    "kv_budget": 512.0,
    "gamma": 4.0,
    "tensor_parallel": 8.0,
}
PRICED = price_drafters(DEPLOYMENT, Workload([1, 64], [32_000]), SearchSpace([WINDOW], [4], [512]))[0]
OPERATIONS = operations(PRICED.at((slice(None), 0, 0, 0)))
FRONTS = price_fronts([DEPLOYMENT], Workload(BATCHES, [32_000]), SPACE)
TINY_LLAMA = [
    row
    for row in measurements.load(["magicdec-plot"])
    if row.group.drafter is not None and np.isfinite(row.speedup)
]


@dataclasses.dataclass(frozen=True)
class Point:
    series: str
    published: float
    computed: float


POINTS = [Point("a", 1.0, 1.1), Point("a", 2.0, 1.9), Point("b", 1.5, 1.5)]
FIGURES = {
    "speedup against batch": lambda ax=None: plots.plot_speedup_against_batch(SURFACE, ax=ax),
    "speedup against context": lambda ax=None: plots.plot_speedup_against_context(SURFACE, ax=ax),
    "ratios": lambda ax=None: plots.plot_ratios_against_batch(SURFACE, ax=ax),
    "map": lambda ax=None: plots.plot_strategy_map(PLAN, ax=ax),
    "causes": lambda ax=None: plots.plot_time_by_cause(BREAKDOWN, ax=ax),
    "acceptance": lambda ax=None: plots.plot_acceptance_against_budget(
        TARGET, [WINDOW], 32_000, [128, 512, 2048], ax=ax
    ),
    "roofline": lambda ax=None: plots.plot_roofline(HARDWARE, OPERATIONS, ax=ax),
    "predicted against published": lambda ax=None: plots.plot_predicted_against_published(POINTS, ax=ax),
    "published speedup": lambda ax=None: plots.plot_published_speedup(TINY_LLAMA, ax=ax),
    "pareto": lambda ax=None: plots.plot_throughput_against_tpot(FRONTS, ax=ax),
}


def line(ax, label):
    """The data of the one line with this label."""
    [found] = [one for one in ax.get_lines() if one.get_label() == label]
    return np.asarray(found.get_xdata(), dtype=float), np.asarray(found.get_ydata(), dtype=float)


def shown(ax):
    """All texts of a figure that are drawn: not the labels of ticks outside the axes' limits."""
    texts = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
    texts += [*ax.get_legend().get_texts(), ax.get_legend().get_title()]
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


# What holds for every figure.


@pytest.mark.parametrize("kind", FIGURES)
def test_every_axis_of_every_figure_says_its_unit_or_names_its_rows(kind):
    ax = FIGURES[kind]()
    labels = [ax.get_xlabel()] + ([] if kind == "causes" else [ax.get_ylabel()])
    assert all("[" in label and label.endswith("]") for label in labels)
    assert ax.get_title(loc="left")


@pytest.mark.parametrize("kind", FIGURES)
def test_every_figure_is_800_pixels_wide_and_no_text_is_outside_it_or_on_another(kind):
    ax = FIGURES[kind]()
    figure = ax.get_figure()
    figure.canvas.draw()
    assert figure.get_size_inches()[0] * figure.dpi == 800
    box = figure.bbox
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in shown(ax)
        if text.get_rotation() in (0.0, 90.0)
    ]
    for said, extent in boxes:
        assert extent.x0 >= box.x0 - 1 and extent.x1 <= box.x1 + 1, said
        assert extent.y0 >= box.y0 - 1 and extent.y1 <= box.y1 + 1, said
    for place, (said, one) in enumerate(boxes):
        for other_said, other in boxes[place + 1 :]:
            wide = min(one.x1, other.x1) - max(one.x0, other.x0)
            high = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert not (wide > 2 and high > 3), (said, other_said)


@pytest.mark.parametrize("kind", FIGURES)
def test_every_figure_draws_into_axes_that_are_given(kind):
    [ax] = plots.panels(1)
    assert FIGURES[kind](ax) is ax


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_figure_has_the_same_bytes_at_each_run(ending):
    first, second = (figure_bytes(FIGURES["map"](), ending) for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first


def test_an_svg_is_well_formed_and_fetches_nothing():
    root = ElementTree.fromstring(figure_bytes(FIGURES["causes"](), "svg"))
    links = [
        value for element in root.iter() for name, value in element.attrib.items() if name.endswith("href")
    ]
    assert all(link.startswith("#") for link in links)


def test_drawing_leaves_no_global_state_behind():
    before = dict(matplotlib.rcParams)
    figure_bytes(FIGURES["roofline"](), "png")
    assert dict(matplotlib.rcParams) == before
    code = "import sys, perfmodel.plots; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_file_ending_that_is_no_picture_is_refused(tmp_path):
    with pytest.raises(SpecError, match="ending"):
        plots.save(FIGURES["pareto"](), tmp_path / "figure.jpg")


def test_series_stay_apart_in_grey():
    def grey(colour):
        return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))

    shades = [grey(look.colour) for look in family(8)]
    assert shades == sorted(shades, reverse=True)
    assert min(-np.diff(shades)) > 0.03
    assert len({look.marker for look in looks(8)}) == len({str(look.line) for look in looks(8)}) == 8
    assert len({look.hatch for look in CAUSE_LOOKS.values()}) == len(CAUSE_LOOKS)


@given(some.integers(1, 10**7))
def test_short_tokens_are_read_back_as_the_same_number(value):
    from perfmodel.files.units import parse_count

    text = short_tokens(value)
    if "." not in text:
        assert parse_count(text.replace(",", "")) == value
    else:
        assert float(text[:-1]) * 1000 == pytest.approx(value)


# What each figure draws is what was priced.


def test_a_surface_is_the_best_of_the_grid_priced_cell_by_cell():
    for row, batch in enumerate(BATCHES):
        for column, context in enumerate(CONTEXTS):
            priced = price_round(
                HARDWARE, TARGET, ENGINE, WINDOW, batch=float(batch), context_len=float(context),
                kv_budget=np.array([[512.0], [2048.0]]), gamma=np.array([1.0, 3.0, 5.0]), tensor_parallel=8.0,
            )  # fmt: skip
            fits = np.broadcast_to(priced.memory.fits, priced.tpot.shape)
            if not fits.any():
                assert np.isnan(SURFACE.speedup[row, column])
                continue
            best = np.min(np.where(fits, priced.tpot, np.inf))
            near = Constraints().near_tie
            assert best <= SURFACE.tpot[row, column] <= best * (1.0 + near) * (1.0 + 1e-12)
            plain = float(np.ravel(priced.baseline.total)[0])
            assert SURFACE.speedup[row, column] == pytest.approx(plain / SURFACE.tpot[row, column], rel=1e-12)


def test_a_surface_on_which_nothing_fits_is_refused_like_a_plan():
    with pytest.raises(InfeasibleError, match="does not fit in memory"):
        price_surface(DEPLOYMENT, Workload([10_000], [100_000]), WINDOW, SPACE)


def test_the_surface_of_a_plan_holds_its_cells():
    surface = surface_of(PLAN)
    for cell in PLAN.cells:
        place = BATCHES.index(cell.batch_size), CONTEXTS.index(cell.context_len)
        assert surface.speedup[place] == cell.speedup
        assert surface.gamma[place] == cell.gamma
        assert surface.speedup_low[place] == cell.speedup_low
    assert np.isnan(surface.speedup).sum() == len(BATCHES) * len(CONTEXTS) - len(PLAN.cells)


def test_speedup_against_batch_is_the_surface_by_context():
    ax = plots.plot_speedup_against_batch(SURFACE, [8000])
    batches, speedups = line(ax, "8k")
    assert batches.tolist() == list(BATCHES)
    assert np.array_equal(speedups, SURFACE.speedup[:, 1], equal_nan=True)


def test_speedup_against_context_marks_the_inflection_length():
    ax = plots.plot_speedup_against_context(SURFACE, [16])
    contexts, speedups = line(ax, "16")
    assert contexts.tolist() == list(CONTEXTS)
    assert np.array_equal(speedups, SURFACE.speedup[1], equal_nan=True)
    length = SURFACE.inflection_context_len
    assert any(np.allclose(one.get_xdata(), length) for one in ax.get_lines())
    assert f"inflection length\n{length:,.0f} tokens" in [text.get_text() for text in ax.texts]


def test_ratios_are_those_of_the_round():
    surface = price_surface(DEPLOYMENT, WORKLOAD, WINDOW, SearchSpace([], [3], [512]), draws=0)
    ax = plots.plot_ratios_against_batch(surface, [1000])
    priced = price_round(
        HARDWARE, TARGET, ENGINE, WINDOW, batch=np.array(BATCHES, dtype=float), context_len=1000.0,
        kv_budget=512.0, gamma=3.0, tensor_parallel=8.0,
    )  # fmt: skip
    assert line(ax, "T_V / T_T at 1k")[1] == pytest.approx(priced.verify_ratio)
    assert line(ax, "T_D / T_T at 1k")[1] == pytest.approx(priced.draft_ratio)


def test_the_map_says_what_the_plan_says():
    said = [text.get_text() for text in plots.plot_strategy_map(PLAN).texts]
    speculating = [cell for cell in PLAN.cells if cell.speculates]
    assert speculating
    for cell in speculating:
        assert f"{cell.speedup:.2f}x" in said
        assert f"g {cell.gamma}\nKV {short_tokens(cell.kv_budget)}" in said
    assert said.count("plain") == len(PLAN.cells) - len(speculating)


def test_bars_by_cause_add_up_to_the_round_and_to_the_time_per_token():
    bars = {bar.name.split(",")[0]: bar for bar in cause_bars(BREAKDOWN)}
    option = next(one for one in BREAKDOWN.options if one.drafter == BREAKDOWN.shown)
    assert bars["plain step"].total == pytest.approx(BREAKDOWN.passes[0].total_s)
    assert bars["round per token"].total == pytest.approx(option.tpot_s)
    assert bars["whole round"].total == pytest.approx(option.tpot_s * option.tokens_per_round)
    drawn = sum(patch.get_width() for patch in plots.plot_time_by_cause(BREAKDOWN).patches)
    assert drawn == pytest.approx(1e3 * sum(bar.total for bar in bars.values()))


def test_acceptance_is_the_law_and_its_band_the_quantiles():
    budgets = [128, 512, 2048]
    ax = plots.plot_acceptance_against_budget(TARGET, [WINDOW], 32_000, budgets)
    law = WINDOW.acceptance(TARGET, context_len=32_000.0, kv_budget=np.array(budgets, dtype=float))
    [label] = [one.get_label() for one in ax.get_lines()]
    assert line(ax, label)[1] == pytest.approx(law.rest)
    corners = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.min() == pytest.approx(np.min(law.quantile(0.1).rest))
    assert corners.max() == pytest.approx(np.max(law.quantile(0.9).rest))


def test_a_strategy_without_a_budget_is_a_level_line():
    lookup = Drafter(strategies.load("ngram"))
    ax = plots.plot_acceptance_against_budget(TARGET, [lookup], 32_000, [128, 512])
    [drawn_line] = ax.get_lines()
    law = lookup.acceptance(TARGET, context_len=32_000.0, kv_budget=np.inf)
    assert drawn_line.get_ydata() == pytest.approx([float(law.rest)] * 2)


def test_operations_have_the_seconds_of_the_round_and_lie_under_the_roof():
    priced = price_round(HARDWARE, TARGET, ENGINE, WINDOW, **ROUND)
    seconds = {(one.phase, one.name): one.seconds for one in OPERATIONS}
    assert np.array_equal(seconds["plain step", "attention"], priced.baseline.attention)
    assert np.array_equal(seconds["draft pass", "linear layers"], priced.draft.linear)
    assert np.array_equal(seconds["verification", "attention"], priced.verify.attention)
    for one in OPERATIONS:
        roof = np.minimum(one.intensity * HARDWARE.memory_bandwidth, HARDWARE.peak("bf16"))
        assert np.all(one.rate <= roof), (one.phase, one.name)


def test_a_verification_does_gamma_plus_one_times_the_work_on_the_cache_and_its_drafts():
    found = {(one.phase, one.name): one for one in OPERATIONS}
    plain, verified = found["plain step", "attention"], found["verification", "attention"]
    with_drafts = (PRICED.context_len.ravel()[0] + 4.0) / PRICED.context_len.ravel()[0]
    assert verified.bytes == pytest.approx(with_drafts * plain.bytes)
    assert verified.flops == pytest.approx(5.0 * with_drafts * plain.flops)


def test_the_roofline_draws_every_operation():
    ax = plots.plot_roofline(HARDWARE, OPERATIONS)
    paths = {one.get_gid(): one for one in ax.get_lines() if one.get_gid()}
    for one in OPERATIONS:
        path = paths[f"{one.name}, {one.phase}"]
        assert np.allclose(path.get_xdata(), one.intensity)
        assert np.allclose(path.get_ydata(), one.rate / 1e12)


@given(some.lists(some.tuples(some.integers(1, 9), some.integers(1, 9)), min_size=1, max_size=20))
def test_nothing_beats_a_point_of_the_front_and_something_beats_every_other(points):
    tpot, throughput = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    kept = set(pareto(tpot, throughput).tolist())
    for place in range(len(points)):
        better = (tpot <= tpot[place]) & (throughput >= throughput[place])
        strictly = better & ((tpot < tpot[place]) | (throughput > throughput[place]))
        if place in kept:
            assert not strictly.any()
        else:
            assert better[list(kept)].any()


def test_fronts_are_the_sweep_and_the_last_is_that_of_all():
    assert [front.label for front in FRONTS] == [PLAIN, WINDOW.label, EVERYTHING]
    plain, window, everything = FRONTS
    step = price_round(
        HARDWARE, TARGET, ENGINE, None, batch=plain.batch, context_len=32_000.0, tensor_parallel=8.0
    )
    assert plain.tpot == pytest.approx(step.tpot)
    assert plain.throughput == pytest.approx(np.asarray(step.throughput) / 8.0)
    assert everything.throughput.max() == max(plain.throughput.max(), window.throughput.max())


def test_points_lie_where_published_and_computed_say():
    ax = plots.plot_predicted_against_published(POINTS)
    [label] = [one.get_label() for one in ax.get_lines() if str(one.get_label()).startswith("a:")]
    assert label == "a: 2, mean error 7.5%"
    assert [column.tolist() for column in line(ax, label)] == [[1.0, 2.0], [1.1, 1.9]]


def test_published_speedups_are_drawn_beside_those_of_the_same_deployment():
    ax = plots.plot_published_speedup(TINY_LLAMA)
    surface = price_measured(TINY_LLAMA)
    batches, speedups = line(ax, "8k")
    measured = {row.batch: row.speedup for row in TINY_LLAMA if row.context_len == 8000}
    assert dict(zip(batches.tolist(), speedups.tolist(), strict=True)) == measured
    computed = [one for one in ax.get_lines() if one.get_marker() == "_"]
    assert len(computed) == surface.context_lens.size


def test_rows_of_several_drafters_are_refused():
    with pytest.raises(SpecError, match="drafters"):
        plots.plot_published_speedup(
            [row for row in measurements.load(["magicdec-blog"]) if np.isfinite(row.speedup)]
        )
