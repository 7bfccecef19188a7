"""The command `smml`: its subcommands, floor by floor, and what becomes of an error that the user can mend."""

import sys
from typing import Annotated

import typer

from smml import __version__
from smml.aws.prices_command import app as prices
from smml.cli import machine, notebooks
from smml.cost.audit.audit_command import audit
from smml.cost.decisions.decide_command import app as decide
from smml.cost.services_command import services
from smml.cost.steps.command import steps
from smml.errors import UserError
from smml.plan.command_line import plan

app = typer.Typer(
    help="Self-managed machine learning, measured: run the notebooks, measure this machine, compare runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Self-managed machine learning, measured."""
    if show:
        print(f"smml {__version__}")
        raise typer.Exit()


OF_NOTEBOOKS = {
    "run": notebooks.run,
    "site": notebooks.site,
    "format": notebooks.format_notebooks,
}
OF_THE_MACHINE = {
    "doctor": machine.doctor,
    "bench": machine.bench,
    "figures": machine.figures,
    "compare": machine.compare,
    "plot": machine.plot,
}
FROM_FACTS = {"plan": plan, "audit": audit, "services": services, "steps": steps}
for _name, _command in (OF_NOTEBOOKS | OF_THE_MACHINE | FROM_FACTS).items():
    app.command(_name)(_command)
for _name, _group in {"decide": decide, "prices": prices}.items():
    app.add_typer(_group, name=_name)
app.command("lab", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    notebooks.lab
)


def main() -> None:
    """Entry point: an error that the user can mend becomes one line and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"smml: {error}", file=sys.stderr)
        sys.exit(2)
