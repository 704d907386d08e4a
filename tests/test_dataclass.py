"""Dataclasses made late are those of Python: every law is asked of both."""

import copy
import dataclasses
import inspect
import pickle
from dataclasses import FrozenInstanceError, field

import pytest

from perfmodel.dataclass import dataclass

BOTH = pytest.mark.parametrize("decorate", [dataclass, dataclasses.dataclass])


def classes(decorate):
    """Return a class with every sort of field, one that inherits from it, and one by name only."""

    @decorate(frozen=True)
    class Noun:
        """A noun."""

        size: int
        label: str = "none"
        parts: list[int] = field(default_factory=list, hash=False)
        seen: int = field(default=3, compare=False, repr=False)
        twice: int = field(init=False, compare=False)
        own: tuple[int, ...] = field(default_factory=tuple, init=False)

        def __post_init__(self):
            object.__setattr__(self, "twice", 2 * self.size)

    @decorate(frozen=True, kw_only=True)
    class Longer(Noun):
        """A noun with more."""

        more: float = 0.5
        needed: str

    @decorate(frozen=True, eq=False)
    class Itself:
        """Equal to nothing else."""

        size: int = 1

    return Noun, Longer, Itself


@BOTH
def test_fields_are_taken_by_place_and_by_name_and_filled_in(decorate):
    noun, longer, _ = classes(decorate)
    made = noun(4, parts=[1])
    assert (made.size, made.label, made.parts, made.seen, made.twice, made.own) == (4, "none", [1], 3, 8, ())
    assert noun(1).parts is not noun(1).parts
    assert dataclasses.asdict(longer(2, "x", needed="y"))["needed"] == "y"
    for wrong in ({}, {"size": 1, "other": 2}, {"size": 1, "twice": 2}):
        with pytest.raises(TypeError):
            noun(**wrong)
    with pytest.raises(TypeError):
        longer(1)


@BOTH
def test_what_is_compared_is_equal_hashed_and_shown(decorate):
    noun, longer, itself = classes(decorate)
    assert noun(4, parts=[1]) == noun(4, parts=[1], seen=9) != noun(4)
    assert noun(1) != longer(1, needed="") and noun(1) != (1, "none")
    assert hash(noun(4, parts=[1])) == hash(noun(4, seen=2))
    assert itself() != itself() and len({itself(), itself()}) == 2
    shown = "classes.<locals>.Noun(size=4, label='none', parts=[], twice=8, own=())"
    assert repr(noun(4)) == shown


@BOTH
def test_nothing_changes_what_was_made(decorate):
    noun, longer, _ = classes(decorate)
    for made in (noun(1), longer(1, needed="")):
        with pytest.raises(FrozenInstanceError, match="cannot assign to field 'size'"):
            made.size = 2
        with pytest.raises(FrozenInstanceError, match="cannot delete field 'size'"):
            del made.size
        with pytest.raises(FrozenInstanceError):
            made.unknown = 2


@BOTH
def test_it_is_replaced_copied_inspected_and_matched(decorate):
    noun, longer, _ = classes(decorate)
    assert dataclasses.replace(noun(1), size=5).twice == 10
    assert copy.deepcopy(noun(1, parts=[2])) == noun(1, parts=[2])
    assert list(inspect.signature(noun).parameters) == ["size", "label", "parts", "seen"]
    assert inspect.signature(longer).parameters["needed"].kind is inspect.Parameter.KEYWORD_ONLY
    assert noun.__match_args__ == ("size", "label", "parts", "seen")
    match noun(7, "x"):
        case noun(size, label):
            assert (size, label) == (7, "x")


@BOTH
def test_what_a_class_says_itself_stays(decorate):
    @decorate(frozen=True)
    class Noun:
        """A noun that says what equals and how it is shown."""

        size: int

        def __eq__(self, other):
            return self.size % 2 == other.size % 2

        def __repr__(self):
            return "noun"

    @decorate(frozen=True)
    class Hashed:
        """A noun that hashes itself."""

        size: int

        def __hash__(self):
            return 7

    assert Noun(1) == Noun(3) and repr(Noun(1)) == "noun"
    assert hash(Noun(1)) == hash((1,))
    assert hash(Hashed(1)) == 7


@BOTH
def test_pythons_own_dataclass_may_inherit_and_be_inherited_from(decorate):
    noun, _, _ = classes(decorate)

    @dataclasses.dataclass(frozen=True)
    class Further(noun):
        """Of both."""

        further: int = 1

    @decorate(frozen=True)
    class Last(Further):
        """Of all."""

        last: int = 2

    assert (Further(1).further, Last(1).last, Last(3).twice) == (1, 2, 6)
    with pytest.raises(FrozenInstanceError):
        Last(1).size = 2
    with pytest.raises(TypeError, match="non-frozen"):
        dataclasses.dataclass(type("Loose", (noun,), {"__annotations__": {}}))


@BOTH
def test_a_class_without_dataclass_may_inherit_and_begin_itself(decorate):
    noun, _, _ = classes(decorate)

    class Plain(noun):
        def __init__(self):
            super().__init__(3)
            self.free = True

    assert Plain().twice == 6 and Plain().free
    with pytest.raises(FrozenInstanceError):
        Plain().size = 4


def test_it_travels_between_processes():
    from perfmodel import Workload

    assert pickle.loads(pickle.dumps(Workload([1], [2]))) == Workload([1], [2])


def test_one_whose_fields_change_is_refused():
    with pytest.raises(TypeError, match="fields change"):
        dataclass(frozen=False)
