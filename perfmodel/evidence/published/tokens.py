"""Published tokens per round beside the acceptance laws, and beside what shorter drafts foretell."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from importlib.resources import files

import numpy as np

import strategies
from perfmodel.acceptance import acceptance_rate, expected_tokens, tokens_from_first_rest, tokens_per_round
from perfmodel.acceptance.fit import fit_first_rest, published_points
from perfmodel.acceptance.inverse import alpha_from_mean_length
from perfmodel.errors import SpecError
from perfmodel.evidence.published.comparison import Compared

__all__ = ["TABLES", "compare_tokens"]

TABLES = ("magicdec-acceptance", "inferencex", "specforge")
_FILE = "acceptance.csv"


def compare_tokens(tables: Iterable[str]) -> list[Compared]:
    """Return the published tokens per round of some of `TABLES` beside computed ones.

    ``magicdec-acceptance`` and ``inferencex`` are compared with the acceptance laws (a published rate as the
    tokens that it yields at length 4). ``specforge``: tokens at length 7 foretold from those at 3 and 5, and
    as its first zero-shot column by one constant rate from length 3.
    """
    wanted = set(tables)
    compared = [row for row in _by_law() if row.table in wanted]
    return compared + (_foretold() if "specforge" in wanted else [])


def _by_law() -> list[Compared]:
    text = (files("perfmodel") / "data" / "measurements" / _FILE).read_text(encoding="utf-8")
    compared = []
    for number, row in enumerate(csv.DictReader(text.splitlines()), start=1):
        drafter = row["drafter"]
        if drafter not in ("self", "draft", "head", "none"):
            raise SpecError.single(
                _FILE, "drafter", f"found {drafter!r} in row {number}", "self, draft, head or none"
            )
        acceptance = acceptance_rate(
            strategies.load(row["strategy"]),
            drafter=drafter,  # type: ignore[arg-type]
            context_len=float(row["context_len"]),
            kv_budget=float(row["kv_budget"] or "inf"),
            target_name=row["target_model"],
        )
        gamma = float(row["gamma"] or 4.0)
        published = (
            float(row["tokens_per_round"])
            if row["tokens_per_round"]
            else float(np.asarray(tokens_per_round(float(row["alpha"]), gamma)))
        )
        computed = float(np.asarray(expected_tokens(acceptance, gamma)))
        nothing = (math.nan, math.nan)
        compared.append(
            Compared(
                row["table"],
                row["cell"],
                "acceptance",
                "tokens",
                published,
                computed,
                nothing,
                row["source"],
                row["unknown"],
            )
        )
    return compared


def _foretold() -> list[Compared]:
    chains = published_points("chains")
    at = {gamma: np.array(chains[f"tokens_gamma{gamma}"], dtype=float) for gamma in (3, 5, 7)}
    first, rest = fit_first_rest([3, 5], np.stack([at[3], at[5]], axis=-1))
    computed = np.asarray(tokens_from_first_rest(first, rest, 7.0))
    constant = np.asarray(tokens_per_round(alpha_from_mean_length(at[3], 3.0), 7.0))
    columns = (chains["target"], chains["dataset"], chains["source"], at[7], computed, constant)
    return [
        Compared(
            table="specforge",
            cell=f"{target}, {data}, gamma 7",
            scope="acceptance",
            measure="tokens",
            published=float(published),
            computed=float(own),
            zero_shot=(float(plain), math.nan),
            source=source,
            unknown="sampling temperature",
        )
        for target, data, source, published, own, plain in zip(*columns, strict=True)
    ]
