"""The lines of a text one by one, so that no file and no endless line has to be held whole."""

from __future__ import annotations

import io
from typing import BinaryIO

from perfmodel.errors import SpecError
from perfmodel.files.opening import text_of

__all__ = ["LONGEST_LINE", "Lines"]

LONGEST_LINE = 1_000_000
"""Of a longer line no more than that is kept. [characters]"""
_MOST_EMPTY = 1_000_000


class Lines:
    """The lines of a stream with their ends, within a block, and those that follow without taking them.

    Bytes that are no UTF-8 become halves of character pairs, so that only their line is spoiled. Of a
    line longer than `LONGEST_LINE` that many characters and one more are given, and the rest is passed over.

    Parameters
    ----------
    stream : what is read, from where it stands.
    file : what messages call it.
    number, empty : of the next line, from 1 on, and how many empty ones were left behind before it.

    Attributes
    ----------
    number, empty : as they are by now.
    characters : how many the lines before the next have.

    Raises
    ------
    SpecError
        Where it is UTF-16.
    """

    def __init__(self, stream: BinaryIO, file: str, *, number: int = 1, empty: int = 0) -> None:
        self.number, self.empty, self.characters = number, empty, 0
        self._starts = number == 1  # only there stands the mark of an encoding
        encoding = "utf-8-sig" if self._starts else "utf-8"
        self._text = io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")
        self._ahead: list[str] = []
        self._cut = False
        self._file = file

    def __enter__(self) -> Lines:
        if not self._starts:
            return self
        try:
            start = self.ahead()[:2].encode("utf-8", "surrogateescape")
            text_of(start, self._file, errors="ignore")  # which refuses UTF-16
        except BaseException:
            self._text.detach()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._text.detach()  # whoever opened the stream closes it

    def ahead(self, further: int = 0) -> str:
        """Return the next line, or one further on; empty where there is none."""
        if further < len(self._ahead):
            return self._ahead[further]
        while len(self._ahead) <= further:
            line = self._read()
            if not line:
                return ""
            self._ahead.append(line)
        return self._ahead[further]

    def next(self, count: int) -> str:
        """Return so many lines as one text without taking them."""
        return "".join([self.ahead(further) for further in range(count)])

    def skip_empty(self) -> str:
        """Leave empty lines behind and return the next one; SpecError where far too many are empty."""
        while (line := self.ahead()) and line.isspace():
            self.take()
            self.empty += 1
            if self.empty > _MOST_EMPTY:
                problem = f"more than {_MOST_EMPTY:,} lines are empty"
                raise SpecError.single(self._file, "", problem, "Leave them out", line=self.number)
        return line

    def take(self, count: int = 1) -> str:
        """Leave so many lines behind and return them as one text; shorter where the file ends."""
        taken = self.ahead() if count == 1 else self.next(count)
        del self._ahead[:count]
        self.number += count
        self.characters += len(taken)
        return taken

    def _read(self) -> str:
        while self._cut:
            rest = self._text.readline(LONGEST_LINE)
            self._cut = bool(rest) and rest[-1] not in "\r\n"
        line = self._text.readline(LONGEST_LINE + 1)
        self._cut = len(line) > LONGEST_LINE and line[-1] not in "\r\n"
        return line
