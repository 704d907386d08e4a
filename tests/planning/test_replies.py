"""Only what the same build computed is believed, and addresses that no scheduler has are refused."""

import pickle
import sys
from dataclasses import replace

import pytest

from perfmodel.errors import SpecError
from perfmodel.files.build import build_here
from perfmodel.planning.cluster import checked_address
from perfmodel.planning.executors import open_executor
from perfmodel.planning.replies import Reply, answer, believed, stranger

HERE = build_here()


def squared(number):
    return number * number


def failing(number):
    raise SpecError.single("", "work", f"refused {number}")


def short_of_memory():
    raise MemoryError


def test_a_build_has_a_value_for_everything_and_is_the_same_in_another_process():
    assert all(vars(HERE).values())
    with open_executor("local:2") as pool:
        assert list(pool.map(squared, range(4))) == [0, 1, 4, 9]
        assert next(pool.map(build_of, [0])) == HERE


def build_of(_):
    return build_here()


def test_work_of_the_same_build_is_believed_and_its_failure_raised():
    assert believed(answer(HERE, squared, 3), HERE) == 9
    reply = pickle.loads(pickle.dumps(answer(HERE, failing, 3)))
    with pytest.raises(SpecError, match="refused 3"):
        believed(reply, HERE)
    with pytest.raises(MemoryError):
        answer(HERE, short_of_memory)


@pytest.mark.parametrize("field", list(vars(HERE)))
def test_another_build_computes_nothing_and_its_results_are_not_believed(field):
    other = replace(HERE, **{field: "another"})
    assert answer(other, failing, 1) == Reply(HERE, ""), "nothing was begun"
    with pytest.raises(SpecError, match=r"worker at tcp://h:1 has .* another, here"):
        believed(Reply(other, "tcp://h:1", 9), HERE)
    assert len(HERE.differences(other)) == 1


@pytest.mark.parametrize("answered", [9, None, Reply("0.0.9", ""), ImportError("perfmodel")])
def test_what_does_not_say_who_computed_it_is_not_believed(answered):
    with pytest.raises(SpecError, match=r"does not say which|or an older one"):
        believed(answered, HERE)
    assert "older one" in str(stranger(HERE, "tcp://h:1", ImportError("perfmodel")))


@pytest.mark.parametrize("address", ["tcp://h:8786", "h:1", "tls://h.example:65535", "tcp://[::1]:9"])
def test_an_address_is_completed(address):
    assert checked_address(address) == (address if "://" in address else f"tcp://{address}")


@pytest.mark.parametrize(
    "address",
    [
        "http://h:1", "inproc://x", "/a/path", "x" * 300, "tcp://h", "ucx://h:9", "ws://h:9", "tcp://h:0",
        "tcp://h:65536", "tcp://:1", "tcp://a b:1", "tcp://h:1/x", "tcp://u@h:1", "tcp://h:1\n", "tcp://\x1b:1",
        "tcp://tls://h:1", "tcp://::1:9", "tcp://h:-1",
    ],
)  # fmt: skip
def test_an_address_that_no_scheduler_has_is_refused_without_dask(address, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SpecError, match="found the address") as refusal:
        checked_address(address)
    assert str(refusal.value).isprintable()
