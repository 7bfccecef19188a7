"""`python -m smml.cli`: the command `smml` of this Python."""

from smml.cli import main

main()
