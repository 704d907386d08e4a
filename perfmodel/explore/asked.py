"""What a service is lent by whoever reads questions: the flags, how they are read, what there is to name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from perfmodel.deployment import Deployment
from perfmodel.workload import Workload

__all__ = ["Asked", "Flag", "Front", "Loads", "Question"]


@dataclass(frozen=True)
class Flag:
    """One flag of a question.

    name : its key in a request. spellings : other keys that mean it. kind : of its value: str, int or bool.
    default : where it is absent; None where nothing is. required : whether it may not be.
    least, most : bounds of an int. form : what stands for its value in the help.
    """

    name: str
    spellings: tuple[str, ...]
    kind: type
    default: Any
    required: bool
    help: str
    form: str = ""
    least: int | None = None
    most: int | None = None


class Question(Protocol):
    """A question that the planner can answer; see `perfmodel.plan`."""

    @property
    def deployed(self) -> tuple[Any, Any, Any]:
        """Hardware, target and engine."""

    @property
    def planned(self) -> dict[str, Any]:
        """What `perfmodel.plan` takes beside these and the workload, by name."""

    @property
    def workload(self) -> Workload:
        """The cells."""

    @property
    def deployments(self) -> Sequence[Deployment]:
        """Everything that may serve."""

    @property
    def remarks(self) -> Sequence[str]:
        """What the answer should be read with."""


@dataclass(frozen=True)
class Asked:
    """A question, and what decides: an objective of `perfmodel.plan`, a quantile of acceptance. [1]"""

    question: Question
    objective: str | None
    risk: float | None
    one_deployment: bool


class Loads(Protocol):
    """What names are looked up by."""

    @property
    def model(self) -> Callable[[str], Any]:
        """A model's name to the model."""

    @property
    def hardware(self) -> Callable[[str, str | None], Any]:
        """An accelerator's name to its profile."""

    @property
    def engine(self) -> Callable[[str, str | None], Any]:
        """An engine's name to its overheads."""


@dataclass(frozen=True)
class Front:
    """What reads questions.

    flags : of a question, in their order.
    read : given values by name and what names are looked up by, returns what was asked; SpecError otherwise.
    listed : `models`, `hardware`, `engines` or `strategies` to a line for each that is known by name.
    """

    flags: tuple[Flag, ...]
    read: Callable[[Mapping[str, Any], Loads], Asked]
    listed: Callable[[str], list[dict[str, Any]]]
