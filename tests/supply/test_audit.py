"""An audit asks for every pin, and an answer that is missing is not a good one."""

import subprocess
from types import SimpleNamespace

import pytest

from supply import audit
from supply.audit import NONE, NOT_ASKED, SOME, main, rounds

WEAK = '{"dependencies": [{"name": "a", "version": "1", "vulns": [%s]}]}'
PINS = "# head\na==1 ; python_full_version < '3.11'\na==2 ; python_full_version >= '3.11'\nb==3\n"


def test_every_version_of_every_pin_is_asked_for():
    assert rounds(PINS) == [["a==1", "b==3"], ["a==2"]]
    text = audit.CONSTRAINTS.read_text(encoding="utf-8")
    assert sum(map(len, rounds(text))) == sum("==" in line.partition(";")[0] for line in text.splitlines())


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (None, NOT_ASKED),
        ("not json", NOT_ASKED),
        ('{"dependencies": [{"name": "a", "skip_reason": "not on the index"}]}', NOT_ASKED),
        (WEAK % "", NONE),
        (WEAK % '{"id": "X-1", "fix_versions": []}', SOME),
    ],
)
def test_the_exit_code_tells_none_some_and_not_asked_apart(answer, code, monkeypatch, capsys):
    def answered(command, **_):
        if answer is not None:
            with open(command[command.index("--output") + 1], "w", encoding="utf-8") as stream:
                stream.write(answer)
        return SimpleNamespace(returncode=1, stderr="no connection")

    monkeypatch.setattr(subprocess, "run", answered)
    assert main() == code
    assert ("X-1" in capsys.readouterr().out) == (code == SOME)
