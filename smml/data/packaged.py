"""The text of a file of facts that came with the package."""

from importlib import resources

from smml.errors import UserError


def text_of(file: str) -> str:
    """The text of `file`; raises UserError that names it where it cannot be read."""
    try:
        return resources.files("smml.data").joinpath(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {file} of smml.data: {error}; install the package again."
        ) from error
