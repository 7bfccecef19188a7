"""`smml steps [NUMBER …]`: the fourteen steps, run here and, as requests to AWS, checked; sent only to a named endpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from smml.cost.steps.fourteen import Step


def steps(
    numbers: Annotated[list[int] | None, typer.Argument(help="1 to 14; all if none.")] = None,
    here: Annotated[bool, typer.Option("--here/--no-here", help="Run the local side.")] = True,
    aws: Annotated[bool, typer.Option("--aws/--no-aws", help="Check the requests.")] = True,
    endpoint: Annotated[
        str | None, typer.Option(help="Send the requests to this stand-in, such as a moto server.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the local side works.")] = None,
) -> None:
    """From an empty machine to a watched model: each of fourteen steps here and on AWS, and when to take which."""
    import tempfile

    from smml.cost.steps.fourteen import STEPS, step

    chosen = [step(number) for number in numbers] if numbers else list(STEPS)
    with tempfile.TemporaryDirectory() as fresh:
        wrong = 0
        for one in chosen:
            print(f"{one.number}. {one.name}: here when {one.take_here}; AWS when {one.take_aws}.")
            if here:
                print(f"   here: {one.run(folder or Path(fresh)).said}")
            if aws or endpoint:
                wrong += _on_aws(one, endpoint)
    raise typer.Exit(1 if wrong else 0)


def _on_aws(one: "Step", endpoint: str | None) -> int:
    """Print each request with its verdict and what the step is billed by; the number of requests that are not right."""
    from smml.cost.steps.project import Project
    from smml.cost.steps.validate import problems, send

    wrong = 0
    for request in one.requests(Project()):
        found = problems(request)
        wrong += bool(found)
        verdict = " ".join(found) or "valid"
        if endpoint and not found:
            send(request, endpoint)
            verdict = f"answered by {endpoint}"
        print(f"   AWS:  {request.name}, {request.why}: {verdict}")
    for price in one.costs():
        print(f"   {price}")
    return wrong
