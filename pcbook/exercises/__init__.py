"""Exercises that check themselves.

A chapter asks, the reader answers in a cell, and `check("chapter/question", answer)`
says whether it is right, and if not, what to look at. The checks of a chapter stand in
the module of its name here: functions of the answer that raise `NotYet` with a hint, and
return what the right answer teaches.
"""

from importlib import import_module
from pathlib import Path

import numpy as np

from pcbook.core.arguments import checked

_PARTS = {path.stem: path.parent.name for path in Path(__file__).parent.glob("*/[!_]*.py")}


class NotYet(Exception):
    """The answer is not right yet; the message is a hint."""


@checked
def check(exercise: str, answer) -> None:
    """Print whether `answer` is right, with what it teaches or with a hint.

    `exercise` is "chapter/question". An answer that raises an error is not right, and the
    error is shown as the hint. Raises ValueError for an exercise that does not exist.
    """
    print(verdict(exercise, answer)[1])


@checked
def verdict(exercise: str, answer) -> tuple[bool, str]:
    """Whether the answer is right, and the words for it."""
    question = find(exercise)
    if answer is ...:
        return False, "Not yet: put your answer in place of the dots."
    try:
        return True, f"Right. {question(answer)}"
    except NotYet as hint:
        return False, f"Not yet. {hint}"
    except Exception as error:
        return False, f"Not yet: your answer stopped with {type(error).__name__}: {error}"


@checked
def find(exercise: str):
    """The function that checks "chapter/question"."""
    chapter, _, question = exercise.partition("/")
    part = _PARTS.get(chapter)
    check = part and getattr(import_module(f"{__name__}.{part}.{chapter}"), question, None)
    if check is None:
        raise ValueError(f"exercise {exercise!r}: there is none of that name")
    return check


def expect(value, target, hint: str, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Raise `NotYet` with the hint unless `value` has the shape and the numbers of `target`.

    A single number may come in an array or a list of one.
    """
    value, target = np.asarray(value, float), np.asarray(target, float)
    if value.size == target.size == 1:
        value = value.reshape(target.shape)
    if value.shape != target.shape:
        raise NotYet(f"Your answer has the shape {value.shape}: it should be {target.shape}.")
    if not np.allclose(value, target, rtol, atol):
        raise NotYet(hint)


def each(function, values) -> list:
    """`function` of each of the `values`, for an answer that takes one number or an array."""
    return [np.asarray(function(value), float).item() for value in values]
