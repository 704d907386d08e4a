"""What pieces of work have in common: it travels once to each worker, and lost workers get it again."""

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from perfmodel.planning import common as commons
from perfmodel.planning.common import Arrived, Common
from perfmodel.planning.executors import in_order, open_executor


class Counted:
    """A value that writes down which process unpickled it."""

    def __init__(self, log, addend=100):
        self.log, self.addend = str(log), addend

    def __setstate__(self, state):
        self.__dict__.update(state)
        with Path(self.log).open("a") as log:
            log.write(f"{os.getpid()}\n")


def added(counted, number):
    time.sleep(0.005)
    return counted.addend + number, os.getpid()


def added_unless_killed(counted, number):
    """Add, and end the process that does so the first time that it is 7."""
    marked = Path(counted.log + ".killed")
    if number == 7 and not marked.exists():
        marked.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return added(counted, number)


def which_disk(_, __):
    raise FileNotFoundError("of the work")


def who_read(counted):
    return Path(counted.log).read_text().split()


@pytest.fixture(scope="module")
def pool():
    with open_executor("local:2") as two:
        yield two


def test_each_worker_unpickles_it_once_and_order_is_kept(tmp_path, pool):
    counted = Counted(tmp_path / "log")
    done = list(in_order(pool, added, range(60), common=counted))
    assert [total for total, _ in done] == list(range(100, 160))
    workers = {str(worker) for _, worker in done}
    assert str(os.getpid()) not in workers
    assert sorted(who_read(counted)) == sorted(workers)
    again = list(in_order(pool, added, range(40), common=Counted(tmp_path / "log")))
    assert [total for total, _ in again] == list(range(100, 140))
    assert len(who_read(counted)) <= 2, "the same value does not travel again"


def test_a_worker_that_is_lost_is_followed_by_one_that_asks_again(tmp_path, pool):
    counted = Counted(tmp_path / "log")
    done = list(in_order(pool, added_unless_killed, range(60), common=counted))
    assert [total for total, _ in done] == list(range(100, 160))
    assert len(who_read(counted)) == len(set(who_read(counted))) >= 2


def test_two_pieces_of_work_at_a_time_have_each_their_own(tmp_path, pool):
    two = [Counted(tmp_path / "log", addend) for addend in (100, 200)]
    coming = zip(*(in_order(pool, added, range(40), common=value, in_flight=4) for value in two), strict=True)
    assert [(one[0], other[0]) for one, other in coming] == [(100 + n, 200 + n) for n in range(40)]


def test_a_failure_of_the_work_is_its_own_and_so_is_one_of_reading_what_it_needs(pool):
    with pytest.raises(FileNotFoundError, match="of the work"):
        list(in_order(pool, which_disk, range(3), common=1))
    with pytest.raises(ZeroDivisionError):
        list(in_order(pool, added, range(3), common=Unreadable()))
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        list(in_order(pool, added, range(3), common=lambda: 0))


class Unreadable:
    def __reduce__(self):
        return divmod, (1, 0)


def test_an_executor_of_processes_unpickles_it_once_in_each(tmp_path):
    counted = Counted(tmp_path / "log")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        done = list(in_order(processes, added, range(40), common=counted))
    assert [total for total, _ in done] == list(range(100, 140))
    assert sorted(who_read(counted)) == sorted({str(worker) for _, worker in done})


def test_threads_and_this_process_take_it_as_it_is(tmp_path):
    counted = Counted(tmp_path / "log")
    counted.hook = lambda: "cannot be pickled"
    with ThreadPoolExecutor(2) as threads:
        for executor in (threads, None):
            done = list(in_order(executor, added, range(5), common=counted))
            assert [total for total, _ in done] == list(range(100, 105))
    assert not (tmp_path / "log").exists()


def test_a_process_keeps_little_of_what_it_has_read(monkeypatch):
    monkeypatch.setattr(commons, "_kept", {})
    for number in range(5):
        assert pickle.loads(pickle.dumps(Common([number]))).value == [number]
    assert list(commons._kept.values()) == [[3], [4]]
    with pytest.raises(LookupError, match="nobody to ask"):
        _ = Arrived("absent").value


def test_processes_that_do_no_work_are_imported_by_one_and_end_with_the_command():
    code = (
        "from perfmodel.planning.executors import begin_workers; import sys;"
        "[begin_workers(text) for text in ('local:many', 'local:1', None, 'dask:h:1')];"
        "assert 'perfmodel.files.build' not in sys.modules; begin_workers('local:2')"
    )
    root = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")
def test_workers_are_copies_of_one_process_that_has_imported(pool):
    parents = set(pool.map(imported_before, range(8)))
    assert len({parent for parent, _ in parents}) == 1
    assert all(before for _, before in parents)


def imported_before(_):
    return os.getppid(), "perfmodel.planning.sweep" in sys.modules
