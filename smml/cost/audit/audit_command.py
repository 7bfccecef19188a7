"""`smml audit CASE.yaml`: recompute a business case, claim by claim."""

from typing import Annotated

import typer

from smml.errors import UserError


def audit(
    case: Annotated[
        str | None,
        typer.Argument(help="A YAML file, or a case of the package: llm_on_aws."),
    ] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print an empty case with comments, to be filled in.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Recompute a business case; exit 1 if any claim contradicts another or is physically impossible."""
    from pathlib import Path

    from smml.cost.audit import as_json as json_of, audit as judge, load_case, packaged_case, text
    from smml.cost.audit.case import packaged_text

    if template:
        print(packaged_text("template"), end="")
        return
    if case is None:
        raise UserError(
            "no case is given: name a YAML file or llm_on_aws, or print an empty one with --template."
        )
    named = (
        packaged_case
        if not case.endswith((".yaml", ".yml")) and not Path(case).exists()
        else load_case
    )
    held = named(case)
    judgements = judge(held)
    print(json_of(held, judgements) if as_json else text(held, judgements))
    raise typer.Exit(1 if any(one.failed for one in judgements) else 0)
