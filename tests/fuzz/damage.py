"""Damage to a valid file: bytes, lines, cells, numbers, places of its JSON; the same for a seed."""

from __future__ import annotations

import json
import math
import re
from random import Random
from typing import Any

__all__ = ["damaged"]

NUMBERS = (
    "0", "-1", "1", "1e30", "-1e30", "1e300", "1e999", "1e-300", "nan", "inf", "-inf", "NaN", "Infinity",
    "0.5", "1.5", "1e18", "9" * 40, "9" * 5000, "0x10", "1_000", "\uff11", "\u0663", "true", "null", "",
    "1:30", "0.6000.6000.600", "1,000",
)  # fmt: skip
SIGNS = (
    "\x00", "\x07", "\x0b", "\x0c", "\x1b[31m", "\x1b]0;x\x07", "\x7f", "\x85", "\x9b2J", "\u00ad",
    "\u200b", "\u200f", "\u202e", "\u2028", "\u2066", "\ufeff", "\ufffe", "\ud800", "💥", "é", "大", "\r",
    "\t", "'", '"', "`", "$(x)", "=1+1", "@", "&a ", "*a", "!!x",
)  # fmt: skip
HEADS = (
    b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b\x08\x00" + bytes(16), b"PK\x03\x04" + bytes(16), b"\x00",
    b"\xff" * 20, b"{}", b"[]", b"", b"\n", b"\r\n", b"-", b"---\n", b'"x"', b"null", b",", b"0",
    b"\x89PNG\r\n\x1a\n", b"%PDF-1.7", b"\x7fELF" + bytes(12),
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, 1.5, -0.5, 1e30, -1e30, 1e300, math.nan, math.inf, -math.inf,
    10**30, 10**400, "x", "", "1", [], {}, [1], [[]], {"a": 1}, "\x1b[31m", "a\u202eb", "'; x", "x" * 5000,
)  # fmt: skip


def damaged(content: bytes, draw: Random) -> tuple[bytes, str]:
    """Return a damaged copy of a file and what was done to it."""
    done: list[str] = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        kinds = [*_OF_TEXT, _bytes, _whole]
        if content[:1] in b"{[" and draw.random() < 0.7:
            kinds = [_json]
        elif b"," in content[:200] and draw.random() < 0.5:
            kinds = [_cell]
        content, what = draw.choice(kinds)(content, draw)
        done.append(what)
    if draw.random() < 0.02:
        content, what = _encoded(content, draw)
        done.append(what)
    return content, "; ".join(done)


def _bytes(content: bytes, draw: Random) -> tuple[bytes, str]:
    flipped = bytearray(content or b"x")
    for _ in range(draw.choice((1, 1, 2, 20))):
        flipped[draw.randrange(len(flipped))] = draw.randrange(256)
    return bytes(flipped), "flip bytes"


def _whole(content: bytes, draw: Random) -> tuple[bytes, str]:
    if draw.random() < 0.7:
        cut = draw.randrange(len(content) + 1)
        return (content[:cut], "cut") if draw.random() < 0.7 else (content[cut:], "cut head")
    head = draw.choice(HEADS)
    return head + (content if draw.random() < 0.3 else b""), f"head {head[:8]!r}"


