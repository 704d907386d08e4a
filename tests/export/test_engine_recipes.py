"""Recipes: there is one for every engine, and its commands are ours."""

import re
from pathlib import Path

import pytest

from perfmodel.export import exporters, load

RECIPES = Path(__file__).parents[2] / "docs" / "engines"


@pytest.mark.parametrize("engine", exporters())
def test_every_engine_has_a_recipe_that_exports_and_feeds_back(engine):
    text = (RECIPES / f"{engine}.md").read_text()
    flag = f"--engine {engine}", f"--engine {engine.replace('_', '-')}"
    assert any(name in text for name in flag)
    assert "draftplan acceptance fit" in text
    assert f"[{engine}.md]" in (RECIPES / "README.md").read_text()


@pytest.mark.parametrize("engine", exporters())
def test_every_form_that_a_recipe_names_exists(engine):
    text = (RECIPES / f"{engine}.md").read_text()
    assert set(re.findall(r"--form ([a-z-]+)", text)) <= set(load(engine).forms)


def test_every_flag_that_a_recipe_gives_to_export_exists():
    import typer.main

    from perfmodel.cli.app import app

    known = {flag for option in typer.main.get_command(app).commands["export"].params for flag in option.opts}
    for recipe in RECIPES.glob("*.md"):
        for command in re.findall(r"draftplan export ([^\n)]*)", recipe.read_text().replace("\\\n", " ")):
            assert set(re.findall(r"(?<!\S)--[a-z-]+", command.split("#")[0].split("`")[0])) <= known, (
                recipe.name
            )
