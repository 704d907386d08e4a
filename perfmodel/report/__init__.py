"""One self-contained page that a recommendation can be read, tried and copied from."""

from __future__ import annotations

import os
from pathlib import Path

from perfmodel.errors import SpecError
from perfmodel.files.writing import write_whole
from perfmodel.report.content import Content, report_content
from perfmodel.report.page import page

__all__ = ["Content", "file_ending", "report_content", "report_html", "write_report"]


def report_html(content: Content) -> str:
    """Return the page of what was priced; it holds plotly.js and fetches nothing.

    Raises
    ------
    SpecError
        When plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as missing:
        from perfmodel.files.extras import missing_extra

        raise missing_extra("report", "plotly", field="report") from missing
    return page(content, get_plotlyjs())


def file_ending(path: str | os.PathLike[str]) -> None:
    """Refuse a file that does not end on .html. Raises SpecError."""
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise SpecError.single(str(path), "", f"the ending is {Path(path).suffix!r}", "Name a file.html")


def write_report(content: Content, path: str | os.PathLike[str]) -> None:
    """Write the page to a file that ends on .html; SpecError where the ending is another one."""
    file_ending(path)
    write_whole(path, report_html(content))
