"""Amounts as people read them: large counts, spans of time, dollars. Pure."""

GIB = 2**30


def count(number: float) -> str:
    """Four digits and T, B, M or k."""
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.4g}{letter}"
    return f"{number:.4g}"


def span(seconds: float) -> str:
    """Three digits and h, min, s or ms."""
    if seconds >= 3600:
        return f"{seconds / 3600:.3g} h"
    if seconds >= 120:
        return f"{seconds / 60:.3g} min"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def usd(amount: float | None) -> str:
    """Whole dollars, with cents below a hundred; "no price given" for None."""
    if amount is None:
        return "no price given"
    return f"{amount:,.0f} USD" if amount >= 100 else f"{amount:,.3g} USD"
