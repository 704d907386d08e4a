"""Values that break out of careless texts, and shells that say which words they were given."""

import json
import subprocess

SEEN = {
    "spaces": "a b/ c ",
    "single quote": "a/it's",
    "quotes that close": "a/'; touch x; '",
    "double quote": 'a/"; touch x; "',
    "substitution": "a/$(touch x)",
    "closing substitution": "a/'$(touch x)'\"$(touch x)\"",
    "variable": "a/${HOME}$IFS",
    "backticks": "a/`touch x`",
    "semicolon": "a/b; touch x",
    "and": "a/b && touch x",
    "pipe": "a/b | tee x",
    "redirection": "a/b >x 2>x <x",
    "process substitution": "a/<(touch x)",
    "backslash": "a\\b/c\\",
    "escaped quote": "a/\\'\\\"\\u0027",
    "remark": "a/b #c",
    "history": "a/!!",
    "glob": "*/?[a-z]",
    "braces": "a/{b,c}{{7*7}}",
    "percent": "a/%s%PATH%%(x)s",
    "home": "~/x",
    "zsh": "=ls/x",
    "yaml mapping": "a/b: c",
    "yaml list": "[a/b, c]",
    "yaml tag": "!!python/object/apply:os.system ['touch x']",
    "yaml anchor": "&a/b *a",
    "unicode": "ü/模型",
    "emoji": "a/😀",
    "html": "a/</pre><script>",
}
"""Names and paths that can be: handed on byte for byte."""
WORDS = ("yes", "no", "null", "1e3", "1_000", "0x10", "1.5", "2026-11-28", "true", ".inf", "True", "NaN")
"""Words that YAML takes for something else."""
UNSEEN = {
    "newline": "a/b\ntouch x",
    "return": "a/b\rtouch x",
    "tab": "a/\tb",
    "nul": "a/\0b",
    "escape": "a/\x1b[31m",
    "delete": "a/\x7f",
    "next line": "a/\x85b",
    "right to left": "a/\u202egpj.x",
    "isolate": "a/\u2066b",
    "zero width": "a/\u200bb",
    "no-break space": "a/\xa0b",
    "line separator": "a/\u2028b",
    "half a pair": "a/\ud800",
    "no utf-8": "a/\udcff",
}
FLAGS = {"flag": "-x/y", "long flag": "--model=a/b", "yaml item": "- a/b"}
EMPTY = {"nothing": "", "blank": "  "}
REFUSED = UNSEEN | FLAGS | EMPTY


def words_of(lines, folder, shell="bash"):
    """The words that a program is given by each line of a shell, which runs in a folder.

    The names of what the lines left in the folder come second.
    """
    script = "stub() { printf '%s\\0' \"$#\" \"$@\"; }\n"
    script += "".join(f"stub {line.rstrip()}\n" for line in lines)
    ran = subprocess.run([shell, "-c", script], cwd=folder, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    said = iter(ran.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1])
    words = [[next(said) for _ in range(int(next(said)))] for _ in lines]
    assert next(said, None) is None
    return words, sorted(path.name for path in folder.iterdir())


def leaves(value):
    """A value of JSON or YAML as a flat list of keys and leaves; JSON inside of a text is read too."""
    if isinstance(value, dict):
        return ["{", *(leaf for key, item in value.items() for leaf in (str(key), *leaves(item))), "}"]
    if isinstance(value, list):
        return ["[", *(leaf for item in value for leaf in leaves(item)), "]"]
    if isinstance(value, str) and value.startswith('{"'):
        return leaves(json.loads(value))
    return [value]
