"""The one exception that means "the user can mend this": the CLI prints it as one line and exits with 2."""


class UserError(Exception):
    """A mistake or a state of the machine that the user can mend.

    The message names what was given, what is allowed and what to do, in one line.
    """
