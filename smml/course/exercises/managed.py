"""Exercises of 04_cost_optimization/06_managed_or_self_managed."""

from collections.abc import Callable

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close

CASES = ((0.2, 0.25, 730, 80), (1.0, 1.4, 730, 50), (1.0, 1.4, 40, 100), (32.8, 37.7, 300, 120))


@exercise(
    lambda rented, managed, hours, pay: (managed - rented) * hours,
    lambda rented, managed, hours, pay: managed * hours / pay,
    lambda rented, managed, hours, pay: (managed / rented) * hours / pay,
    lambda rented, managed, hours, pay: (managed - rented) * 730 / pay,
)
def hours_to_save(answer: Callable[[float, float, float, float], float]) -> str:
    """Hours of work a month that a managed machine must save to be no dearer than the rented one."""
    for rented, managed, hours, pay in CASES:
        expect_close(
            f"hours_to_save({rented:g}, {managed:g}, {hours:g}, {pay:g})",
            attempt(answer, rented, managed, hours, pay),
            (managed - rented) * hours / pay,
            "The machine itself is paid either way. What does managed cost beyond it in these hours, and how much work "
            "does that pay?",
        )
    return "the premium of the hours that it is up, in hours of pay"


# Memory of the device, weights, bytes of keys and values a token, tokens of a sequence.
MEMORIES = (
    (24e9, 16e9, 131_072, 8_192),
    (24e9, 16e9, 131_072, 131_072),
    (80e9, 16e9, 131_072, 32_768),
    (24e9, 141e9, 327_680, 1_024),
)


@exercise(
    lambda memory, weights, token, context: memory // (token * context),
    lambda memory, weights, token, context: (memory - weights) // (token * context),
    lambda memory, weights, token, context: max(0, (memory - weights) / (token * context)),
    lambda memory, weights, token, context: max(0, (memory - weights) // token),
)
def most_sequences(answer: Callable[[float, float, float, float], float]) -> str:
    """Whole sequences whose keys and values fit beside the weights; none where the weights do not."""
    for memory, weights, token, context in MEMORIES:
        given = attempt(answer, memory, weights, token, context)
        right = max(0, int((memory - weights) // (token * context)))
        if given != right:
            raise WrongAnswer(
                f"most_sequences({memory:g}, {weights:g}, {token:,}, {context:,}) is {right}, not {given!r}. Weights come "
                "first; a sequence is served whole or not at all; and less than nothing is nothing."
            )
    return "what the weights leave, over one whole sequence, rounded down"
