"""`smml services [NAME]`: what each AWS service that this course names is for, its status today and what succeeds it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from smml.data.services import ServiceRow


def services(
    names: Annotated[
        list[str] | None, typer.Argument(help="Services, such as 'model monitor'; all if none.")
    ] = None,
    ended: Annotated[
        bool, typer.Option("--ended", help="Only those that a new account does not get any more.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Rows as JSON.")] = False,
) -> None:
    """AWS services by name: purpose, status with its date, successor, source."""
    from smml.data.services import service, services as every

    rows = [service(name) for name in names] if names else list(every().values())
    rows = [row for row in rows if not (ended and row.open_to_new_customers)]
    if as_json:
        print(f"[{', '.join(row.model_dump_json() for row in rows)}]")
    else:
        print(table(rows))


def table(rows: "Iterable[ServiceRow]") -> str:
    """A line a service: status, since when, what instead; the day for which it was read, "unchecked" where it was not."""
    lines = []
    for row in rows:
        status = row.status if row.since is None else f"{row.status} since {row.since}"
        read = f"{row.date}" if row.checked else "unchecked"
        instead = "" if row.successor is None else f" Instead: {row.successor}."
        lines.append(f"{row.name:42s} {status:38s} {read:10s} {row.purpose}.{instead}")
    return "\n".join(lines)
