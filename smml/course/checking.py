"""Exercises: `check(name, answer)` says "not attempted", says "correct", or raises with a hint."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from smml.errors import UserError

PACKAGE = "smml.course.exercises"


class WrongAnswer(AssertionError):
    """The answer was tried and is not right; the message is the hint."""


class NotAttempted(Exception):
    """The stub still stands."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: `judge(answer)` returns what to say when right, raises WrongAnswer with a hint when not.

    `wrong` holds answers that the judge must reject; the test suite proves that it does.
    """

    judge: Callable[[Any], str]
    wrong: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.wrong:
            raise UserError(
                f"exercise {self.judge.__name__} needs at least one wrong answer to prove its check."
            )


def exercise(*wrong: Any) -> Callable[[Callable[[Any], str]], Exercise]:
    """Decorator that makes a judge an Exercise with the wrong answers it must reject."""
    return lambda judge: Exercise(judge, wrong)


def check(name: str, answer: Any) -> None:
    """Judge the answer to exercise "topic.name" and print the verdict; WrongAnswer (with a hint) stops the notebook."""
    try:
        if answer is None or answer is ...:
            raise NotAttempted
        print(f"✔ {name}: {find(name).judge(answer)}")
    except NotAttempted:
        find(name)
        print(f"○ {name}: not attempted. Fill the cell above, run it and this one again.")


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` of the reader; NotAttempted where it is still a stub that returns nothing."""
    if not callable(function):
        raise WrongAnswer(f"a function is expected, not {function!r}: keep the stub's def line.")
    value = function(*arguments)
    if value is None or value is ...:
        raise NotAttempted
    return value


def expect_close(what: str, given: Any, right: float, hint: str, tolerance: float = 0.01) -> None:
    """WrongAnswer with `hint` unless `given` is a number within `tolerance` (relative) of `right`."""
    try:
        number = float(given)
    except (TypeError, ValueError):
        raise WrongAnswer(f"{what} should be a number, not {given!r}. {hint}") from None
    if not abs(number - right) <= tolerance * abs(right):
        raise WrongAnswer(f"{what}: {number:g} is not right. {hint}")


def find(name: str) -> Exercise:
    """The exercise "topic.name", of which only the topic's file is imported; UserError lists what there is."""
    topic = name.partition(".")[0]
    found = of_topic(topic) if topic in topics() else {}
    if name not in found:
        raise UserError(f"no exercise {name!r}; there are: {', '.join(every())}.")
    return found[name]


def every() -> dict[str, Exercise]:
    """All exercises by "topic.name", sorted."""
    return {name: item for topic in topics() for name, item in of_topic(topic).items()}


def topics() -> list[str]:
    """Names of the files of `smml.course.exercises`, sorted."""
    package = import_module(PACKAGE)
    return sorted(module.name for module in iter_modules(package.__path__))


def of_topic(topic: str) -> dict[str, Exercise]:
    """The exercises of one file by "topic.name", sorted."""
    held = sorted(vars(import_module(f"{PACKAGE}.{topic}")).items())
    return {f"{topic}.{name}": item for name, item in held if isinstance(item, Exercise)}
