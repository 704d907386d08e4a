"""The page holds a named control for every part of the question, and shows what the library computed."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("plotly")

from explored import QUESTION, client

from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.breakdown import break_down, cause_bars
from perfmodel.planning.decision import headline
from perfmodel.planning.planner import plan
from perfmodel.workload import Workload

SERVICE = client()
HARDWARE = HardwareProfile.load("h100-sxm-80gb")
TARGET = ModelSpec.load("llama-3.1-8b")
ENGINE = EngineOverhead.load("generic")
BATCHES, CONTEXTS = (1, 16, 64), (8000, 32_000)


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def having(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def explored(**values):
    body = {"question": QUESTION | values, "batches": "1,16,64", "contexts": "8k,32k"}
    reply = SERVICE.post("/explore", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_fetches_from_this_service_only_and_holds_no_script_of_its_own(path):
    html = SERVICE.get(path).text
    assert "{{" not in html
    page = Tags(html)
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(name) or "#"
            assert value.startswith(("/", "#", "data:,")) and not value.startswith("//"), value
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert all("src" in attributes for attributes in page.having("script"))
    assert not page.having("style")
    css = SERVICE.get("/static/explore.css").text
    assert "url(" not in css and "@import" not in css


def test_every_control_is_labelled_and_has_a_place_for_its_fault():
    page = Tags(SERVICE.get("/").text)
    controls = [each for tag in ("input", "select") for each in page.having(tag)]
    labelled = {each["for"] for each in page.having("label")}
    assert {each["id"] for each in controls} == labelled
    places = {attributes.get("id") for _, attributes in page.tags}
    asked = [each for each in controls if "data-start" in each]
    assert all(each["aria-describedby"] in places for each in asked)
    for key in (
        "model", "hardware", "engine", "tp", "batch_size", "context", "output_tokens", "acceptance_rate",
        "strategy", "draft_budget", "weight_dtype", "kv_cache_dtype", "objective",
    ):  # fmt: skip
        assert key in {each["name"] for each in asked}


def test_every_control_is_a_key_of_the_service():
    page = Tags(SERVICE.get("/").text)
    asked = [each["name"] for tag in ("input", "select") for each in page.having(tag) if "data-start" in each]
    known = SERVICE.get("/openapi.json").json()["components"]["schemas"]["Question"]["properties"]
    assert set(asked) - set(known) == {"batches", "contexts"}


def test_the_scripts_compute_no_figure():
    script = SERVICE.get("/static/explore.js").text
    assert not re.search(r"Math\.|toFixed|toPrecision|tpot|speedup", script)


def test_a_file_that_is_not_of_the_page_is_not_served():
    for name in ("service.py", "..%2Fcli%2Fplan.py", "explore.html", ".", "%00"):
        assert SERVICE.get(f"/static/{name}").status_code == 404


# What it shows.


def test_the_map_is_the_plan_and_the_cell_is_the_breakdown():
    said = explored()
    workload = Workload(BATCHES, CONTEXTS, output_tokens=512)
    around = plan(HARDWARE, TARGET, ENGINE, workload, tensor_parallel=8, draws=0)
    [trace] = said["map"]["data"]
    for cell in around.cells:
        row, column = BATCHES.index(cell.batch_size), CONTEXTS.index(cell.context_len)
        text = trace["text"][row][column]
        assert text.startswith(f"<b>{cell.speedup:.2f}" if cell.speculates else "plain")
    behind = break_down(
        HARDWARE, TARGET, ENGINE, batch_size=64, context_len=32_000, output_tokens=512, tensor_parallel=8
    )
    assert said["headline"] == headline(behind.plan)
    lengths = said["lengths"]["data"][0]
    assert lengths["y"] == [row.speedup for row in behind.by_gamma]
    bars = cause_bars(behind)
    for trace in said["causes"]["data"]:
        assert trace["y"] == [bar.name for bar in bars]
    totals = [sum(trace["x"][place] for trace in said["causes"]["data"]) for place in range(len(bars))]
    assert totals == pytest.approx([bar.total * 1e3 for bar in bars])
    facts = {each["name"]: each for each in said["facts"]}
    cell = behind.cell
    assert facts["Speedup"]["value"] == f"{cell.speedup:.2f}\u00d7"
    assert f"{cell.speedup_low:.2f}\u2013{cell.speedup_high:.2f}" in facts["Speedup"]["note"]
    assert facts["Cost of 1 M tokens"]["value"] == f"${cell.cost_per_million_tokens_usd:.3g}"


def test_every_drawing_has_a_table_of_the_same_numbers():
    said = explored()
    assert [row[-1] for row in said["causes"]["table"]["rows"]] == [
        note["text"].strip().removesuffix(" ms") for note in said["causes"]["layout"]["annotations"]
    ]
    speedups = [f"{value:.2f}\u00d7" for value in said["lengths"]["data"][0]["y"]]
    assert [row[3] for row in said["lengths"]["table"]["rows"]] == speedups
    assert said["lengths"]["table"]["rows"][said["lengths"]["table"]["chosen"]][3] == max(speedups)
    for row, line in zip(said["map"]["table"], said["map"]["data"][0]["customdata"], strict=True):
        assert [cell["text"] for cell in row] == [text or "\u2013" for text in line]


def test_the_cell_is_on_the_map_wherever_it_is():
    said = explored(batch_size="48", context="20k")
    assert said["map"]["batches"] == [1, 16, 48, 64]
    assert said["map"]["contexts"] == [8000, 20_000, 32_000]
    assert said["map"]["at"] == [2, 1]


def test_a_quantile_of_acceptance_decides_the_drawings_too():
    usual, careful = explored(), explored(objective="worst")
    length = [each["lengths"]["table"]["chosen"] for each in (usual, careful)]
    assert length[1] < length[0]
    told = [each["lengths"]["data"][0]["y"][:4] for each in (usual, careful)]
    assert told[0] == pytest.approx(told[1], rel=0.2)


def test_a_cell_in_which_nothing_fits_keeps_the_map():
    said = explored(batch_size="4096", context="128k")
    assert said["headline"].startswith("Nothing fits at batch 4096")
    assert said["lengths"] is None
    assert said["map"]["data"][0]["z"][-1][-1] is None
    assert said["map"]["data"][0]["z"][0][0] is not None


def test_a_wrong_axis_is_told_at_its_own_control():
    body = {"question": QUESTION, "batches": "1;8", "contexts": "8k"}
    details = SERVICE.post("/explore", json=body).json()
    assert [each["key"] for each in details["problems"]] == ["batches"]


def test_several_values_are_for_the_map():
    reply = SERVICE.post("/explore", json={"question": {**QUESTION, "context": "8k,32k"}})
    assert reply.json()["problems"][0]["key"] == "context"
