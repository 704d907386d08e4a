"""The page in a real browser: the answer follows the controls, links hold it, everybody can use it."""

from __future__ import annotations

import json
import shutil
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("plotly")
playwright = pytest.importorskip("playwright.sync_api")

from explored import running  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]


@pytest.fixture(scope="module")
def address():
    with running() as (_, found):
        yield found


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, address):
    """Opens the page; every request, message and error of it is looked at in the end."""
    contexts, requested, said = [], [], []

    def show(query="", **settings):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address + query)
        answered(page, 1)
        return page

    yield show
    for context in contexts:
        context.close()
    assert [url for url in requested if not url.startswith((address, "data:", "blob:"))] == []
    assert [text for text in said if "422" not in text] == []


@pytest.fixture
def page(opened):
    return opened()


def answered(page, count):
    page.wait_for_function(
        "count => Number(document.documentElement.dataset.answered || 0) >= count"
        " && document.getElementById('main').getAttribute('aria-busy') === 'false'",
        arg=count, timeout=30_000,
    )  # fmt: skip


def after(page, act):
    """Do something, and wait for the answer."""
    count = page.evaluate("Number(document.documentElement.dataset.answered)")
    act()
    answered(page, count + 1)


def says(page, words):
    starts = "words => document.getElementById('taken').textContent.startsWith(words)"
    page.wait_for_function(starts, arg=words)


def drawn(page, chart):
    parts = "[trace.x, trace.y, trace.z, trace.text]"
    return page.evaluate(
        f"id => JSON.stringify(document.getElementById(id).data.map(trace => {parts}))", chart
    )


def shown(page):
    return [drawn(page, chart) for chart in ("map", "causes", "lengths")], page.inner_text("#facts")


def asked(page):
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


CHANGES = [
    ("model", "Qwen3-8B"), ("hardware", "a100-sxm-80gb"), ("tp", "4"), ("engine", "sglang"),
    ("batch_size", "128"), ("context", "16k"), ("output_tokens", "4096"), ("strategy", "streaming_llm"),
    ("draft_budget", "256"), ("acceptance_rate", "0.6"), ("objective", "worst"), ("weight_dtype", "fp8"),
    ("kv_cache_dtype", "fp8"), ("draft_model", "Llama-3.2-1B"), ("gamma", "1:3:1"),
]  # fmt: skip


@pytest.mark.parametrize(("control", "value"), CHANGES)
def test_the_answer_and_the_link_follow_every_control_and_reset_brings_back(page, control, value):
    def change():
        if page.evaluate("id => document.getElementById(id).tagName", control) == "SELECT":
            page.select_option(f"#{control}", value)
        else:
            page.fill(f"#{control}", value)
            page.dispatch_event(f"#{control}", "change")

    before = shown(page)
    after(page, change)
    assert shown(page) != before
    assert asked(page)[control] == value
    after(page, lambda: page.click("button[type=reset]"))
    assert shown(page) == before


def test_a_link_holds_the_question_and_back_and_forward_go_through_it(page, opened):
    first = page.inner_text("#headline")
    after(page, lambda: page.select_option("#tp", "4"))
    second = page.inner_text("#headline")
    after(page, lambda: page.select_option("#objective", "worst"))
    third = page.inner_text("#headline")
    again = opened(urlsplit(page.url).query and "?" + urlsplit(page.url).query)
    assert again.inner_text("#headline") == third
    assert again.inner_text("#command") == page.inner_text("#command")
    after(page, page.go_back)
    assert (page.inner_text("#headline"), page.input_value("#objective")) == (second, "")
    after(page, page.go_back)
    assert (page.inner_text("#headline"), page.input_value("#tp")) == (first, "8")
    after(page, page.go_forward)
    assert (page.inner_text("#headline"), page.input_value("#tp")) == (second, "4")


def test_a_click_on_the_map_asks_about_the_cell_under_it(page):
    page.set_viewport_size({"width": 1200, "height": 1600})
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map .nsewdrag").bounding_box()
    after(page, lambda: page.mouse.click(box["x"] + 0.5 * box["width"] / 8, box["y"] + 0.98 * box["height"]))
    assert page.inner_text("#cell") == "batch 1, context 1,000"
    assert (asked(page)["batch_size"], asked(page)["context"]) == ("1", "1000")


