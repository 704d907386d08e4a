"""Two builds of one tree are the same bytes, whoever builds, where and when."""

import os
import shutil
import sys
import time

import pytest

from supply.wheel import PACKED, ROOT, build


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no umask")
def test_wheels_and_source_distributions_built_twice_are_identical(tmp_path):
    built = []
    for number, (umask, mode) in enumerate([(0o022, 0o644), (0o077, 0o600)]):
        tree = tmp_path / f"tree{number}" / ("deep" * number)
        tree.mkdir(parents=True)
        for name in PACKED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            copy(ROOT / name, tree / name)
        for path in tree.rglob("*"):
            if path.is_file():
                path.chmod(mode)
                os.utime(path, (time.time(), 1e9 + number))
        before = os.umask(umask)
        try:
            built.append(build(tree, tmp_path / f"out{number}", 1_700_000_000))
        finally:
            os.umask(before)
    (sdist, wheel), (other_sdist, other_wheel) = built
    assert wheel.name == other_wheel.name
    assert sdist.name == other_sdist.name
    assert wheel.read_bytes() == other_wheel.read_bytes()
    assert sdist.read_bytes() == other_sdist.read_bytes()
