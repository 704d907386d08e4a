"""Trends of other people's measurements, for `draftplan validate`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["draw_trends", "trend_rows"]


def trend_rows() -> list[dict[str, Any]]:
    """Every trend as plain values."""
    from perfmodel.evidence.published.trends import check_trends

    return [asdict(trend) for trend in check_trends()]


def draw_trends(console: Console) -> None:
    """One line a trend: what was measured, what is computed, and whether they agree."""
    from perfmodel.cli.tell.tables import grid, heading
    from perfmodel.evidence.published.trends import check_trends

    columns = {
        "series": "left", "asked": "left", "published": "left", "computed (combinations)": "left",
        "verdict": "left", "why": "left",
    }  # fmt: skip
    console.print()
    heading(console, "Trends that users measured; what a source leaves open is varied")
    console.print(
        grid(
            columns,
            (
                [one.series, one.question, one.published, one.computed, one.verdict, one.reason]
                for one in check_trends()
            ),
        )
    )
