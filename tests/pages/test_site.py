"""The site: a page for each strategy from its file alone, built without a warning and self-contained."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import strategies
from pages.reading import ROOT
from pages.running import answer_of

SITE = ROOT / "docs" / "site"


@pytest.fixture(scope="module")
def pages():
    """The module that makes the pages of strategies."""
    spec = importlib.util.spec_from_file_location("strategy_pages", SITE / "strategy_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", strategies.available())
def test_what_a_figure_shows_as_read_is_what_the_strategy_counts(pages, name):
    strategy = strategies.load(name)
    rows = pages.reads(strategy)
    budget = pages.BUDGET if strategy.default_budgets else np.inf
    counts = strategy.draft_pass(context_len=pages.CONTEXT, kv_budget=budget, gamma=pages.GAMMA)
    drafts = rows[:-1]
    assert len(drafts) == counts.passes
    expected = counts.kv_tokens if pages.has_cache(strategy) else 0.0
    assert np.isin(drafts, (pages.READ, pages.DRAFTED)).sum() == expected * counts.passes
    assert (rows[-1] != pages.UNREAD).all(), "a verification reads all"


@pytest.mark.parametrize("name", strategies.available())
def test_the_question_on_the_page_of_a_strategy_is_answered(pages, name):
    assert "batch" in answer_of(pages.command(strategies.load(name)))


def test_a_strategy_has_a_page_because_its_file_is_there(pages, tmp_path, monkeypatch):
    source = (ROOT / "strategies" / "streaming_llm.py").read_text(encoding="utf-8")
    (tmp_path / "my_window.py").write_text(source.replace('name="streaming_llm"', 'name="my_window"'))
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    names = strategies.available()
    made = pages.made()
    assert "my_window" in names
    for name in names:
        assert made[f"strategies/{name}.md"].startswith(f"# {name}\n")
        assert made[f"strategies/{name}-reads.svg"].startswith(b"<?xml")
        assert made[f"strategies/{name}-acceptance.svg"].startswith(b"<?xml")
        assert f"({name}.md)" in made["strategies/index.md"]
    sys.modules.pop("strategies.my_window", None)


def test_docstrings_become_markdown():
    pytest.importorskip("griffe")
    sys.path.insert(0, str(SITE))
    try:
        from house_style import as_markdown
    finally:
        sys.path.remove(str(SITE))
    parameters = "Parameters\n----------\na, b : sizes, which\n    go on. [m]\n\n"
    text = f"Price it.\n\n{parameters}Raises\n------\nSpecError\n    When not.\n"
    lists = "**Parameters**\n\n- `a`, `b`: sizes, which go on. [m]\n\n**Raises**\n\n- `SpecError`: When not."
    expected = f"Price it.\n\n{lists}"
    assert as_markdown(text) == expected


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    if importlib.util.find_spec("material") is None:
        pytest.skip("the extra docs is not installed: make docs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(SITE / "mkdocs.yml")]
    ran = subprocess.run(
        [*build, "--site-dir", str(tmp_path)], capture_output=True, text=True, timeout=300, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "WARNING" not in ran.stderr
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*.*")}
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items()
             if path.suffix in (".html", ".css")}  # fmt: skip
    html = {name: text for name, text in texts.items() if name.endswith(".html")}
    loaded = r'<(?:script|img|iframe)[^>]+src="?(https?:)?//|<link[^>]+href="?(https?:)?//'
    assert [name for name, text in html.items() if re.search(loaded, text)] == []
    assert [name for name, text in texts.items() if re.search(r"url\(.?https?:", text)] == []
    assert "<math" in html["theory.html"] and "arithmatex" not in html["theory.html"]
    assert "Over all tables" in html["evidence.html"] and "By family of accelerators" in html["evidence.html"]
    assert {f"strategies/{name}.html" for name in strategies.available()} <= html.keys()
    for name, text in html.items():
        for target in re.findall(r'(?:href|src)="((?!https?:|#|data:|mailto:)[^"#?]+)', text):
            there = (tmp_path / Path(name).parent / target).exists()
            assert there or name == "404.html", f"{name} links to {target}"
