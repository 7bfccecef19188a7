"""What ranks must be able to share equally, said before any of them waits for another."""

from smml.errors import UserError


def must_divide(ranks: int, **sizes: int) -> None:
    """Raise UserError naming each of `sizes` that is no multiple of `ranks`, and what would be."""
    wrong = {name: size for name, size in sizes.items() if size % ranks}
    if wrong:
        told = ", ".join(f"{name.replace('_', ' ')} = {size}" for name, size in wrong.items())
        raise UserError(
            f"{ranks} ranks cannot share {told} equally: choose ranks that divide it, or multiples of {ranks}."
        )
