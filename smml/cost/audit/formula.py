"""Formulas of a case, evaluated by walking their syntax tree: numbers, names, arithmetic, eight functions, units checked.

Nothing of the text is ever executed. Length, number of parts, depth and exponents are bounded before and while walking,
so that a hostile formula ends in a UserError, at once.
"""

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping

from smml.cost.audit.units import NAMES as UNIT_NAMES, Amount, unit_named, unit_text
from smml.errors import UserError

MAX_CHARACTERS, MAX_PARTS, MAX_DEPTH, MAX_EXPONENT = 500, 200, 40, 100
FUNCTIONS = ("min", "max", "sum", "ceil", "floor", "round", "sqrt", "log")
_COMPARISONS: dict[type, Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ALLOWED = (
    "allowed are numbers, names of claims, facts and units, + - * / **, comparisons, and "
    + ", ".join(FUNCTIONS)
)


def parse(formula: str) -> ast.expr:
    """The formula's tree, all of whose parts are on the list; UserError that quotes the part that is not."""
    if len(formula) > MAX_CHARACTERS:
        raise UserError(
            f"the formula has {len(formula):,} characters, at most {MAX_CHARACTERS} are read; split it into claims"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's remarks on a text that is no Python
            tree = ast.parse(formula.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(
            f"{formula!r} is not a formula: {_first_line(error)}; {_ALLOWED}"
        ) from error
    parts = _check(tree, 1)
    if parts > MAX_PARTS:
        raise UserError(
            f"the formula has {parts} parts, at most {MAX_PARTS} are read; split it into claims"
        )
    return tree


def names(formula: str) -> list[str]:
    """Names in the formula that are no units, in order of appearance, each once."""
    found = [
        node.id
        for node in ast.walk(parse(formula))
        if isinstance(node, ast.Name) and node.id not in UNIT_NAMES and node.id not in FUNCTIONS
    ]
    return sorted(set(found), key=lambda name: formula.index(name))


def evaluate(formula: str, values: Mapping[str, Amount]) -> Amount:
    """The formula's value; a comparison yields 1 or 0.

    Raises UserError for a name that `values` does not hold, units that do not agree, and what has no finite value.
    """
    return _walk(parse(formula), values)


def is_question(formula: str) -> bool:
    """Whether the formula is a comparison, whose value means yes or no."""
    return isinstance(parse(formula), ast.Compare)


def substituted(formula: str, values: Mapping[str, Amount]) -> str:
    """The formula with each name's value in its place, to be read, not parsed."""
    tree = parse(formula)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in values:
            node.id = str(values[node.id])
    return ast.unparse(tree).replace("**", "^").replace("*", "×")


def _check(node: ast.AST, depth: int) -> int:
    """How many parts the tree has; UserError for a part that is not allowed, or too deep."""
    if depth > MAX_DEPTH:
        raise UserError(f"the formula is nested deeper than {MAX_DEPTH}; split it into claims")
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise _forbidden(node)
        children: list[ast.AST] = []
    elif isinstance(node, ast.Name):
        children = []
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        children = [node.operand]
    elif isinstance(node, ast.BinOp) and isinstance(
        node.op, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.Pow
    ):
        children = [node.left, node.right]
    elif isinstance(node, ast.Compare) and all(type(op) in _COMPARISONS for op in node.ops):
        children = [node.left, *node.comparators]
    elif isinstance(node, ast.Call):
        known = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
        if not known or node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            raise _forbidden(node)
        children = list(node.args)
    else:
        raise _forbidden(node)
    return 1 + sum(_check(child, depth + 1) for child in children)


def _walk(node: ast.expr, values: Mapping[str, Amount]) -> Amount:
    if isinstance(node, ast.Constant):
        try:
            return _finite(Amount(float(node.value)), node)
        except OverflowError:
            raise UserError(f"{_quoted(node)} is too large") from None
    if isinstance(node, ast.Name):
        return _named(node.id, values)
    if isinstance(node, ast.UnaryOp):
        held = _walk(node.operand, values)
        return Amount(-held.value, held.units) if isinstance(node.op, ast.USub) else held
    if isinstance(node, ast.Call):
        return _finite(_call(node, [_walk(one, values) for one in node.args]), node)
    if isinstance(node, ast.Compare):
        held = [_walk(one, values) for one in (node.left, *node.comparators)]
        pairs = zip(node.ops, held, held[1:], strict=False)
        # Every pair is compared before any is judged: a wrong unit is an error wherever it stands.
        found = [
            _COMPARISONS[type(op)](a.value, b.converted(a, "compared with")) for op, a, b in pairs
        ]
        right = all(found)
        return Amount(float(right))
    left, right = _walk(node.left, values), _walk(node.right, values)
    try:
        if isinstance(node.op, ast.Pow):
            found = _power(left, right)
        elif isinstance(node.op, ast.Div):
            found = left / right
        else:
            action = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
            found = action[type(node.op)](left, right)
    except ZeroDivisionError:
        raise UserError(f"{_quoted(node)} divides by zero") from None
    except OverflowError:
        raise UserError(f"{_quoted(node)} is too large") from None
    return _finite(found, node)


def _named(name: str, values: Mapping[str, Amount]) -> Amount:
    if name in values:
        return values[name]
    if name in UNIT_NAMES:
        return unit_named(name)
    raise UserError(
        f"{name!r} is no claim, no fact and no unit; there are {', '.join(values) or 'no names'}; correct the name"
    )


def _power(base: Amount, exponent: Amount) -> Amount:
    if exponent.units:
        raise UserError(f"an exponent in {unit_text(exponent.units)}: it must be a pure number")
    if abs(exponent.value) > MAX_EXPONENT:
        raise UserError(f"exponent {exponent.value:g}: at most {MAX_EXPONENT} is computed")
    powers = [(name, power * exponent.value) for name, power in base.units]
    if any(power != int(power) for _, power in powers):
        raise UserError(
            f"{unit_text(base.units)} has no power of {exponent.value:g}; divide the unit out first"
        )
    value = base.value**exponent.value
    if isinstance(value, complex):
        raise UserError(f"a root of {base.value:g} is no real number")
    return Amount(value, tuple((name, int(power)) for name, power in powers if power))


def _call(node: ast.Call, held: list[Amount]) -> Amount:
    name = node.func.id
    if name in ("min", "max", "sum"):
        if not held:
            raise UserError(f"{name} needs at least one value")
        alike = [held[0].value, *(one.converted(held[0], "compared with") for one in held[1:])]
        return Amount({"min": min, "max": max, "sum": math.fsum}[name](alike), held[0].units)
    if len(held) != 1:
        raise UserError(f"{name} takes one value, {len(held)} are given")
    (one,) = held
    if name == "sqrt":
        return _power(one, Amount(0.5))
    if one.units:
        raise UserError(f"{name} of {unit_text(one.units)}: divide the unit out first")
    if name == "log":
        if one.value <= 0:
            raise UserError(f"log of {one.value:g} is no number")
        return Amount(math.log(one.value))
    rounded = {"ceil": math.ceil, "floor": math.floor, "round": round}[name]
    return Amount(float(rounded(one.value)))


def _finite(found: Amount, node: ast.expr) -> Amount:
    if not math.isfinite(found.value):
        raise UserError(f"{_quoted(node)} is too large")
    return found


def _forbidden(node: ast.AST) -> UserError:
    return UserError(f"{_quoted(node)} is not allowed in a formula; {_ALLOWED}")


def _quoted(node: ast.AST) -> str:
    try:
        text = ast.unparse(node)
    except (RecursionError, ValueError):
        text = type(node).__name__
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__