def test_everything_is_reached_and_used_by_keyboard(page):
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    for name in ("theme", "model", "hardware", "batch_size", "objective", "link", "engines", "copy", "save"):
        assert name in reached
    page.focus("#tp")
    after(page, lambda: page.keyboard.press("ArrowDown"))
    assert page.input_value("#tp") == "16"
    page.locator("summary", has_text="The map as a table").press("Enter")
    page.locator('#map-table button[aria-pressed="true"]').focus()
    after(page, lambda: page.keyboard.press("ArrowUp"))
    assert page.inner_text("#cell") == "batch 128, context 32,000"
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_typing_asks_when_the_typing_stops(page):
    page.focus("#batch_size")
    page.keyboard.press("Control+A")
    after(page, lambda: page.keyboard.type("96"))
    assert page.inner_text("#cell").startswith("batch 96,")


def test_a_refusal_stands_beside_its_control_and_goes_when_it_is_mended(page):
    def write(text):
        page.fill("#context", text)
        page.dispatch_event("#context", "change")

    after(page, lambda: write("lots"))
    assert "lots" in page.inner_text("#context-fault")
    assert page.get_attribute("#context", "aria-invalid") == "true"
    after(page, lambda: write("8k"))
    assert page.locator("#context-fault").text_content() == ""
    assert page.get_attribute("#context", "aria-invalid") is None
    after(page, lambda: page.select_option("#tp", "64"))
    assert page.inner_text("#tp-fault")


def test_where_nothing_fits_it_says_so(page):
    page.fill("#batch_size", "100000")
    after(page, lambda: page.dispatch_event("#batch_size", "change"))
    assert page.inner_text("#headline").startswith("Nothing fits")


def test_an_answer_that_comes_late_is_dropped(page):
    page.route("**/explore", lambda route: route.continue_())
    slow = []

    def hold(route):
        if json.loads(route.request.post_data)["question"].get("tp") == "4":
            slow.append(route)
        else:
            route.continue_()

    page.unroute("**/explore")
    page.route("**/explore", hold)
    page.select_option("#tp", "4")
    page.wait_for_timeout(100)
    assert page.get_attribute("#main", "aria-busy") == "true"
    after(page, lambda: page.select_option("#tp", "2"))
    assert "--tp 2" in page.inner_text("#command")
    for route in slow:
        route.abort()
    page.wait_for_timeout(100)
    assert "--tp 2" in page.inner_text("#command")
    page.unroute("**/explore")


def test_copying_gives_the_export_and_refusals_are_words(opened):
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    after(page, lambda: page.select_option("#engine", "vllm-h100"))
    page.select_option("#engines", "vllm")
    page.click("#copy")
    says(page, "Copied for vLLM")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == page.locator("#export").text_content().strip()
    assert "method" in copied
    after(page, lambda: page.select_option("#engine", ""))
    page.select_option("#engines", "sglang")
    page.click("#copy")
    says(page, "Not for SGLang")
    assert page.locator("#export").is_hidden()


def test_saving_gives_the_page_of_the_report(page):
    with page.expect_download() as saved:
        page.click("#save")
    assert saved.value.suggested_filename == "draftplan-report.html"
    with open(saved.value.path(), encoding="utf-8") as file:
        assert "Should Llama-3.1-8B speculate" in file.read()


@pytest.mark.parametrize("width", [400, 800])
def test_a_narrow_screen_scrolls_nothing_sideways(opened, width):
    page = opened(viewport={"width": width, "height": 800})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_is_dark_where_the_system_is_and_where_people_say_so(opened):
    colour = "getComputedStyle(document.body).color"
    light, dark = opened(color_scheme="light"), opened(color_scheme="dark")
    assert light.evaluate(colour) != dark.evaluate(colour)
    ink = "document.querySelector('#map .xtick text').style.fill"
    before = light.evaluate(ink)
    light.click("#theme")
    assert light.evaluate(colour) == dark.evaluate(colour)
    assert light.get_attribute("#theme", "aria-pressed") == "true"
    assert light.evaluate(ink) != before
    light.reload()
    answered(light, 1)
    assert light.evaluate(colour) == dark.evaluate(colour)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("path", ["", "docs"])
def test_axe_finds_nothing_serious(browser, address, scheme, width, path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    size = {"width": width, "height": 900}
    context = browser.new_context(color_scheme=scheme, viewport=size, bypass_csp=True)
    page = context.new_page()
    page.goto(address + path)
    if not path:
        answered(page, 1)
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        page.wait_for_timeout(300)
    found = axe.Axe().run(page).response["violations"]
    assert [
        (each["id"], [node["html"][:120] for node in each["nodes"][:3]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ] == []
    context.close()
