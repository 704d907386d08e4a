"""What stands where a file should be is refused by every reader, at once and by name."""

import pytest

from fuzz.inputs import judge_file
from fuzz.readers import READERS
from fuzz.specials import SPECIALS

NO_FILES = (
    "a named pipe", "/dev/zero", "/dev/full", "/dev/null", "a socket", "a link to itself",
    "a link to nothing", "a folder",
)  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_file_is_refused(kind, what, tmp_path):
    path = tmp_path / f"\x1bfile{READERS[kind].ending}"
    SPECIALS[what](path)
    for asked in (False, True):
        verdict = judge_file(kind, path, asked=asked)
        assert verdict.outcome == "refused", verdict
