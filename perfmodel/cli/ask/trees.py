"""Trees that people name: --tree, or steps, topk and nodes as SGLang's own flags say them."""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.cli.ask.reading import Reading
from perfmodel.errors import SpecError
from perfmodel.files.units import parse_count
from strategies.base import Tree

__all__ = ["USUAL", "read_trees"]

USUAL = (Tree(3, 2, 6), Tree(5, 4, 8), Tree(4, 4, 16), Tree(5, 8, 32), Tree(5, 8, 64), Tree(8, 10, 60))
"""Trees that are served: SGLang's default for most models (5,4,8), those of its examples, and EAGLE-3's."""
FORM = "Write STEPS,TOPK,NODES such as 5,4,16, several with ; between, `chain` or `usual`"


def read_trees(
    reading: Reading, tree: str | None, topk: int | None, nodes: int | None, gammas: Sequence[int] | None
) -> tuple[list[Tree], bool]:
    """Return the trees to search, and whether chains are searched too.

    Parameters
    ----------
    tree : what --tree says.
    topk, nodes : what --topk and --nodes say, of trees whose steps are `gammas`. [tokens]
    gammas : the speculation lengths that were named, if any. [tokens]
    """
    if tree is not None and topk is not None:
        reading.read("topk", _refuse_both, str(topk))
    if tree is not None:
        return reading.read("tree", _parse, tree) or ([], True)
    if topk is None and nodes is not None:
        reading.read("nodes", _refuse_alone, str(nodes))
    if topk is None or topk == 1:
        return [], True
    return reading.read("topk", lambda _: (_shape(topk, nodes, gammas), False), str(topk)) or ([], True)


def _parse(text: str) -> tuple[list[Tree], bool]:
    trees: list[Tree] = []
    chains = False
    for part in filter(None, (piece.strip().lower() for piece in text.split(";"))):
        if part == "chain":
            chains = True
        elif part == "usual":
            trees += USUAL
        else:
            trees.append(_tree(*_numbers(part)))
    if not trees:
        raise SpecError.single("", "", f"found {text[:60]!r}: no tree is named", FORM)
    return list(dict.fromkeys(trees)), chains


def _numbers(text: str) -> tuple[int, int, int]:
    try:
        steps, topk, nodes = (parse_count(number) for number in text.split(","))
    except (SpecError, ValueError):
        raise SpecError.single("", "", f"found {text[:60]!r}", FORM) from None
    return steps, topk, nodes


def _shape(topk: int, nodes: int | None, gammas: Sequence[int] | None) -> list[Tree]:
    """Return one tree for every length that was named. Raises SpecError where one of the three is missing."""
    steps = [gamma for gamma in gammas or () if gamma > 0]
    if nodes is None or not steps:
        raise SpecError.single(
            "", "", f"{topk} is of a tree: its steps or its nodes are not named",
            "Name --gamma (steps), --topk and --nodes together, or --tree STEPS,TOPK,NODES",
        )  # fmt: skip
    return [_tree(each, topk, nodes) for each in steps]


def _refuse_both(text: str) -> None:
    raise SpecError.single("", "", f"found {text} beside --tree", "Give one of the two")


def _refuse_alone(text: str) -> None:
    raise SpecError.single("", "", f"{text} is of a tree whose --topk is not named", "Name --topk, or --tree")


def _tree(steps: int, topk: int, nodes: int) -> Tree:
    try:
        return Tree(steps, topk, nodes)
    except ValueError as fault:
        raise SpecError.single("", "", str(fault), FORM) from None
