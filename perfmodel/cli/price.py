"""`draftplan price`: named configurations from a CSV."""

from __future__ import annotations

import typer

from perfmodel.cli.ask.flag import PROFILES, argument, command, flag
from perfmodel.cli.tell.output import emit_pieces, remark
from perfmodel.cli.tell.progress import working

__all__ = ["price"]

_MOST_SAID = 100


@command("price", 3)
def price(
    cases: str = argument("CASES.csv", help="One configuration a row; - reads stdin."),
    output: str | None = flag("--output", "-o", "OUT.csv", help="Write to a file, not to stdout."),
    acceptance: str | None = flag("--acceptance", "--acceptance-file", "FILE",
        help="Acceptance measured on your own traffic, for rows that give none; from `draftplan acceptance "
        "fit -o FILE`."),
    profiles_path: str | None = PROFILES,
) -> None:
    """Price configurations, one row each, and write the same rows with times, speedup and whether they fit.

    Columns: hardware, engine, tensor_parallel, target_model, draft_model (empty: the target itself),
    strategy, kv_budget (a number or all), context_len, batch_size, gamma, and optionally output_tokens
    (tokens that follow the context: the row is then their mean step, as in `draftplan plan`; 0 where empty,
    a step at that very context), draft_tensor_parallel (GPUs that share the draft model), expert_parallel
    (yes where the GPUs deal out the experts whole), pipeline_parallel and data_parallel (stages, and groups
    of tensor_parallel GPUs that share the experts; batch_size counts all sequences; 1 where empty), topk and
    nodes (of a tree, whose steps are gamma; nodes count the root, as --speculative-num-draft-tokens of
    SGLang), weight_dtype and kv_dtype (the model's own where empty), draft_vocabulary (tokens that a head
    chooses among), acceptance_rate or tokens_per_round (bonus token included; it wins). Others pass through.
    A row that cannot be priced is named on stderr and costs no other row.
    """
    from perfmodel.acceptance.file import read_acceptance
    from perfmodel.files.opening import TABLE, read_file
    from perfmodel.planning.cases import price_cases, price_file

    measured = read_acceptance(acceptance) if acceptance is not None else ()
    with working(f"pricing {cases}"):
        if cases == "-":
            priced = price_cases(read_file("-", TABLE), "stdin", profiles_path, measured)
        else:
            priced = price_file(cases, profiles_path, measured)
    emit_pieces(priced.csv_blocks(), output)
    for line in [*(f"note: {text}" for text in priced.remarks), *map(str, priced.faults)][:_MOST_SAID]:
        remark(line)
    hidden = len(priced.remarks) + len(priced.faults) - _MOST_SAID
    if hidden > 0:
        remark(f"and {hidden} more lines like these")
    if priced.faults:
        remark(
            f"error: {cases}: {len(priced.faults)} of {len(priced.rows)} rows are not priced; "
            "see their column `error`"
        )
        raise typer.Exit(2)
