"""`smml prices`: show what is known, refresh it from AWS, what moved, what is old."""

from typing import Annotated

import typer

from smml.data.prices import KINDS, prices, snapshot_file

app = typer.Typer(
    help="Prices with source and date: show, refresh from AWS, what moved, what is old.",
    no_args_is_help=True,
)


@app.command()
def show(
    item: Annotated[
        str | None,
        typer.Argument(help="g5.xlarge, s3/standard/storage, or s3/ for all that begin so."),
    ] = None,
    region: Annotated[str | None, typer.Option(help="Such as us-east-1; all if none.")] = None,
    kind: Annotated[str | None, typer.Option(help=", ".join(KINDS))] = None,
) -> None:
    """Print the prices known, each with its unit, day and source."""
    rows = prices(item, region, kind)
    if not rows:
        typer.echo("no source was found for such a price.")
        return
    for row in rows:
        price = row.price
        typer.echo(
            f"{row.item:44} {row.region:15} {row.kind:15} {_number(price.value):>12} {price.unit:16} {price.date}"
        )
    typer.echo(f"\n{len(rows)} prices; sources:")
    for source, url in sorted({(row.price.source, row.price.url) for row in rows}):
        typer.echo(f"  {source}\n    {url}")
    used = sum(row.origin == "refreshed snapshot" for row in rows)
    typer.echo(f"{used} of them from your own snapshot, {snapshot_file()}." if used else _PACKAGED)


_PACKAGED = "All of them are the packaged ones; `smml prices refresh` reads today's from AWS."


@app.command()
def refresh(
    region: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable; us-east-1, us-west-2 and eu-west-1 if none."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="URL of a stand-in; the real APIs if none.")
    ] = None,
    spot_days: Annotated[float, typer.Option(help="Days of spot history, at most 90.")] = 14,
) -> None:
    """Read prices and spot history from AWS (free of charge) into your cache; needs credentials."""
    from smml.aws import prices as refreshing

    done = refreshing.refresh(region or refreshing.REGIONS, endpoint, spot_days=spot_days)
    typer.echo(f"{len(done.rows)} prices and {len(done.spot)} spot prices read; written:")
    for file in done.files:
        typer.echo(f"  {file}")
    _print(done.changes)


@app.command()
def diff() -> None:
    """What moved, appeared and went between the packaged prices and your refreshed snapshot."""
    from smml.aws.prices import snapshot_changes

    _print(snapshot_changes())


@app.command()
def stale(
    days: Annotated[int, typer.Option(help="A source older than this is stale.")] = 90,
) -> None:
    """Age of every source of prices, spot prices and offerings; the oldest first."""
    from smml.aws.prices import staleness

    ages = staleness(limit_days=days)
    for age in ages:
        mark = "STALE" if age.stale else "     "
        typer.echo(f"{mark} {age.days:5} days  {age.figures:4} figures  {age.source}")
    old = sum(age.figures for age in ages if age.stale)
    if old:
        total = sum(age.figures for age in ages)
        typer.echo(
            f"warning: {old} of {total} figures are more than {days} days old; `smml prices refresh` reads today's."
        )


def _print(changes: list) -> None:
    if not changes:
        typer.echo("nothing moved.")
    for change in changes:
        where = f"{change.item:44} {change.region:15} {change.kind:15}"
        if change.was is None:
            typer.echo(f"{where} appeared at {_number(change.now)} {change.unit}")
        elif change.now is None:
            typer.echo(f"{where} went (was {_number(change.was)} {change.unit})")
        else:
            typer.echo(
                f"{where} {_number(change.was)} → {_number(change.now)} {change.unit} ({change.by:+.1%})"
            )


def _number(value: float) -> str:
    return f"{value:.10f}".rstrip("0").rstrip(".") if abs(value) >= 1e-9 else repr(value)
