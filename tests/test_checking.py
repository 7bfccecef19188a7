"""Exercises: a stub is not attempted, a right answer passes, each check rejects its wrong ones with a hint."""

import pytest

from smml.course import checking
from smml.course.checking import WrongAnswer, attempt, check, exercise
from smml.errors import UserError

ALL = checking.every()


def test_there_are_exercises():
    assert len(ALL) >= 5


@pytest.mark.parametrize("name", ALL)
def test_every_check_rejects_each_of_its_wrong_answers_with_a_hint(name):
    for wrong in ALL[name].wrong:
        with pytest.raises(WrongAnswer) as caught:
            check(name, wrong)
        assert len(str(caught.value)) > 40, "a hint says more than 'wrong'"


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("stub", [None, ..., lambda *_: None, lambda *_: ...])
def test_an_untouched_stub_is_not_attempted_and_does_not_raise(name, stub, capsys):
    check(name, stub)
    assert "not attempted" in capsys.readouterr().out


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("nonsense", [42, "text", lambda *_: "text", lambda *_: float("nan")])
def test_nonsense_is_a_wrong_answer_not_a_crash(name, nonsense):
    with pytest.raises(WrongAnswer):
        check(name, nonsense)


def test_an_unknown_exercise_lists_what_there_is():
    with pytest.raises(UserError, match=r"roofline\.smallest_square"):
        check("roofline.nothing", 1)
    with pytest.raises(UserError, match="no exercise"):
        check("roofline.nothing", None)


def test_an_exercise_without_a_wrong_answer_is_refused():
    with pytest.raises(UserError, match="at least one wrong answer"):
        exercise()(lambda answer: "right")


def test_attempt_hands_the_readers_own_error_through():
    def broken(x):
        return x / 0

    with pytest.raises(ZeroDivisionError):
        attempt(broken, 1)
