"""Nothing but the one writer opens a file to write."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import perfmodel

ROOT = Path(perfmodel.__file__).parents[1]
PRODUCT = sorted(path for folder in ("perfmodel", "strategies") for path in (ROOT / folder).rglob("*.py"))
THE_WRITER = {"perfmodel/files/writing.py", "perfmodel/files/lock.py"}
ALLOWED = {
    ("perfmodel/files/checkpoint.py", "write_bytes"): "into the file that `replacing` yields",
    ("perfmodel/files/checkpoint.py", "savez"): "into a stream that is open",
    ("perfmodel/files/checkpoint.py", "open"): "the file that `replacing` yields",
    ("perfmodel/files/csv_text.py", "to_json"): "into memory",
    ("perfmodel/files/npz.py", "open"): "the file that `replacing` yields, and columns beside it",
    ("perfmodel/files/npz.py", "ZipFile"): "the file that `replacing` yields",
    ("perfmodel/files/parquet.py", "open"): "the file that `replacing` yields",
    ("perfmodel/files/checkpoint.py", "mkdir"): "the folder of pieces, under its lock",
    ("perfmodel/plots/style.py", "savefig"): "into memory",
    ("perfmodel/planning/sweep_formats.py", "open"): "the file that `replacing` yields",
    ("perfmodel/cli/tell/output.py", "open"): "the null device, in place of a lost stdout",
}  # fmt: skip
WRITERS = {
    "write_text", "write_bytes", "savefig", "save", "savez", "savez_compressed", "savetxt", "tofile",
    "to_csv", "to_parquet", "to_json", "to_excel", "to_pickle", "to_html", "open_memmap", "memmap", "mkstemp",
    "mkdtemp", "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "copyfile", "copy2", "copytree",
    "move", "ParquetWriter", "mkdir", "makedirs", "touch", "truncate", "symlink", "link", "hardlink_to",
    "symlink_to",
}  # fmt: skip
OWN_NAMES = {"save", "to_csv"}
"""What functions of the product are called as well, which go through the writer or return a text."""
OPENERS = {"open", "ZipFile", "GzipFile", "fdopen"}


def writes_in(source):
    """Names of the calls of a module that could write a file."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        is_method = isinstance(node.func, ast.Attribute)
        if name in WRITERS and (name not in OWN_NAMES or (is_method and node.args)):
            yield name
        elif name in OPENERS:
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            modes = [text for text in texts if isinstance(text, str) and set(text) <= set("rwaxbt+") and text]
            flags = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
            if any(set(mode) & set("wax+") for mode in modes) or flags & {"O_WRONLY", "O_RDWR", "O_CREAT"}:
                yield name


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_opens_a_file_to_write(path):
    name = path.relative_to(ROOT).as_posix()
    if name not in THE_WRITER:
        calls = writes_in(path.read_text(encoding="utf-8"))
        assert [call for call in calls if (name, call) not in ALLOWED] == []


@pytest.mark.parametrize(
    "source",
    ["open(p, 'w')", "p.open('ab')", "p.write_text('x')", "open(p, mode='x')", "frame.to_csv(p)",
     "os.open(p, os.O_WRONLY | os.O_CREAT)", "np.save(p, a)", "zipfile.ZipFile(p, 'w')", "p.open('r+b')"],
)  # fmt: skip
def test_a_module_that_did_would_be_found(source):
    assert list(writes_in(source))


@pytest.mark.parametrize("source", ["open(p)", "open(p, 'rb')", "p.open()", "rows.to_csv()", "p.read_text()"])
def test_a_module_that_reads_is_none(source):
    assert not list(writes_in(source))