def _encoded(content: bytes, draw: Random) -> tuple[bytes, str]:
    encoding = draw.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "cp037", "utf-8-sig"))
    text = content.decode("utf-8", "replace")
    return text.encode(encoding, "replace"), f"as {encoding}"


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _content(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass" if re.search("[\ud800-\udbff]", text) else "surrogateescape")


def _number(content: bytes, draw: Random) -> tuple[bytes, str]:
    text = _text(content)
    places = list(re.finditer(r"-?\d+(\.\d+)?(e-?\d+)?", text))
    if not places:
        return _sign(content, draw)
    place, number = draw.choice(places), draw.choice((*NUMBERS, "scaled", "scaled"))
    if number == "scaled":
        number = repr(float(place.group()) * draw.choice((-1.0, 0.1, 10.0, 1000.0)))
    return _content(text[: place.start()] + number + text[place.end() :]), f"{place.group()} to {number[:12]}"


def _sign(content: bytes, draw: Random) -> tuple[bytes, str]:
    text, sign = _text(content), draw.choice(SIGNS)
    at = draw.randrange(len(text) + 1)
    return _content_of(text[:at], sign, text[at:]), f"insert {sign!r}"


def _content_of(*pieces: str) -> bytes:
    """Join texts, of which some hold bytes that are none and some half pairs."""
    return b"".join(map(_content, pieces))


def _lines(content: bytes, draw: Random) -> tuple[bytes, str]:
    lines = content.splitlines(keepends=True)
    if not lines:
        return b"\n", "a line"
    at, kind = draw.randrange(len(lines)), draw.choice(("drop", "double", "swap", "join", "ends", "indent"))
    if kind == "drop":
        del lines[at : at + draw.choice((1, 1, 3))]
    elif kind == "double":
        lines[at:at] = [lines[at]] * draw.choice((1, 1, 3))
    elif kind == "swap":
        other = draw.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "join":
        lines[at] = lines[at].rstrip(b"\r\n")
    elif kind == "ends":
        lines = [line.rstrip(b"\r\n") + draw.choice((b"\r", b"\r\n", b"\n\n")) for line in lines]
    else:
        lines[at] = draw.choice((b" ", b"    ", b"\t", "\u00a0".encode())) + lines[at]
    return b"".join(lines), f"{kind} lines"


def _cell(content: bytes, draw: Random) -> tuple[bytes, str]:
    lines = content.split(b"\n")
    at = draw.randrange(len(lines))
    cells = lines[at].split(b",")
    place = draw.randrange(len(cells))
    value = draw.choice((*NUMBERS, *SIGNS, "x", "none", "llama-3.1-8b"))
    cells[place] = _content(value) if draw.random() < 0.9 else cells[place] + b"," + _content(value)
    lines[at] = b",".join(cells)
    return b"\n".join(lines), f"line {at + 1}, cell {place + 1} = {value[:12]!r}"


def _key(content: bytes, draw: Random) -> tuple[bytes, str]:
    text = _text(content)
    places = list(re.finditer(r"[A-Za-z_][\w-]*(?=\"?\s?[:=])", text))
    if not places:
        return _number(content, draw)
    place = draw.choice(places)
    word = place.group()
    at = draw.randrange(len(word))
    word = word[:at] + draw.choice(("x", "_", " ", "A", *SIGNS[:8])) + word[at + draw.choice((0, 1)) :]
    return _content_of(text[: place.start()], word, text[place.end() :]), f"key {place.group()} to {word!r}"


def _json(content: bytes, draw: Random) -> tuple[bytes, str]:
    """Change one place of a JSON text that still is one."""
    try:
        body = json.loads(content)
    except ValueError:
        return _number(content, draw)
    places = list(_places(body, ()))
    if not places:
        return _whole(content, draw)
    place = draw.choice(places)
    parent = body
    for step in place[:-1]:
        parent = parent[step]
    last, kind = (
        place[-1],
        draw.choice(("value", "value", "value", "scaled", "drop", "more", "twice", "turned", "deep")),
    )
    value, where = parent[last], ".".join(map(str, place))
    if kind == "scaled" and isinstance(value, (int, float)) and not isinstance(value, bool):
        parent[last] = value * draw.choice((-1, 0.1, 10, 1000))
    elif kind == "drop":
        del parent[last]
    elif kind == "more" and isinstance(value, list):
        parent[last] = [*value, *value[:2], draw.choice(VALUES)]
    elif kind == "turned" and isinstance(value, list):
        parent[last] = value[::-1] if draw.random() < 0.7 else []
    elif kind == "deep":
        parent[last] = _nested(value, draw.choice((2, 30, 900)))
    elif kind == "twice" and isinstance(parent, dict):
        text = json.dumps(body, indent=1)
        key = json.dumps(last)
        return text.replace(
            f"{key}:", f"{key}: {draw.choice(('1', '-1', 'null'))}, {key}:", 1
        ).encode(), f"{where} twice"
    else:
        parent[last] = draw.choice(VALUES)
        kind = f"= {str(parent[last])[:12]!r}"
    return json.dumps(body, indent=1).encode(), f"{where} {kind}"


def _nested(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def _places(value: Any, at: tuple[Any, ...]) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        if len(at) < 8:
            yield from _places(item, (*at, key))


_OF_TEXT = (_number, _number, _number, _sign, _lines, _key)
