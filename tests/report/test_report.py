"""The page holds what was priced, says it in words and tables, fetches nothing, and no name can break it."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

import strategies
from perfmodel.acceptance import Acceptance, tokens_per_round
from perfmodel.cli.app import app
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.report import report_content, report_html, write_report
from perfmodel.report.content import MOST_CONFIGURATIONS, RATES
from perfmodel.report.deployments import configurations
from perfmodel.report.words import recommendation
from perfmodel.speculation import Drafter, price_round
from perfmodel.workload import Workload

pytest.importorskip("plotly")

HARDWARE = HardwareProfile.load("h100-sxm-80gb")
TARGET = ModelSpec.load("llama-3.1-8b")
ENGINE = EngineOverhead.load("generic")
SMALL = ModelSpec.load("llama-3.2-1b")
BATCHES, CONTEXTS = [1, 16, 256], [1000, 32_000, 128_000]
DRAFTERS = [
    Drafter(strategies.load("snapkv")),
    Drafter(strategies.load("streaming_llm"), SMALL),
    Drafter(strategies.load("full_kv"), SMALL),
]
CONTENT = report_content(
    HARDWARE,
    TARGET,
    ENGINE,
    Workload(BATCHES, CONTEXTS),
    drafters=DRAFTERS,
    gammas=range(7),
    tensor_parallel=8,
    command="draftplan report --model llama-3.1-8b",
)
HTML = report_html(CONTENT)


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of what is inside some of them."""

    def __init__(self, html):
        super().__init__()
        self.found, self.texts, self.inside = [], {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input"):
            self.inside.append((tag, dict(attrs).get("id")))

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for tag, name in self.inside:
            self.texts[name or tag] = self.texts.get(name or tag, "") + data


PAGE = Elements(HTML)
PRICED = json.loads(PAGE.texts["priced"])


def numbers(array):
    """An array of the page, with its four axes."""
    if "bits" in array:
        return np.array([int(bit) for bit in array["bits"]]).reshape(array["shape"])
    return np.frombuffer(base64.b64decode(array["floats"]), dtype="<f4").reshape(array["shape"])


# What the page holds.


def test_the_page_is_one_small_file_that_fetches_nothing():
    assert len(HTML.encode()) < 6_000_000
    for tag, attributes in PAGE.found:
        assert tag not in ("iframe", "object", "embed", "base", "img")
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:,")) or not value, (tag, name, value)
    assert "url(" not in PAGE.texts["style"]
    assert "@import" not in PAGE.texts["style"]
    [policy] = [
        each["content"] for tag, each in PAGE.found if each.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_the_page_is_the_same_at_each_run():
    assert report_html(CONTENT) == HTML


@pytest.mark.parametrize("place", range(len(DRAFTERS)))
def test_the_arrays_of_the_page_are_what_was_priced(place):
    held = PRICED["drafters"][place]
    budgets = [np.inf if budget is None else budget for budget in held["kv_budgets"]]
    gammas = np.array(PRICED["gammas"], dtype=float)
    priced = price_round(
        HARDWARE, TARGET, ENGINE, DRAFTERS[place],
        batch=np.array(BATCHES, dtype=float)[:, None, None, None],
        context_len=np.array(CONTEXTS, dtype=float)[:, None, None],
        kv_budget=np.array(budgets, dtype=float)[:, None], gamma=gammas, tensor_parallel=8.0,
    )  # fmt: skip
    assert numbers(held["round_s"]) == pytest.approx(priced.round_s, rel=1e-6)
    assert np.array_equal(numbers(held["fits"]), np.broadcast_to(priced.memory.fits, priced.round_s.shape))
    shape = priced.round_s.shape
    for name, acceptance in (
        ("expected", priced.acceptance),
        ("low", priced.acceptance.quantile(0.1)),
        ("high", priced.acceptance.quantile(0.9)),
    ):
        again = price_round(
            HARDWARE,
            TARGET,
            ENGINE,
            DRAFTERS[place],
            batch=1.0,
            context_len=1000.0,
            gamma=gammas,
            alpha=acceptance,
        )
        held_tokens = np.broadcast_to(numbers(held["tokens"][name]), shape)
        assert held_tokens == pytest.approx(np.broadcast_to(again.tokens_per_round, shape), rel=1e-6)
    parts = sum(
        numbers(held["draft"][cause]) + numbers(PRICED["verify"][cause]) for cause in PRICED["verify"]
    )
    assert parts + numbers(held["overhead_s"]) == pytest.approx(priced.round_s, rel=1e-5)


def test_tokens_at_a_chosen_rate_are_those_of_the_law():
    assert tuple(PRICED["rates"]) == RATES
    for rate, tokens in zip(RATES, PRICED["tokens_by_rate"], strict=True):
        assert tokens == pytest.approx(
            tokens_per_round(rate, np.array(PRICED["gammas"], dtype=float)), abs=1e-6
        )


def test_every_recommendation_points_at_its_configuration():
    assert len(PRICED["cells"]) == len(CONTENT.plan.cells)
    for held, cell in zip(PRICED["cells"], CONTENT.plan.cells, strict=True):
        assert BATCHES[held["batch"]] == cell.batch_size
        assert CONTEXTS[held["context"]] == cell.context_len
        assert (held["drafter"] >= 0) == cell.speculates
        if cell.speculates:
            drafter = PRICED["drafters"][held["drafter"]]
            assert drafter["label"].startswith(cell.strategy)
            assert drafter["kv_budgets"][held["kv_budget"]] == cell.kv_budget
            length = PRICED["gammas"].index(cell.gamma)
            where = held["batch"], held["context"], held["kv_budget"], length
            assert numbers(drafter["round_s"])[where] == pytest.approx(cell.round_s, rel=1e-6)


def test_every_chart_has_a_table_beside_it_and_is_named_for_those_who_do_not_see_it():
    charts = [each for tag, each in PAGE.found if tag == "div" and each.get("class") == "chart"]
    assert [chart["id"] for chart in charts] == [
        "map", "causes", "lengths", "needed", "latency", "doubts"
    ]  # fmt: skip
    assert all(chart["role"] == "img" and "table" in chart["aria-label"] for chart in charts)
    tables = [each.get("id") for tag, each in PAGE.found if tag == "table"]
    assert {"cells", "causes-table", "lengths-table"} <= set(tables)


def test_without_a_script_the_tables_hold_the_whole_recommendation():
    text = re.sub(r"\s+", " ", PAGE.texts["table"] + PAGE.texts["cells"])
    for cell in CONTENT.plan.cells:
        assert f"{cell.baseline_s * 1e3:.3g}" in text
        assert cell.why in text
        if cell.speculates:
            assert f"{cell.speedup:.2f}\u00d7" in text
    assert "noscript" in [tag for tag, _ in PAGE.found]


def test_everything_assumed_is_listed():
    text = PAGE.texts["main"]
    for sentence in CONTENT.plan.assumed:
        assert sentence in text


def test_names_cannot_break_the_page():
    evil = "</script><script>alert(1)</script><b>{{style}}"
    target = dataclasses.replace(TARGET, name=evil)
    drafter = Drafter(strategies.load("streaming_llm"), dataclasses.replace(SMALL, name=evil))
    content = report_content(
        HARDWARE, target, ENGINE, Workload([8], [32_000]), drafters=[drafter], gammas=[2], command=evil
    )
    html = report_html(content)
    page = Elements(html)
    assert "alert(1)</script>" not in html
    assert len([tag for tag, _ in page.found if tag == "script"]) == 3
    assert evil in json.loads(page.texts["priced"])["drafters"][0]["label"]
    assert evil in page.texts["h1"]


# What it says.


def test_the_words_name_the_cell_that_gains_most():
    best = max(CONTENT.plan.cells, key=lambda cell: cell.speedup)
    said = " ".join(recommendation(CONTENT.plan, CONTENT.deployments))
    assert f"batch {best.batch_size} with {best.context_len:,} tokens of context" in said
    assert f"{best.speedup:.2f} times as fast" in said
    assert f"{best.speedup_low:.2f} and {best.speedup_high:.2f}" in said
    drafting = sum(cell.speculates for cell in CONTENT.plan.cells)
    assert f"Speculate in {drafting} of {len(CONTENT.plan.cells)} cells" in said


def test_where_nothing_pays_the_words_say_so_and_engines_are_told_nothing():
    content = report_content(
        HARDWARE, TARGET, ENGINE, Workload([1], [1000]), drafters=DRAFTERS[:1], gammas=[1], tensor_parallel=8,
        alpha=0.1,
    )  # fmt: skip
    assert recommendation(content.plan, content.deployments)[0].startswith("Do not speculate")
    assert all(one.refusal for one in configurations(content.deployments))
    assert "Do not speculate" in report_html(content)


def test_deployments_are_ranked_and_never_faster_than_the_best_of_every_cell():
    losses = [one.slower for one in CONTENT.deployments]
    assert losses == sorted(losses)
    assert losses[0] >= -1e-12
    best = {(cell.batch_size, cell.context_len): cell.tpot_s for cell in CONTENT.plan.cells}
    ratios = [
        cell.tpot_s / best[cell.batch_size, cell.context_len] for cell in CONTENT.deployments[0].plan.cells
    ]
    assert losses[0] == pytest.approx(math.prod(ratios) ** (1 / len(ratios)) - 1.0)


def test_an_engine_is_given_the_best_drafter_that_it_can_run_whole():
    found = {one.engine: one for one in configurations(CONTENT.deployments)}
    vllm = found["vllm"]
    assert json.loads(vllm.text)["method"] == "draft_model"
    assert vllm.deployment.drafting.strategy == "full_kv"
    assert vllm.text.strip() in PAGE.texts["main"]


# What is refused.


def test_a_question_too_large_for_a_page_is_refused_before_it_is_priced():
    batches = list(range(1, 200))
    with pytest.raises(SpecError, match=str(MOST_CONFIGURATIONS)):
        report_content(HARDWARE, TARGET, ENGINE, Workload(batches, batches), drafters=DRAFTERS)


def test_where_nothing_fits_there_is_no_page():
    with pytest.raises(InfeasibleError):
        report_content(HARDWARE, TARGET, ENGINE, Workload([100_000], [100_000]), drafters=DRAFTERS)


def test_without_plotly_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(SpecError, match=r"pip install .*\[report\]"):
        report_html(CONTENT)


def test_only_html_is_written(tmp_path):
    with pytest.raises(SpecError, match="ending"):
        write_report(CONTENT, tmp_path / "report.pdf")


def test_the_command_writes_the_page(tmp_path):
    out = tmp_path / "report.html"
    flags = [
        "--model",
        "llama-3.1-8b",
        "--hardware",
        "h100-sxm-80gb",
        "--tp",
        "8",
        "--context",
        "8k,32k",
        "-b",
        "16",
    ]
    result = CliRunner().invoke(app, ["report", *flags, "-o", str(out)], prog_name="draftplan")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "Should Llama-3.1-8B speculate" in out.read_text(encoding="utf-8")
    refused = CliRunner().invoke(
        app, ["report", *flags, "--tp", "4,8", "-o", str(out)], prog_name="draftplan"
    )
    assert refused.exit_code == 2
    assert "several deployments" in refused.stderr


def test_an_acceptance_with_a_spread_keeps_it():
    content = report_content(
        HARDWARE, TARGET, ENGINE, Workload([16], [32_000]), drafters=DRAFTERS[:1], gammas=[4],
        tensor_parallel=8, alpha=Acceptance.given(0.8, sd=0.05),
    )  # fmt: skip
    tokens = {name: numbers(array).item(0) for name, array in content.priced["drafters"][0]["tokens"].items()}
    assert tokens["low"] < tokens["expected"] < tokens["high"]
