"""Trees as people name them: --tree, SGLang's own three flags, and what is said of wrong ones."""

from __future__ import annotations

import pytest
from asking import SERVED, answered, asked, refused, run

CELL = [*SERVED, "--context", "1k", "-b", "1", "--strategy", "eagle"]
FLAGS = [
    *("--speculative-num-steps", "5"), *("--speculative-eagle-topk", "4"),
    *("--speculative-num-draft-tokens", "16"),
]  # fmt: skip


def test_a_tree_and_sglangs_own_flags_ask_the_same() -> None:
    one, other = asked("plan", *CELL, "--tree", "5,4,16"), asked("plan", *CELL, *FLAGS)
    assert one["cells"] == other["cells"] and one["gammas"] == [0, 5]
    assert [one["cells"][0][key] for key in ("gamma", "topk", "nodes")] == [5, 4, 16]


def test_the_table_shows_a_tree_only_where_one_is_drafted() -> None:
    assert "nodes" in answered("plan", *CELL, "--tree", "5,4,16")
    assert "nodes" not in answered("plan", *CELL, "--gamma", "5")


def test_chains_are_searched_beside_trees_where_they_are_named() -> None:
    cells = asked("plan", *CELL[:-4], "-b", "1,256", "--strategy", "eagle", "--tree", "usual;chain")["cells"]
    assert [bool(cell["nodes"]) for cell in cells] == [True, False]


def test_tokens_measured_on_a_tree_are_those_that_it_is_planned_with() -> None:
    cell = asked("plan", *CELL, "--tree", "5,4,16", "--acceptance-length", "3.27")["cells"][0]
    assert cell["tokens_per_round"] == pytest.approx(3.27)


def test_explain_shows_the_steps_of_a_tree_and_no_others() -> None:
    behind = asked("explain", *CELL, "--tree", "5,4,16;3,2,6")["breakdown"]
    assert [row["gamma"] for row in behind["by_gamma"]] == [0, 5]
    shown = next(option for option in behind["options"] if option["drafter"] == behind["shown"])
    assert (shown["draft_passes"], shown["verified"]) == (5, 16)
    assert behind["passes"][-1]["name"] == "verification of 16 tokens"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tree", "5,4"], "STEPS,TOPK,NODES"),
        (["--tree", ";"], "no tree is named"),
        (["--tree", "2,2,60"], "at most 7 nodes"),
        (["--topk", "4", "--gamma", "5"], "--topk and --nodes together"),
        (["--nodes", "16", "--gamma", "5"], "--topk is not named"),
        (["--topk", "4", "--tree", "5,4,16"], "beside --tree"),
        (["--tree", "5,4,16;5,8,64", "--acceptance-length", "3"], "the tree it was measured on"),
    ],
)
def test_wrong_trees_are_refused_by_their_flag(flags, words) -> None:
    said = refused("plan", *CELL, *flags)
    assert words in said and "--" in said


def test_commands_that_count_chains_only_refuse_trees(tmp_path) -> None:
    tree = ["--strategy", "eagle", "--tree", "5,4,16"]
    page = run("report", *CELL, "--tree", "5,4,16", "-o", tmp_path / "page.html")
    load = ["--context", "1k", "--output-tokens", "100", "--target-qps", "1", "--ttft", "1s", "--tpot", "50"]
    sized = run("size", *SERVED, *tree, *load)
    (tmp_path / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,100,10\n1,100,10\n")
    served = run("simulate", tmp_path / "trace.csv", *SERVED, *tree)
    for result in (page, sized, served):
        assert result.exit_code == 2 and "chains only" in result.stderr, result.stderr


def test_a_draft_model_on_gpus_that_are_not_there_is_refused_and_for_a_head_they_mean_nothing() -> None:
    small = [*SERVED, "--context", "1k", "-b", "1", "--strategy", "full_kv", "--draft-model", "llama-3.2-1b"]
    assert "Give 1 to 2" in refused("plan", *small, "--tp", "2", "--draft-tp", "4")
    cells = asked("plan", *small, "--tp", "1,2", "--draft-tp", "2", "--gamma", "3")["cells"]
    assert all(cell["draft_tensor_parallel"] in (None, cell["tensor_parallel"]) for cell in cells)
    assert "without effect" in run("plan", *CELL, "--tp", "2", "--draft-tp", "1").stderr


def test_of_several_trees_those_too_deep_for_a_head_are_left_out() -> None:
    cell = [*SERVED, "--context", "1k", "-b", "1", "--strategy", "medusa"]
    result = run("plan", *cell, "--tree", "usual")
    assert result.exit_code == 0 and "left out: medusa tree 8,10,60" in result.stderr
    assert "Give 1 to 5 steps" in refused("plan", *cell, "--tree", "8,10,60")
